# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.preprocessing import normalize
from rock_seg_ros.perception.inference.weights_file import Weights, load_weights
from training.calibration import best_range, measure_ranges
from training.datasets import DataError, DatasetConfig, Sample, find_samples


@pytest.fixture(scope='module')
def weights(weights_file: Path) -> Weights:
    return load_weights(weights_file)


@pytest.fixture
def samples(discs: Path, weights: Weights) -> list[Sample]:
    return find_samples(DatasetConfig(str(discs)), 'all', weights.metadata.classes)[:2]


def test_ranges_cover_the_inputs_of_all_images(weights: Weights, samples: list[Sample]) -> None:
    ranges = measure_ranges(weights, samples)
    pixels = [torch.from_numpy(read_rgb(sample.image).copy()) for sample in samples]
    shown = [normalize(image.permute(2, 0, 1)[None], weights.metadata) for image in pixels]
    low, high = min(float(p.min()) for p in shown), max(float(p.max()) for p in shown)
    assert ranges['backbone.conv1'] == pytest.approx((low, high), rel=1e-4)
    low, high = ranges['backbone.layer3.2.conv2']  # after a ReLU
    assert (low, 0 < high < float('inf')) == (0.0, True)
    assert replace(weights.metadata, activation_ranges=ranges).activation_ranges == ranges


def test_the_range_of_least_error_leaves_out_a_value_that_is_far_from_all_others() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) - 1
    low, high = best_range(values, torch.cat([values, torch.tensor([40.0])]))
    assert low == pytest.approx(values.min().item(), rel=0.2)
    assert values.max() - 1 < high < 20
    even = torch.linspace(0, 6, 1000)  # all values as frequent
    assert best_range(even, even) == (0.0, 6.0)
    infinite = torch.tensor([-float('inf'), 1.0])  # the metadata rejects it
    assert best_range(even, infinite) == (-float('inf'), 1.0)


def test_no_images_are_an_error(weights: Weights) -> None:
    with pytest.raises(DataError, match=r'random\.safetensors: no images to calibrate on'):
        measure_ranges(weights, [])


def test_an_image_that_cannot_be_read_is_reported(weights: Weights, samples: list[Sample]) -> None:
    gone = replace(samples[0], image=Path('gone.png'))
    with pytest.raises(DataError, match=r'gone\.png'):
        measure_ranges(weights, [gone])
