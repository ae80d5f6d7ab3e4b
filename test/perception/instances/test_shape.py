# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.instances.shape import measure_shape


def ellipse(long: int, short: int, angle: float) -> np.ndarray:
    """Returns a mask of an ellipse with half axes in px, counterclockwise by `angle` degrees."""
    side = 2 * long + 21
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), (long, short), -angle, 0, 360, 255, -1)
    return mask


@pytest.mark.parametrize('radius', [5, 10, 30, 100])
def test_a_disc_has_its_diameter_and_perimeter_and_a_circularity_near_1(radius):
    y, x = np.mgrid[-radius - 3 : radius + 4, -radius - 3 : radius + 4]
    shape = measure_shape(((x**2 + y**2 <= radius**2) * 255).astype(np.uint8))
    assert shape.diameter == pytest.approx(2 * radius, rel=0.02)
    assert (shape.long_axis, shape.short_axis) == pytest.approx((2 * radius, 2 * radius), rel=0.04)
    assert shape.perimeter == pytest.approx(2 * np.pi * radius, rel=0.08)
    assert 0.88 < shape.circularity <= 1


@pytest.mark.parametrize('angle', [0, 30, 60, 90, 120, 150])
def test_an_ellipse_has_its_axes_and_its_orientation(angle):
    shape = measure_shape(ellipse(80, 20, angle))
    assert (shape.long_axis, shape.short_axis) == pytest.approx((161, 41), abs=1)
    assert abs((shape.orientation - angle + 90) % 180 - 90) < 1
    assert shape.circularity == pytest.approx(0.54, abs=0.03)


@pytest.mark.parametrize('points', [[[0, 0]], [[0, 0], [1, 0]], [[0, 0], [2, 0]]])
def test_a_rock_of_a_few_pixels_has_a_diameter_but_may_have_no_ellipse(points):
    mask = np.zeros((3, 5), np.uint8)
    for (x, y), (x1, _) in pairwise([*points, points[-1]]):
        mask[y + 1, x + 1 : x1 + 2] = 255
    shape = measure_shape(mask)
    assert shape.diameter > 1
    assert 0 < shape.circularity <= 1
    assert np.isnan(shape.long_axis) == np.isnan(shape.orientation)


def test_the_ellipse_of_an_angular_rock_is_not_much_larger_than_the_rock():
    random = np.random.default_rng(0)
    for _ in range(200):
        mask = np.zeros((64, 64), np.uint8)
        hull = cv2.convexHull(random.integers(2, 62, (random.integers(3, 9), 2)).astype(np.int32))
        cv2.fillPoly(mask, [hull], 255)
        shape = measure_shape(mask)
        diagonal = np.hypot(*np.ptp(hull[:, 0], axis=0))
        assert shape.short_axis <= shape.long_axis < 2 * diagonal + 2


def test_the_axes_of_a_rock_of_two_rows_are_not_longer_than_the_rock():
    mask = np.full((2, 60), 255, np.uint8)
    mask[0, 0] = 0
    assert measure_shape(mask).long_axis == pytest.approx(60, abs=1)


def test_a_hole_reduces_the_area_but_not_the_perimeter():
    whole = ellipse(30, 30, 0)
    hollow = whole.copy()
    cv2.circle(hollow, (40, 40), 10, 0, -1)
    assert measure_shape(hollow).perimeter == measure_shape(whole).perimeter
    assert measure_shape(hollow).circularity < measure_shape(whole).circularity


def test_the_ellipse_of_a_thin_rock_is_reproducible():
    thin = np.zeros((40, 9), np.uint8)
    thin[4:24, 3:5] = 255
    assert len({measure_shape(thin) for _ in range(5)}) == 1
