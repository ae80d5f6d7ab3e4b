# SPDX-License-Identifier: Apache-2.0
"""Valid and invalid weights files; the errors of invalid ones have one line."""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build, load_state, restore
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.weights_file import (
    MAX_FILE_BYTES,
    Weights,
    WeightsError,
    atomic_write,
    embedded_name,
    load_weights,
    save_weights,
)

METADATA = ModelMetadata(output_stride=16, data='noise')


@pytest.fixture(scope='module')
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build(METADATA).state_dict())


def plain(channels: int) -> dict[str, Tensor]:
    """Returns the tensor from which the metadata of a checkpoint are derived."""
    return {'classifier.4.weight': torch.zeros(channels, 256, 1, 1)}


def error_of(file: Path) -> str:
    """Returns the error of a file after a check that it is one line that starts with the file."""
    with pytest.raises(WeightsError) as error:
        load_weights(file)
    text = str(error.value)
    assert '\n' not in text
    assert text.startswith(str(file))
    return text


def test_a_float16_file_is_read_with_its_metadata(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / 'new' / 'w.safetensors'
    save_weights(file, state, METADATA)
    weights = load_weights(file)
    assert weights.metadata == METADATA
    for name, tensor in weights.state.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-6)
    load_state(build(METADATA), weights.state, 'the network')


def test_an_int8_file_is_small_with_an_error_of_at_most_half_a_step(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    file = tmp_path / 'w.safetensors'
    save_weights(file, state, METADATA, int8=True)
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


def test_int8_keeps_small_tensors_and_depthwise_convolutions_in_float16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {
        'large': torch.randn(256, 128, 1, 1),
        'small': torch.randn(32, 3, 3, 3),
        'depthwise': torch.randn(1152, 1, 5, 5),
    }
    save_weights(tmp_path / 'w.safetensors', state, METADATA, int8=True)
    with safe_open(tmp_path / 'w.safetensors', framework='pt') as opened:
        kinds = {name: opened.get_tensor(name).dtype for name in state}
    assert kinds == {'large': torch.int8, 'small': torch.float16, 'depthwise': torch.float16}


def test_the_permissions_of_a_file_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_weights(tmp_path / 'w.safetensors', plain(2), METADATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'w.safetensors').stat().st_mode) == 0o644


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path,
) -> None:
    target = tmp_path / 'w.safetensors'
    target.write_text('old')

    def fail(temporary: Path) -> None:
        temporary.write_text('ha')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, fail)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [('w.safetensors', 'old')]


def test_a_missing_file_or_an_unknown_suffix_is_rejected(tmp_path: Path) -> None:
    assert 'no such file' in error_of(tmp_path / 'none.safetensors')
    assert 'no such file' in error_of(tmp_path / 'none.onnx')
    assert '.safetensors' in error_of(tmp_path / 'weights.txt')


def test_a_truncated_safetensors_file_is_rejected(weights_file: Path, tmp_path: Path) -> None:
    whole = weights_file.read_bytes()
    for length in (0, 7, 1000, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / f'{length}.safetensors'
        cut.write_bytes(whole[:length])
        assert 'not a complete safetensors file' in error_of(cut)


def test_a_safetensors_file_without_valid_metadata_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / 'w.safetensors'
    file.write_bytes(b'\x89PNG' * 100)
    assert 'not a complete safetensors file' in error_of(file)
    save_file(plain(2), file)
    assert 'no model metadata' in error_of(file)
    save_file(plain(2), file, {'card': json.dumps({'format_version': 9})})
    assert 'format_version must be 1, not 9' in error_of(file)
    save_file(plain(2), file, {'card': '{'})
    assert 'not JSON' in error_of(file)


class CreatesFile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_with_code_is_rejected_and_not_executed(tmp_path: Path) -> None:
    file, mark = tmp_path / 'w.pth', tmp_path / 'mark'
    torch.save({'model': plain(2), 'args': CreatesFile(mark)}, file)
    assert 'only tensors are unpickled' in error_of(file)
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists(), 'the pickle has no effect, so the test shows nothing'


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.ckpt'])
def test_a_damaged_checkpoint_is_rejected(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f'w{suffix}'
    torch.save(plain(2), file)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b'', b'not a checkpoint'):
        file.write_bytes(content)
        error_of(file)


@pytest.mark.parametrize(
    'content', [{'epoch': 3}, [1, 2], torch.zeros(3), {'model': 3}, {'fc.weight': torch.zeros(2)}]
)
def test_a_checkpoint_without_a_network_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'w.pth')
    assert 'state dict' in error_of(tmp_path / 'w.pth')


def save_pth(folder: Path, content: object, metadata: object = None) -> Weights:
    torch.save(content, folder / 'w.pth')
    if metadata is not None:
        (folder / 'w.json').write_text(json.dumps(metadata))
    return load_weights(folder / 'w.pth')


def test_the_checkpoint_of_a_training_script_is_read(tmp_path: Path) -> None:
    content = {'model': plain(2), 'epoch': 3, 'args': argparse.Namespace(lr=0.1)}
    assert save_pth(tmp_path, content).state.keys() == plain(2).keys()


def test_a_lightning_checkpoint_is_read_with_its_metadata(tmp_path: Path) -> None:
    inner = {f'model.{name}': tensor for name, tensor in plain(2).items()}
    metadata = ModelMetadata(decoder='none', data='mine').to_json()
    weights = save_pth(tmp_path, {'state_dict': inner, 'card': metadata})
    assert weights.state.keys() == plain(2).keys()
    assert weights.metadata.data == 'mine'


def test_without_metadata_class_1_of_two_is_rock(tmp_path: Path) -> None:
    metadata = save_pth(tmp_path, plain(2)).metadata
    assert (metadata.decoder, metadata.activation, metadata.rock_ids) == ('none', 'softmax', (1,))
    assert metadata.mean == (0.485, 0.456, 0.406)


def test_without_metadata_one_channel_is_read_as_sigmoid(tmp_path: Path) -> None:
    metadata = save_pth(tmp_path, plain(1)).metadata
    assert (metadata.activation, metadata.channels, metadata.rock_ids) == ('sigmoid', 1, (1,))


def test_without_metadata_more_classes_are_rejected_with_the_missing_keys(tmp_path: Path) -> None:
    torch.save(plain(21), tmp_path / 'w.pth')
    message = error_of(tmp_path / 'w.pth')
    assert '21 classes' in message
    assert 'w.json' in message
    assert '"rock_classes"' in message


def test_a_json_file_next_to_the_checkpoint_has_its_metadata(tmp_path: Path) -> None:
    metadata = {
        'classes': ['sky', 'sand', 'boulder'],
        'rock_classes': ['boulder'],
        'threshold': 0.3,
    }
    weights = save_pth(tmp_path, plain(3), metadata)
    assert weights.metadata.rock_ids == (2,)
    assert weights.metadata.threshold == 0.3


def test_metadata_for_another_number_of_channels_are_rejected(tmp_path: Path) -> None:
    save_pth(tmp_path, plain(2))
    (tmp_path / 'w.json').write_text('{"classes": ["a", "b", "c"], "rock_classes": ["c"]}')
    assert 'has 2 channels, but its metadata 3' in error_of(tmp_path / 'w.pth')


@pytest.mark.parametrize('content', [b'{', b'[]', b'\xff\xfe\x00', b'{"decoder": "unet"}'])
def test_invalid_metadata_in_a_json_file_are_an_error_of_one_line(
    tmp_path: Path, content: bytes
) -> None:
    save_pth(tmp_path, plain(2))
    (tmp_path / 'w.json').write_bytes(content)
    with pytest.raises(WeightsError, match=r'w\.(pth|json): ') as error:
        load_weights(tmp_path / 'w.pth')
    assert '\n' not in str(error.value)


def test_a_damaged_onnx_file_is_rejected(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    file = tmp_path / 'w.onnx'
    for content in (b'', b'\0not a graph'):
        file.write_bytes(content)
        assert 'not a complete ONNX file' in error_of(file)


def save_safetensors(
    folder: Path, tensors: dict[str, Tensor], metadata: ModelMetadata = METADATA
) -> Path:
    file = folder / 'w.safetensors'
    save_file(tensors, file, {'card': metadata.to_json()})
    return file


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_rejected_by_tensor_name(
    tmp_path: Path, number: float, dtype: torch.dtype
) -> None:
    bad = torch.zeros(4, 2, dtype=dtype)
    bad[1, 1] = number
    tensors = {**plain(2), 'backbone.bad.weight': bad}
    assert 'backbone.bad.weight contains NaN' in error_of(save_safetensors(tmp_path, tensors))
    torch.save(tensors, tmp_path / 'w.pth')
    assert 'backbone.bad.weight contains NaN' in error_of(tmp_path / 'w.pth')


@pytest.mark.parametrize('dtype', [torch.complex64, torch.bool, torch.int32, torch.uint8])
def test_tensors_of_another_dtype_are_rejected_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({**plain(2), 'backbone.odd': torch.zeros(2, dtype=dtype)}, tmp_path / 'w.pth')
    assert f'floating-point tensor, not {str(dtype)[6:]}' in error_of(tmp_path / 'w.pth')
    if dtype != torch.complex64:  # not every version of safetensors can write it
        file = save_safetensors(tmp_path, {'backbone.odd': torch.zeros(2, dtype=dtype)})
        assert f'floating-point tensor, not {str(dtype)[6:]}' in error_of(file)


@pytest.mark.filterwarnings('ignore:.*(csr|CSR|quantize)')
def test_sparse_meta_quantized_and_expanded_tensors_are_rejected(tmp_path: Path) -> None:
    whole = torch.zeros(2, 2)
    for odd, kind in (
        (whole.to_sparse(), r'sparse_coo \(float32\); save its to_dense\(\)'),
        (whole.to_sparse_csr(), r'sparse_csr \(float32\); save its to_dense\(\)'),
        (whole.to('meta'), r'a meta tensor without values \(float32\); load the network before'),
        (
            torch.quantize_per_tensor(whole, 0.1, 0, torch.qint8),
            r'quantized \(qint8\); save the network before it is quantized',
        ),
    ):
        torch.save({**plain(2), 'backbone.odd': odd}, tmp_path / 'w.pth')
        assert re.search(
            f'backbone.odd must be a dense floating-point tensor, not {kind}',
            error_of(tmp_path / 'w.pth'),
        )
    one = torch.zeros(1).expand(2**20, 2**20)  # a file with one value
    torch.save({**plain(2), 'backbone.odd': one}, tmp_path / 'w.pth')
    assert 'parameters; the maximum is 268435456' in error_of(tmp_path / 'w.pth')


@pytest.mark.parametrize(
    ('tensors', 'message'),
    [
        ({'a': torch.zeros(3, 2, dtype=torch.int8)}, 'a is int8 without a scale'),
        ({'a': torch.zeros(3, 2), 'a.int8_scale': torch.ones(3)}, 'a has an int8 scale'),
        ({'a.int8_scale': torch.ones(3)}, 'a has an int8 scale'),
        (
            {
                'a': torch.zeros(3, 2, dtype=torch.int8),
                'a.int8_scale': torch.tensor([1, torch.nan, 1]),
            },
            'a contains NaN',
        ),
        (
            {'a': torch.zeros(3, 2, dtype=torch.int8), 'a.int8_scale': torch.zeros(4)},
            'shapes that do not match',
        ),
        (
            {'a': torch.zeros((), dtype=torch.int8), 'a.int8_scale': torch.ones(())},
            'shapes that do not match',
        ),
    ],
)
def test_an_int8_tensor_with_an_invalid_scale_is_rejected(
    tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    assert message in error_of(save_safetensors(tmp_path, tensors))


@pytest.mark.parametrize('number', [float('nan'), 1e6])
@pytest.mark.parametrize('int8', [False, True])
def test_weights_that_could_not_be_read_are_not_written(
    tmp_path: Path, number: float, int8: bool
) -> None:
    state = {'a': torch.full((256, 128), number)}
    if int8 and number == 1e6:
        save_weights(tmp_path / 'w.safetensors', state, METADATA, int8)
        return
    with pytest.raises(
        WeightsError, match=r'w\.safetensors: a(\.int8_scale)? contains NaN, infinity'
    ):
        save_weights(tmp_path / 'w.safetensors', state, METADATA, int8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('metadata', ['[' * 100_000, json.dumps({'metrics': {'iou': 'high'}})])
def test_deeply_nested_metadata_and_text_as_a_metric_are_rejected(
    tmp_path: Path, metadata: str
) -> None:
    torch.save(plain(2), tmp_path / 'w.pth')
    (tmp_path / 'w.json').write_text(metadata)
    error_of(tmp_path / 'w.pth')
    versioned = metadata.replace('{', '{"format_version": 1, ', 1)
    save_file(plain(2), tmp_path / 'w.safetensors', {'card': versioned})
    error_of(tmp_path / 'w.safetensors')


@pytest.mark.parametrize(
    'content',
    [
        {0: torch.zeros(2), 1: torch.zeros(2)},
        {'classifier.4.weight': torch.zeros(())},
        {'model': {3: torch.zeros(2), 'a': 2}},
    ],
)
def test_tensor_names_that_are_numbers_and_scalar_weights_are_rejected(
    tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / 'w.pth')
    error_of(tmp_path / 'w.pth')


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {'n_averaged': torch.tensor(7), **prefixed('module.', state)}


@pytest.mark.parametrize('architecture', ['deeplabv3_resnet50', 'deeplabv3_efficientnet_lite1'])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: prefixed('_orig_mod.', s),
        lambda s: prefixed('module._orig_mod.', s),
        lambda s: prefixed('_orig_mod.module.model.net.', s),
        lambda s: prefixed('segmenter.', s),
        lambda s: {n.replace('backbone.', 'backbone._orig_mod.'): t for n, t in s.items()},
        lambda s: {'model_state_dict': s, 'epoch': 3, 'optimizer': {'state': {0: {}}}},
        lambda s: {'network': {'weights': s}},
        lambda s: {'ema': averaged(s)},
        lambda s: {'model': s, 'model_ema': averaged(prefixed('', s))},
        lambda s: {'state_dict': {**prefixed('net.', s), 'criterion.weight': torch.ones(2)}},
        lambda s: {'model': s, 'best': np.float64(0.5), 'step': np.int64(3)},
        lambda s: {**s, 'epoch': 3, 'name': 'mine'},
        lambda s: [s],
        lambda s: (3, {'epoch': 3}, {'model': s}),
    ],
    ids=[
        'compiled',
        'distributed and compiled',
        'all prefixes',
        'another prefix',
        'partly compiled',
        'model_state_dict',
        'another key',
        'average only',
        'model and average',
        'criterion',
        'numpy scalars',
        'epoch among the tensors',
        'list',
        'tuple',
    ],
)
def test_a_checkpoint_is_read_from_any_common_wrapper(
    tmp_path: Path,
    small_networks: dict[str, dict[str, Tensor]],
    architecture: str,
    wrap: Callable[[Mapping[str, Tensor]], object],
) -> None:
    state = small_networks[architecture]
    torch.save(wrap(state), tmp_path / 'w.pth')
    weights = load_weights(tmp_path / 'w.pth')
    assert weights.metadata.architecture == architecture
    assert weights.metadata.output_stride == NETWORKS[architecture].output_strides[0]
    assert weights.metadata.mean == NETWORKS[architecture].mean
    assert weights.state.keys() == {n for n in state if not n.endswith('num_batches_tracked')}
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights.state.items())


@pytest.fixture(scope='module')
def small_networks() -> dict[str, dict[str, Tensor]]:
    """The last layer and some other layers of two networks, so that files are small."""
    parts: dict[str, dict[str, Tensor]] = {}
    for architecture, decoder in (
        ('deeplabv3_resnet50', 'none'),
        ('deeplabv3_efficientnet_lite1', 'skip'),
    ):
        strides = NETWORKS[architecture].output_strides
        metadata = ModelMetadata(
            architecture=architecture, decoder=decoder, output_stride=strides[0]
        )
        with torch.device('meta'):
            shapes = {name: t.shape for name, t in build(metadata).state_dict().items()}
        named = [n for n in shapes if n.startswith(('backbone.b', 'backbone.conv', 'classifier.'))]
        parts[architecture] = {
            name: torch.full(shapes[name], 0.25)
            for name in named
            if shapes[name].numel() < 20_000 and 'num_batches' not in name
        }
    return parts


def test_a_light_network_is_read_from_a_checkpoint_without_metadata(tmp_path: Path) -> None:
    metadata = replace(METADATA, architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    state = build(metadata).state_dict()
    torch.save({'model_state_dict': prefixed('module.', state)}, tmp_path / 'w.pth')
    weights = load_weights(tmp_path / 'w.pth')
    assert weights.metadata.architecture == metadata.architecture
    restored = restore(weights.metadata, weights.state).state_dict()
    assert torch.equal(restored['classifier.score.weight'], state['classifier.score.weight'])


@pytest.mark.parametrize(
    ('content', 'places'),
    [
        ({'student': plain(2), 'teacher': plain(2)}, 'student, teacher'),
        ({'nets': [plain(2), plain(2)]}, 'nets.0, nets.1'),
        ({'state_dict': prefixed('student.', plain(2)) | prefixed('teacher.', plain(2))},
         'state_dict.student, state_dict.teacher'),
        (prefixed('model.a.', plain(2)) | prefixed('model.b.', plain(2)), 'a, b'),
    ],
)  # fmt: skip
def test_of_several_networks_the_message_names_the_keys_and_how_to_save_one(
    tmp_path: Path, content: object, places: str
) -> None:
    torch.save(content, tmp_path / 'w.pth')
    message = error_of(tmp_path / 'w.pth')
    assert f'contains 2 networks: {places}; choose one' in message
    code = message[message.index('torch.save(') :]
    for name, file in (('FILE', 'w.pth'), ('ONE.pth', 'one.pth')):
        code = code.replace(f"'{name}'", repr(str(tmp_path / file)))
    exec(code, {'torch': torch})
    assert load_weights(tmp_path / 'one.pth').state.keys() == plain(2).keys()


def test_a_tensor_that_occurs_twice_without_its_prefix_is_rejected(tmp_path: Path) -> None:
    torch.save({**plain(2), **prefixed('module.', plain(2))}, tmp_path / 'w.pth')
    assert 'contains classifier.4.weight twice' in error_of(tmp_path / 'w.pth')


def test_a_checkpoint_that_contains_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, Any] = {'model': plain(2)}
    content['self'] = content
    assert save_pth(tmp_path, content).state.keys() == plain(2).keys()


def test_the_error_names_the_class_that_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({'model': plain(2), 'out': Path('x')}, tmp_path / 'w.pth')
    assert 'contains pathlib.' in (message := error_of(tmp_path / 'w.pth'))
    assert 'Path, but only tensors are unpickled' in message
    torch.save(torch.nn.Linear(1, 1), tmp_path / 'w.pth')
    assert 'contains torch.nn.modules.linear.Linear, but' in error_of(tmp_path / 'w.pth')
    torch.save({'w': plain(2), 'a': np.zeros(2)}, tmp_path / 'w.pth')
    assert 'multiarray._reconstruct' in error_of(tmp_path / 'w.pth')


@pytest.mark.filterwarnings('error:.*received a zip file')
def test_the_error_names_a_torchscript_program(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(tmp_path / 'w.pt')
    assert 'is a TorchScript program' in error_of(tmp_path / 'w.pt')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.onnx'])
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'\n<!DOCTYPE html>\n<html>', 'is a web page'),
        (b'<?xml version="1.0"?><Error>', 'is a web page or XML'),
        (b'<!-- saved from url -->\n<html>', 'is a web page'),
        (b'\xef\xbb\xbf<!DOCTYPE html>', 'is a web page'),
        (b'\xef\xbb\xbf\r\n<?xml version="1.0"?>', 'is a web page or XML'),
        ('\ufeff<!DOCTYPE html>'.encode('utf-16-le'), 'is a web page'),
        ('<!-- Größe -->'.encode() + b'\n<p>' * 90, 'is a web page'),
        (b'{"error": "Entry not found"}', 'is text that begins with \'{"error": "Entry not found'),
        (b'Not Found', "is text that begins with 'Not Found', not weights; download it again"),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'is a Git LFS pointer'),
    ],
)
def test_the_error_names_a_web_page_text_or_git_lfs_pointer_instead_of_weights(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    file = tmp_path / f'w{suffix}'
    file.write_bytes(content)
    assert message in error_of(file)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.onnx'])
def test_a_path_that_is_no_regular_file_is_not_opened(tmp_path: Path, suffix: str) -> None:
    pipe, device, folder = (tmp_path / f'{name}{suffix}' for name in ('pipe', 'device', 'folder'))
    os.mkfifo(pipe)
    device.symlink_to('/dev/zero')
    folder.mkdir()
    for file in (pipe, device, folder):
        assert 'is not a regular file' in error_of(file)


def test_a_metadata_file_that_is_no_regular_file_or_too_large_is_rejected(
    tmp_path: Path,
) -> None:
    torch.save(plain(2), tmp_path / 'w.pth')
    metadata = tmp_path / 'w.json'
    os.mkfifo(metadata)
    assert 'w.json: is not a regular file' in error_of(tmp_path / 'w.pth')
    metadata.unlink()
    metadata.symlink_to('/dev/zero')
    assert 'w.json: is not a regular file' in error_of(tmp_path / 'w.pth')
    metadata.unlink()
    with metadata.open('wb') as sparse:
        sparse.truncate(2**40)
    assert 'w.json: has 1099511627776 bytes' in error_of(tmp_path / 'w.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.onnx'])
def test_a_file_above_the_size_limit_is_rejected_before_it_is_read(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f'w{suffix}'
    with file.open('wb') as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    assert f'has {MAX_FILE_BYTES + 1} bytes' in error_of(file)


def test_a_compressed_checkpoint_that_is_too_large_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(plain(2), tmp_path / 'small.pth')
    with (
        zipfile.ZipFile(tmp_path / 'small.pth') as small,
        zipfile.ZipFile(tmp_path / 'w.pth', 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in small.namelist():
            packed.writestr(name, small.read(name))
        packed.writestr('small/data/9', bytes(2**22))
    assert load_weights(tmp_path / 'w.pth').state.keys() == plain(2).keys()
    monkeypatch.setattr('rock_seg_ros.perception.inference.checkpoint.MAX_FILE_BYTES', 2**21)
    assert (tmp_path / 'w.pth').stat().st_size < 2**16
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('the file was unpacked'))
    assert 'bytes; the maximum is 2097152' in error_of(tmp_path / 'w.pth')


def test_a_checkpoint_with_a_changed_byte_is_rejected_with_the_damaged_tensor(
    tmp_path: Path,
) -> None:
    file = tmp_path / 'w.pth'
    torch.save(plain(2), file)
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(file.read_bytes())
    content[largest.header_offset + 1000] ^= 1
    file.write_bytes(content)
    assert f'{largest.filename} does not match its checksum' in error_of(file)


def test_a_suffix_in_upper_case_is_read(tmp_path: Path) -> None:
    torch.save(plain(2), tmp_path / 'W.PTH')
    assert load_weights(tmp_path / 'W.PTH').state.keys() == plain(2).keys()


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (('auto',), 'resnet50'),
        (('auto', 'openvino'), 'light'),
        (('auto', 'auto', 'int8'), 'light'),
        (('cuda:1', 'auto', 'int8'), 'resnet50'),
        (('cpu',), 'light'),
    ],
)
def test_the_default_weights_follow_the_device(
    arguments: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert embedded_name(*arguments) == name
