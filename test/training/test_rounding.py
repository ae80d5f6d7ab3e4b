# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.weights_file import (
    Weights,
    WeightsError,
    int8_scale,
    load_weights,
    save_weights,
    stored_as_int8,
)
from training.datasets import DataError, DatasetConfig, Sample, find_samples
from training.rounding import round_convolution, round_to_int8

METADATA = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)


@pytest.fixture(scope='module')
def weights() -> Weights:
    torch.manual_seed(0)
    return Weights(Path('random'), METADATA, build(METADATA).state_dict())


@pytest.fixture
def samples(discs: Path, weights: Weights) -> list[Sample]:
    return find_samples(DatasetConfig(str(discs)), 'all', weights.metadata.classes)


def test_the_output_of_a_convolution_changes_less_than_with_rounding_to_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 8, 3, 3, generator=generator)
    mixing = torch.rand(12, 72, generator=generator)  # as in images, the inputs go together
    seen, new = (torch.randn(500, 12, generator=generator).abs() @ mixing for _ in range(2))
    rounded = round_convolution(weight, seen.T @ seen)
    scale = int8_scale(weight).view(-1, 1, 1, 1)
    nearest = (weight / scale).round() * scale
    error, error_of_nearest = (
        (new @ (other - weight).flatten(1).T).square().mean() for other in (rounded, nearest)
    )
    assert 0 < error < 0.2 * error_of_nearest
    torch.testing.assert_close((rounded / scale).round() * scale, rounded)


def test_rounded_weights_are_stored_without_a_further_error_and_are_the_same_each_time(
    weights: Weights, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('training.rounding.MAX_INPUTS', 480)  # quicker
    rounded, again = (round_to_int8(weights, samples[:1]).state for _ in range(2))
    assert all(tensor.equal(again[name]) for name, tensor in rounded.items())
    file = tmp_path / 'w.safetensors'
    save_weights(file, rounded, METADATA, int8=True)
    stored = load_weights(file).state
    changed = [name for name in rounded if not rounded[name].equal(weights.state[name])]
    assert len(changed) >= 10
    for name in changed:
        assert stored_as_int8(weights.state[name])
        torch.testing.assert_close(stored[name], rounded[name], rtol=1e-6, atol=0)


def test_rounding_needs_an_image_that_can_be_read(weights: Weights, samples: list[Sample]) -> None:
    with pytest.raises(DataError, match='no images to calibrate on'):
        round_to_int8(weights, [])
    with pytest.raises(DataError, match=r'gone\.png'):
        round_to_int8(weights, [replace(samples[0], image=Path('gone.png'))])


def test_a_network_that_computes_nan_is_an_error(weights: Weights, samples: list[Sample]) -> None:
    name = 'backbone.conv_stem.weight'
    broken = replace(weights, state={**weights.state, name: weights.state[name] * float('nan')})
    with pytest.raises(WeightsError, match=r'random: the input of .*weight is NaN or infinite'):
        round_to_int8(broken, samples[:1])
