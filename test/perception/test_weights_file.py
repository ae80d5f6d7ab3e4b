# SPDX-License-Identifier: Apache-2.0
"""Every way in which a weights file can be right or wrong; wrong ones are one line to read."""

from __future__ import annotations

import argparse
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.model import build, load_state
from rock_seg_ros.perception.weights_file import (
    Weights,
    WeightsError,
    load_weights,
    save_weights,
    write_beside,
)

CARD = Card(output_stride=16, data='noise')


@pytest.fixture(scope='module')
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build(CARD).state_dict())


def plain(channels: int) -> dict[str, Tensor]:
    """What the card of a checkpoint is guessed from."""
    return {'classifier.4.weight': torch.zeros(channels, 256, 1, 1)}


def refused(file: Path) -> str:
    """Returns why a file is refused, once it is clear that this is one line naming the file."""
    with pytest.raises(WeightsError) as error:
        load_weights(file)
    text = str(error.value)
    assert '\n' not in text
    assert text.startswith(str(file))
    return text


def test_a_float16_file_comes_back_with_its_card(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / 'new' / 'w.safetensors'
    save_weights(file, state, CARD)
    weights = load_weights(file)
    assert weights.card == CARD
    for name, tensor in weights.state.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-6)
    load_state(build(CARD), weights.state, 'it')


def test_an_int8_file_is_small_and_off_by_half_a_step_at_most(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = tmp_path / 'w.safetensors'
    save_weights(file, state, CARD, int8=True)
    assert file.stat().st_size <= 41.5e6
    loaded = load_weights(file).state
    assert loaded.keys() == {n for n in state if not n.endswith('num_batches_tracked')}
    for name, tensor in loaded.items():
        if tensor.ndim < 2:
            assert torch.equal(tensor, state[name])
        else:
            original = state[name].flatten(1)
            half_a_step = original.abs().amax(dim=1, keepdim=True) / 254
            assert ((tensor.flatten(1) - original).abs() <= half_a_step * 1.001 + 1e-12).all()


def test_others_may_read_a_file_as_far_as_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_weights(tmp_path / 'w.safetensors', plain(2), CARD)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'w.safetensors').stat().st_mode) == 0o644


def test_a_write_that_ends_in_the_middle_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path,
) -> None:
    target = tmp_path / 'w.safetensors'
    target.write_text('old')

    def fail(temporary: Path) -> None:
        temporary.write_text('ha')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beside(target, fail)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [('w.safetensors', 'old')]


def test_a_missing_file_or_a_strange_name_is_refused(tmp_path: Path) -> None:
    assert 'no such file' in refused(tmp_path / 'none.safetensors')
    assert 'no such file' in refused(tmp_path / 'none.onnx')
    assert '.safetensors' in refused(tmp_path / 'weights.txt')


def test_a_truncated_safetensors_file_is_refused(weights_file: Path, tmp_path: Path) -> None:
    whole = weights_file.read_bytes()
    for length in (0, 7, 1000, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / f'{length}.safetensors'
        cut.write_bytes(whole[:length])
        assert 'not a whole safetensors file' in refused(cut)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'w.safetensors'
    file.write_bytes(b'\x89PNG' * 100)
    assert 'not a whole safetensors file' in refused(file)
    save_file(plain(2), file)
    assert 'no card' in refused(file)
    save_file(plain(2), file, {'card': json.dumps({'format_version': 9})})
    assert 'format_version is 9' in refused(file)
    save_file(plain(2), file, {'card': '{'})
    assert 'not JSON' in refused(file)


def test_int8_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / 'w.safetensors'
    tensors = {'a': torch.zeros(3, 2, dtype=torch.int8), 'a.int8_scale': torch.zeros(4)}
    save_file(tensors, file, {'card': CARD.to_json()})
    assert 'int8 scale' in refused(file)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_is_never_run(tmp_path: Path) -> None:
    file, mark = tmp_path / 'w.pth', tmp_path / 'mark'
    torch.save({'model': plain(2), 'args': Bomb(mark)}, file)
    assert 'nothing else is unpickled' in refused(file)
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists(), 'the bomb is a dud, and this test holds nothing'


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.ckpt'])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f'w{suffix}'
    torch.save(plain(2), file)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b'', b'not a checkpoint'):
        file.write_bytes(content)
        refused(file)


@pytest.mark.parametrize(
    'content', [{'epoch': 3}, [1, 2], torch.zeros(3), {'model': 3}, {'fc.weight': torch.zeros(2)}]
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'w.pth')
    assert 'state dict' in refused(tmp_path / 'w.pth')


def save_pth(folder: Path, content: object, card: object = None) -> Weights:
    torch.save(content, folder / 'w.pth')
    if card is not None:
        (folder / 'w.json').write_text(json.dumps(card))
    return load_weights(folder / 'w.pth')


def test_a_training_scripts_checkpoint_is_unwrapped(tmp_path: Path) -> None:
    content = {'model': plain(2), 'epoch': 3, 'args': argparse.Namespace(lr=0.1)}
    assert save_pth(tmp_path, content).state.keys() == plain(2).keys()


def test_a_lightning_checkpoint_is_unwrapped_and_brings_its_card(tmp_path: Path) -> None:
    inner = {f'model.{name}': tensor for name, tensor in plain(2).items()}
    card = Card(decoder='none', data='mine').to_json()
    weights = save_pth(tmp_path, {'state_dict': inner, 'card': card})
    assert weights.state.keys() == plain(2).keys()
    assert weights.card.data == 'mine'


def test_two_classes_without_a_card_mean_that_1_is_rock(tmp_path: Path) -> None:
    card = save_pth(tmp_path, plain(2)).card
    assert (card.decoder, card.activation, card.rock_ids) == ('none', 'softmax', (1,))
    assert card.mean == (0.485, 0.456, 0.406)


def test_one_channel_without_a_card_means_sigmoid(tmp_path: Path) -> None:
    card = save_pth(tmp_path, plain(1)).card
    assert (card.activation, card.channels, card.rock_ids) == ('sigmoid', 1, (1,))


def test_more_classes_without_a_card_are_refused_naming_what_is_missing(tmp_path: Path) -> None:
    torch.save(plain(21), tmp_path / 'w.pth')
    told = refused(tmp_path / 'w.pth')
    assert '21 classes' in told
    assert 'w.json' in told
    assert '"rock_classes"' in told


def test_a_card_beside_the_file_names_the_classes(tmp_path: Path) -> None:
    card = {'classes': ['sky', 'sand', 'boulder'], 'rock_classes': ['boulder'], 'threshold': 0.3}
    weights = save_pth(tmp_path, plain(3), card)
    assert weights.card.rock_ids == (2,)
    assert weights.card.threshold == 0.3


def test_a_card_of_other_channels_is_refused(tmp_path: Path) -> None:
    save_pth(tmp_path, plain(2))
    (tmp_path / 'w.json').write_text('{"classes": ["a", "b", "c"], "rock_classes": ["c"]}')
    assert 'has 2 channels, its card 3' in refused(tmp_path / 'w.pth')


@pytest.mark.parametrize('content', [b'{', b'[]', b'\xff\xfe\x00', b'{"decoder": "unet"}'])
def test_a_card_beside_the_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    save_pth(tmp_path, plain(2))
    (tmp_path / 'w.json').write_bytes(content)
    with pytest.raises(WeightsError, match=r'w\.(pth|json): ') as error:
        load_weights(tmp_path / 'w.pth')
    assert '\n' not in str(error.value)


def test_a_damaged_onnx_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    file = tmp_path / 'w.onnx'
    for content in (b'', b'not a graph'):
        file.write_bytes(content)
        assert 'not a whole ONNX file' in refused(file)
