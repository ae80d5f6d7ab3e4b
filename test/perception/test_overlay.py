# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, find_rocks
from rock_seg_ros.perception.overlay import BAND, TINT, draw_overlay


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    mask = np.zeros((64, 80), np.uint8)
    mask[10:50, 20:60] = 255
    return mask


def rocks_in(mask: NDArray[np.uint8]) -> list[Rock]:
    return find_rocks(Segmentation(mask // 255, mask, (1,)), RockSettings())


def test_the_overlay_is_a_copy(small_image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    given = small_image.copy()
    drawn = draw_overlay(given, mask, rocks_in(mask), 0.5)
    assert np.array_equal(given, small_image)
    assert drawn.shape == given.shape
    assert drawn.flags.c_contiguous
    assert not np.shares_memory(drawn, given)


def test_pixels_outside_of_rocks_are_unchanged(
    small_image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    drawn = draw_overlay(small_image, mask, rocks_in(mask), 0.5)
    away = np.ones_like(mask, bool)
    away[9:51, 19:61] = False
    assert np.array_equal(drawn[away], small_image[away])


def test_alpha_sets_the_strength_of_the_tint(
    small_image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    assert np.array_equal(draw_overlay(small_image, mask, [], 0.0), small_image)
    opaque = draw_overlay(small_image, mask, [], 1.0)
    assert (opaque[mask > 0] == TINT).all()
    half = draw_overlay(small_image, mask, [], 0.5)[mask > 0].astype(float)
    expected = (small_image[mask > 0].astype(float) + TINT) / 2
    assert np.abs(half - expected).max() <= 0.5


@pytest.mark.parametrize('alpha', [0.0, 0.37, 1.0])
@pytest.mark.parametrize('height', [1, BAND - 1, BAND, 3 * BAND + 5])
def test_tinting_in_bands_equals_tinting_the_whole_image(height: int, alpha: float) -> None:
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, 40, 3), np.uint8)
    mask = np.where(rng.random((height, 40)) < 0.3, np.uint8(255), np.uint8(0))
    mask[BAND : 2 * BAND] = 0
    whole = cv2.addWeighted(image, 1 - alpha, np.full_like(image, TINT), alpha, 0)
    expected = np.where(mask[..., None] > 0, whole, image)
    assert np.array_equal(draw_overlay(image, mask, [], alpha), expected)


def test_contour_and_number_are_drawn(
    small_image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    drawn = draw_overlay(small_image, mask, rocks_in(mask), 0.0)
    changed = (drawn != small_image).any(axis=2)
    assert changed[10, 20:60].all()
    assert changed[10:50, 59].all()
    assert changed[25:36, 35:46].any()


def test_an_image_with_negative_strides_is_drawn_like_its_copy(
    small_image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    view = small_image[:, ::-1]
    one, two = (draw_overlay(p, mask, rocks_in(mask), 0.4) for p in (view, view.copy()))
    assert np.array_equal(one, two)
