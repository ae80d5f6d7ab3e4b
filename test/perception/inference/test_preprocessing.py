# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.preprocessing import (
    BRIGHT,
    MAX_GAIN,
    Preprocessing,
    brightened,
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
    result = brightened(dark[:, ::-1])
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result, dark[:, ::-1] * gain, atol=0.5)


def test_the_brightness_of_a_large_image_is_that_of_all_its_regions() -> None:
    image = np.full((1080, 1920, 3), 20, np.uint8)
    image[-60:, -960:] = BRIGHT  # 2.8 % of its pixels
    assert brightened(image) is image
    image[-60:, -960:] = 20
    assert (brightened(image) == 20 * MAX_GAIN).all()


@pytest.mark.parametrize(('value', 'expected'), [(0, 0), (1, 8), (10, 80), (100, 200), (199, 200)])
def test_the_gain_is_limited(value: int, expected: int) -> None:
    for shape in ((1, 1, 3), (7, 300, 3)):
        assert (brightened(np.full(shape, value, np.uint8)) == expected).all()


@pytest.mark.parametrize('value', [BRIGHT, 255])
def test_an_image_that_is_not_dark_is_not_copied(value: int) -> None:
    image = np.full((9, 9, 3), value, np.uint8)
    assert brightened(image) is image
