# SPDX-License-Identifier: Apache-2.0
"""A checkpoint becomes a weights file that the node reads, with the same results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.model import build
from rock_seg_ros.perception.segmenter import Segmenter
from rock_seg_ros.perception.weights_file import WeightsError, load_weights
from training.config import MASK_VALUES
from training.datasets import Sample, find_samples
from training.export import data_settings, main

CARD = Card(output_stride=16, data='discs', metrics={'earlier': 0.5})


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves, with random weights."""
    torch.manual_seed(2)
    state = build(CARD, aux=True).state_dict()
    file = tmp_path_factory.mktemp('run') / 'last.ckpt'
    wrapped = {f'model.{name}': tensor for name, tensor in state.items()}
    torch.save({'state_dict': wrapped, 'card': CARD.to_json(), 'global_step': 7}, file)
    return file


def stored(checkpoint: Path) -> dict[str, Tensor]:
    return load_weights(checkpoint).state


def test_a_safetensors_file_has_the_checkpoints_weights_and_card(
    checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / 'w.safetensors'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target)]) == 0
    weights = load_weights(target)
    assert weights.card == CARD
    assert not any(name.startswith('aux_classifier') for name in weights.state)
    name = 'classifier.refine.0.weight'
    torch.testing.assert_close(weights.state[name], stored(checkpoint)[name], rtol=1e-3, atol=1e-6)


def test_an_int8_file_fits_the_package_and_carries_measured_figures(
    checkpoint: Path, own_discs: Path, tmp_path: Path
) -> None:
    target = tmp_path / 'w.safetensors'
    given = ['--checkpoint', str(checkpoint), '-o', str(target), '--int8']
    assert main([*given, '--data', str(own_discs)]) == 0
    assert target.stat().st_size <= 41.5e6
    metrics = load_weights(target).card.metrics
    assert metrics.keys() == {
        'earlier', 'data_val_iou', 'data_val_precision', 'data_val_recall', 'data_val_mean_iou'
    }  # fmt: skip
    assert metrics['earlier'] == 0.5


@pytest.mark.parametrize(('kept', 'held_out'), [({'val_fraction': 0.6}, 3), ({}, 1)])
def test_figures_are_measured_on_what_the_training_held_out(
    kept: dict[str, float],
    held_out: int,
    checkpoint: Path,
    own_discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured_on: list[list[Sample]] = []

    def note(segmenter: object, samples: list[Sample], mask_values: object) -> dict[str, float]:
        measured_on.append(samples)
        return {'iou': 0.5}

    monkeypatch.setattr('training.export.evaluate', note)
    own = tmp_path / 'own.ckpt'
    torch.save(torch.load(checkpoint, weights_only=True) | kept, own)
    target = tmp_path / 'w.safetensors'
    assert main(['--checkpoint', str(own), '-o', str(target), '--data', str(own_discs)]) == 0
    assert measured_on == [find_samples(own_discs, 'val', kept.get('val_fraction', 0.2))]
    assert len(measured_on[0]) == held_out


def test_masks_are_read_as_the_training_read_them_unless_told_otherwise(
    checkpoint: Path, tmp_path: Path
) -> None:
    own = tmp_path / 'own.ckpt'
    torch.save({'mask_values': {0: 0, 9: 1}, 'val_fraction': 0.3}, own)
    assert data_settings(own) == {'mask_values': {0: 0, 9: 1}, 'val_fraction': 0.3}
    assert data_settings(checkpoint) == {'mask_values': MASK_VALUES, 'val_fraction': 0.2}


def test_a_checkpoint_of_another_making_says_nothing_of_its_data(tmp_path: Path) -> None:
    legacy = tmp_path / 'legacy.ckpt'
    torch.save({'val_fraction': 0.3}, legacy, _use_new_zipfile_serialization=False)
    assert data_settings(legacy)['val_fraction'] == 0.2
    assert data_settings(tmp_path / 'w.pth')['val_fraction'] == 0.2


def test_an_onnx_file_gives_torchs_masks_at_any_size_and_batch(
    checkpoint: Path, small_picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    pytest.importorskip('onnxscript', reason='onnxscript is not installed')
    target = tmp_path / 'w.onnx'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target)]) == 0
    weights = load_weights(target)
    assert weights.card == CARD
    onnx = Segmenter(weights, 'cpu')
    plain = Segmenter(load_weights(checkpoint), 'cpu')
    assert (onnx.backend, onnx.precision, onnx.device.type) == ('onnx', 'fp32', 'cpu')
    for picture in (small_picture, small_picture[:33, :70], small_picture[:1, :1]):
        one, two = onnx.segment(picture), plain.segment(picture)
        assert (one.mask() == two.mask()).mean() >= 0.999
    batch = torch.randn(3, 3, 40, 56)
    scores = [s._runner.scores(batch) for s in (onnx, plain)]
    assert scores[0].shape == (3, 2, 40, 56)
    assert (scores[0].softmax(1) - scores[1].softmax(1)).abs().max() <= 1e-3
    for arguments, told in (
        ({'output_stride': 8}, 'exported at output stride 16, not 8'),
        ({'precision': 'fp16'}, "'fp16'"),
        ({'backend': 'torch'}, "needs backend 'onnx'"),
    ):
        with pytest.raises(WeightsError, match=told):
            Segmenter(weights, 'cpu', **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (('--checkpoint', 'none.ckpt'), 'none.ckpt: no such file'),
        (('-o', 'w.pth'), 'w.pth: the name must end in .safetensors or .onnx'),
        (('--data', 'nowhere'), 'nowhere: no folder'),
        (('--output-stride', '4'), '4'),
    ],
)
def test_an_error_is_one_line_status_1_and_leaves_the_old_file(
    change: tuple[str, str],
    told: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / 'w.safetensors'
    target.write_text('old')
    given = {'--checkpoint': str(checkpoint), '-o': str(target)} | dict([change])
    assert main([word for pair in given.items() for word in pair]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('training.export: ')
    assert told in error
    assert '\n' not in error
    assert target.read_text() == 'old'


def test_int8_onnx_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / 'w.onnx'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target), '--int8']) == 1
    assert '--int8 is for .safetensors' in capsys.readouterr().err
    assert not target.exists()
