# SPDX-License-Identifier: Apache-2.0
"""Labels stay aligned with their pixels, and the result depends only on the seed."""

from __future__ import annotations

import math
import pickle
import random
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.augmentation import AugmentationConfig
from training.transforms import blur_motion, geometric_transform, photometric_transform

OFF = AugmentationConfig(
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    **{f.name: 0.0 for f in fields(AugmentationConfig) if f.name.endswith('_p')},  # type: ignore[arg-type]
)
AREA = (0.2, 0.9)


def coded(height: int = 120, width: int = 140) -> tuple[Any, Any]:
    """An image whose grey value encodes class and instance id of each pixel, with its labels."""
    labels = torch.zeros(2, height, width, dtype=torch.int32)
    for number, (top, left) in enumerate([(5, 10), (40, 60), (70, 20), (60, 95)], start=1):
        labels[0, top : top + 40, left : left + 35] = 1
        labels[1, top : top + 40, left : left + 35] = 30 * number
    grey = (40 + 80 * labels[0] + labels[1]).to(torch.uint8)
    return tv_tensors.Image(grey.expand(3, -1, -1).clone()), tv_tensors.Mask(labels)


def noisy(side: int = 48) -> tuple[Any, Any]:
    image = torch.randint(60, 200, (3, side, side), dtype=torch.uint8)
    labels = torch.randint(0, 2, (2, side, side), dtype=torch.int32)
    return tv_tensors.Image(image), tv_tensors.Mask(labels)


def everything(crop: int) -> Any:
    config = AugmentationConfig()
    return v2.Compose([geometric_transform(crop, AREA, config), photometric_transform(config)])


def drawn(transform: Any, pair: tuple[Any, Any], seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return transform(*pair)


def test_the_result_is_a_square_uint8_image_with_two_label_channels() -> None:
    image, labels = drawn(everything(64), coded(), 0)
    assert (image.shape, image.dtype) == ((3, 64, 64), torch.uint8)
    assert (labels.shape, labels.dtype) == ((2, 64, 64), torch.int32)


@pytest.mark.parametrize(
    'changed',
    [
        {},
        {'horizontal_flip_p': 1.0},
        {'vertical_flip_p': 1.0},
        {'rotation_p': 1.0, 'rotation': 40.0},
        {'perspective_p': 1.0, 'perspective': 0.5},
        {'horizontal_flip_p': 0.5, 'rotation_p': 1.0, 'perspective_p': 1.0},
    ],
)
def test_labels_stay_aligned_under_geometric_augmentation(changed: dict[str, float]) -> None:
    transform = geometric_transform(64, AREA, replace(OFF, **changed))  # type: ignore[arg-type]
    correct = total = 0
    for seed in range(8):
        image, labels = drawn(transform, coded(), seed)
        inside = labels[0] != 255
        code = torch.where(inside, 40 + 80 * labels[0] + labels[1], 0).float()[None]
        # Edge pixels are interpolated once or twice, so they are between neighbouring values.
        low, high = (sign * max_pool2d(sign * code, 5, 1, 2)[0] for sign in (-1, 1))
        correct += int(((image[0] >= low - 3) & (image[0] <= high + 3))[inside].sum())
        total += int(inside.sum())
    assert correct > 0.995 * total


@pytest.mark.parametrize('changed', [{}, {'rotation_p': 1.0}, {'perspective_p': 1.0}])
def test_labels_are_not_shifted_by_half_a_pixel(changed: dict[str, float]) -> None:
    down, right = torch.meshgrid(torch.arange(120.0), torch.arange(140.0), indexing='ij')
    disc = ((down - 60).hypot(right - 70) < 25).int()
    pair = (
        tv_tensors.Image((200 * disc).to(torch.uint8).expand(3, -1, -1).clone()),
        tv_tensors.Mask(torch.stack([disc, disc])),
    )
    transform = geometric_transform(128, (0.9, 1.0), replace(OFF, **changed))  # type: ignore[arg-type]

    def centroid(weights: Tensor) -> Tensor:
        return torch.stack(
            [line @ torch.arange(128.0) for line in (weights.sum(1), weights.sum(0))]
        )

    offset = torch.zeros(2)
    for seed in range(10):
        image, labels = drawn(transform, pair, seed)
        seen, marked = image[0].float(), labels[1].float()
        offset += (centroid(marked) / marked.sum() - centroid(seen) / seen.sum()) / 10
    assert offset.abs().max() < 0.15


@pytest.mark.parametrize('name', ['horizontal_flip_p', 'vertical_flip_p'])
def test_a_flip_is_applied_with_its_probability(name: str) -> None:
    axis = -1 if name.startswith('horizontal') else -2
    plain = drawn(geometric_transform(64, (1.0, 1.0), OFF), coded(), 3)
    flipped = drawn(geometric_transform(64, (1.0, 1.0), replace(OFF, **{name: 1.0})), coded(), 3)
    assert torch.equal(flipped[0], plain[0].flip(axis))
    assert torch.equal(flipped[1], plain[1].flip(axis))


def test_pixels_from_outside_the_image_are_black_and_ignored() -> None:
    rotating = replace(OFF, rotation_p=1.0, rotation=45.0, perspective_p=1.0)
    image, labels = drawn(geometric_transform(64, (0.9, 0.9), rotating), coded(), 1)
    outside = labels[0] == 255
    assert 0.02 < outside.float().mean() < 0.6
    assert set(labels[0].unique().tolist()) <= {0, 1, 255}
    assert not labels[1][outside].any()
    assert image[:, outside].float().mean() < 5  # black, except for interpolated edges
    assert image[:, ~outside].float().mean() > 40


@pytest.mark.parametrize(
    ('changed', 'effect'),
    [
        ({'brightness': 0.5}, 'brighter or darker'),
        ({'contrast': 0.9}, 'flatter or steeper'),
        ({'saturation': 0.9}, 'paler or stronger'),
        ({'hue': 0.3}, 'another hue'),
        ({'exposure_p': 1.0, 'exposure': (0.2, 0.3)}, 'dark'),
        ({'gamma_p': 1.0, 'gamma': (1.5, 1.7)}, 'another gamma'),
        ({'white_balance_p': 1.0}, 'another white balance'),
        ({'blur_p': 1.0}, 'blurred'),
        ({'motion_blur_p': 1.0}, 'blurred along a line'),
        ({'resolution_p': 1.0}, 'fewer pixels'),
        ({'noise_p': 1.0}, 'noisy'),
        ({'grey_p': 1.0}, 'grey'),
        ({'jpeg_p': 1.0}, 'through JPEG'),
    ],
)
def test_photometric_augmentation_changes_the_image_and_not_the_labels(
    changed: dict[str, Any], effect: str
) -> None:
    torch.manual_seed(9)
    pair = noisy()
    image, labels = drawn(photometric_transform(replace(OFF, **changed)), pair, 0)
    assert not torch.equal(image, pair[0]), effect
    assert (image.shape, image.dtype) == (pair[0].shape, torch.uint8)
    assert torch.equal(labels, pair[1])
    assert torch.equal(drawn(photometric_transform(OFF), pair, 0)[0], pair[0])


def test_exposure_scales_pixel_values_and_saturates() -> None:
    pair = noisy()
    dark = replace(OFF, exposure_p=1.0, exposure=(0.25, 0.25))
    expected = (pair[0].float() * 0.25).to(torch.uint8)
    assert torch.equal(drawn(photometric_transform(dark), pair, 0)[0], expected)
    bright = replace(OFF, exposure_p=1.0, exposure=(3.0, 3.0))
    image = drawn(photometric_transform(bright), pair, 0)[0]
    assert torch.equal(image == 255, pair[0] >= 85)  # 85 × 3 = 255; no value wraps around


def test_exposure_is_drawn_log_uniformly() -> None:
    transform = photometric_transform(replace(OFF, exposure_p=1.0, exposure=(0.25, 1.0)))
    flat = (
        tv_tensors.Image(torch.full((3, 2, 2), 200, dtype=torch.uint8)),
        tv_tensors.Mask(torch.zeros(2, 2, 2, dtype=torch.int32)),
    )
    values = [int(drawn(transform, flat, seed)[0][0, 0, 0]) for seed in range(200)]
    assert 45 < min(values) < 60
    assert 180 < max(values) <= 200
    assert 70 < sum(value < 100 for value in values) < 130


@pytest.mark.parametrize(
    ('angle', 'across'), [(0, (1, 9)), (math.pi / 2, (9, 1)), (math.pi / 4, (7, 7))]
)
def test_motion_blur_smears_a_point_along_its_direction(
    angle: float, across: tuple[int, int]
) -> None:
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    blurred = blur_motion(point, 9, angle)
    rows, columns = np.nonzero(blurred[..., 0] > 255 / 9 / 2)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == across
    assert abs(int(blurred[..., 0].sum()) - 255) < 9  # nine pixels are rounded
    if angle == math.pi / 4:
        assert (rows + columns == 30).all(), 'angles are counterclockwise'


def test_a_motion_blur_of_one_pixel_changes_nothing() -> None:
    image = noisy()[0].permute(1, 2, 0).numpy()
    assert np.array_equal(blur_motion(image, 1, 0.7), image)


def test_without_motion_blur_the_other_random_draws_stay_the_same() -> None:
    changes = len(photometric_transform(OFF).transforms)  # type: ignore[attr-defined]
    changed = photometric_transform(replace(OFF, motion_blur_p=0.5))
    assert len(changed.transforms) == changes + 1  # type: ignore[attr-defined]


def test_white_balance_scales_the_channels_independently() -> None:
    pair = tv_tensors.Image(torch.full((3, 4, 4), 100, dtype=torch.uint8)), noisy(4)[1]
    changed = replace(OFF, white_balance_p=1.0, white_balance=(0.5, 2.0))
    image = drawn(photometric_transform(changed), pair, 4)[0]
    assert image.amax((1, 2)).equal(image.amin((1, 2)))
    assert len(image[:, 0, 0].unique()) == 3
    assert image.min() >= 50
    assert image.max() <= 200


def test_the_standard_deviation_of_noise_is_limited() -> None:
    flat = tv_tensors.Image(torch.full((3, 64, 64), 30, dtype=torch.uint8)), noisy(64)[1]
    transform = photometric_transform(replace(OFF, noise_p=1.0, noise=10.0))
    spreads = [float(drawn(transform, flat, seed)[0].float().std()) for seed in range(20)]
    assert max(spreads) < 10.5
    assert max(spreads) > 6
    assert min(spreads) < 4


def test_noise_in_a_grey_image_is_grey() -> None:
    changed = replace(OFF, grey_p=1.0, noise_p=1.0)
    image = drawn(photometric_transform(changed), noisy(), 0)[0]
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])


def test_jpeg_does_not_swap_colour_channels() -> None:
    flat = torch.tensor([200, 100, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16)
    transform = photometric_transform(replace(OFF, jpeg_p=1.0, jpeg=(90, 95)))
    image = drawn(transform, (tv_tensors.Image(flat), noisy(16)[1]), 0)[0]
    assert (image.int() - flat).abs().max() <= 4


def test_a_transform_depends_only_on_the_torch_seed() -> None:
    transform = everything(48)
    for seed in range(12):
        random.seed(1)
        np.random.seed(1)
        one = drawn(transform, coded(), seed)
        random.seed(2)
        np.random.seed(2)
        two = drawn(transform, coded(), seed)
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert not torch.equal(drawn(transform, coded(), 0)[0], drawn(transform, coded(), 1)[0])


def test_a_transform_can_be_pickled() -> None:
    transform = everything(48)
    copy = pickle.loads(pickle.dumps(transform))
    assert torch.equal(drawn(copy, coded(), 5)[0], drawn(transform, coded(), 5)[0])


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'grey_p': 1.5}, 'grey_p is 1.5; it must be 0 to 1'),
        ({'noise': -1.0}, 'noise is -1.0; it must be 0 to 255'),
        ({'hue': 0.6}, 'hue is 0.6; it must be 0 to 0.5'),
        ({'paste_count': 0}, 'paste_count is 0; it must be 1 to inf'),
        ({'blur_p': float('nan')}, 'blur_p is nan; it must be 0 to 1'),
        ({'gamma': (1.7, 0.6)}, r'gamma is \[1.7, 0.6\]; it must be two values in ascending order'),
        ({'jpeg': (0, 90)}, r'jpeg is \[0, 90\]; .* from 1 to 100'),
        ({'exposure': (0.0, 1.0)}, r'exposure is \[0.0, 1.0\]; .* from 0.001 to 1000'),
    ],
)
def test_an_invalid_setting_is_reported_with_the_valid_range(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**changed)
