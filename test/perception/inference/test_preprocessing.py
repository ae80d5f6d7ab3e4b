# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.preprocessing import (
    BRIGHT,
    LIGHT,
    MAX_GAIN,
    Preprocessing,
    correct_exposure,
    normalize,
)

CPU = torch.device('cpu')


def test_mean_and_std_are_applied_per_channel() -> None:
    metadata = ModelMetadata(mean=(0.0, 0.2, 1.0), std=(1.0, 0.5, 0.25))
    images = torch.full((2, 3, 4, 5), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    prepared = normalize(images, metadata)
    assert prepared.dtype == torch.float32
    expected = torch.tensor([0.2, 0.0, -3.2]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(prepared, expected)


def test_the_input_images_are_not_changed() -> None:
    images = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    normalize(images, ModelMetadata())
    assert (images == 51).all()


def test_fast_preprocessing_equals_normalize_bit_for_bit() -> None:
    every_value = np.arange(256, dtype=np.uint8).reshape(8, 32, 1)
    image = np.concatenate([every_value, every_value[::-1], 255 - every_value], axis=2)
    prepared = Preprocessing(ModelMetadata(), CPU)([image, image[::-1].copy()])
    for own, source in zip(prepared, (image, image[::-1].copy()), strict=True):
        expected = normalize(
            torch.from_numpy(source).permute(2, 0, 1).unsqueeze(0), ModelMetadata()
        )[0]
        assert torch.equal(own, expected)


@pytest.mark.parametrize('view', ['flipped', 'bgr', 'mono', 'crop'])
def test_images_of_any_strides_are_read(view: str, small_image: NDArray[np.uint8]) -> None:
    image = {
        'flipped': small_image[:, ::-1],
        'bgr': small_image[:, :, ::-1],
        'mono': np.broadcast_to(small_image[:, :, :1], small_image.shape),
        'crop': small_image[5:40, 7:50],
    }[view]
    prepare = Preprocessing(ModelMetadata(), CPU)
    assert torch.equal(prepare([image]), prepare([np.array(image, order='C')]))


def test_a_dark_image_is_brightened_by_one_gain() -> None:
    dark = np.linspace(0, 50, 100 * 80 * 3).reshape(100, 80, 3).astype(np.uint8)
    gain = BRIGHT / np.percentile(dark, 99)
    result = correct_exposure(dark[:, ::-1])
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, dark[:, ::-1] * gain, atol=0.5)


def test_the_brightness_of_a_large_image_is_that_of_all_its_regions() -> None:
    image = np.full((1080, 1920, 3), 20, np.uint8)
    image[-60:, -960:] = BRIGHT  # 2.8 % of its pixels
    assert correct_exposure(image) is image
    image[-60:, -960:] = 20
    assert (correct_exposure(image) == 20 * MAX_GAIN).all()


@pytest.mark.parametrize(
    ('value', 'expected'), [(0, 0), (1, 8), (10, 80), (100, LIGHT), (255, LIGHT)]
)
def test_the_gain_is_limited(value: int, expected: int) -> None:
    for shape in ((1, 1, 3), (7, 300, 3)):
        assert (correct_exposure(np.full(shape, value, np.uint8)) == expected).all()


def test_an_overexposed_image_is_darkened_by_one_gain() -> None:
    bright = np.linspace(100, 255, 100 * 80 * 3).reshape(100, 80, 3).astype(np.uint8)
    result = correct_exposure(bright[::-1])
    gain = LIGHT / np.median(bright)
    assert gain < 1
    np.testing.assert_allclose(result, bright[::-1] * gain, atol=1.5)


def test_a_bright_sky_does_not_darken_an_image() -> None:
    image = np.full((90, 90, 3), 255, np.uint8)
    image[40:] = 100
    assert correct_exposure(image) is image


@pytest.mark.parametrize('spread', [1, 20, 150])
def test_the_correction_has_no_steps(spread: int) -> None:
    ramp = np.linspace(-spread / 2, spread / 2, 90 * 90 * 3).reshape(90, 90, 3)
    means = [
        correct_exposure(np.clip(middle + ramp, 0, 255).astype(np.uint8)).mean()
        for middle in range(40, 256)
    ]
    assert np.abs(np.diff(means)).max() < 6  # a gain of at most 5, for one level


def test_an_image_that_is_well_exposed_is_not_copied() -> None:
    image = np.linspace(0, 255, 9 * 9 * 3).reshape(9, 9, 3).astype(np.uint8)
    assert correct_exposure(image) is image
    image[4:] = 255
    assert correct_exposure(image) is not image
