# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.intrinsics import Intrinsics, standard_distortion

SIZE = (320, 240)
MATRIX = np.array([[260.0, 0, 159.5], [0, 260, 119.5], [0, 0, 1]])
PINHOLE = Intrinsics(MATRIX, np.zeros(0), size=SIZE)
BARREL = Intrinsics(MATRIX, np.array([-0.3, 0.1, 0.001, -0.001, 0.0]), size=SIZE)
FISHEYE = Intrinsics(MATRIX, np.array([-0.02, 0.01, 0.0, 0.0]), 'equidistant', SIZE)


@pytest.mark.parametrize('intrinsics', [PINHOLE, BARREL, FISHEYE])
def test_opencv_projects_rays_to_their_pixels(intrinsics: Intrinsics) -> None:
    pixels = np.array([(0, 0), (159.5, 119.5), (319, 239), (40.25, 200.5)])
    rays = intrinsics.rays(pixels)[:, None]
    still = np.zeros(3)
    project: Callable = cv2.fisheye.projectPoints if intrinsics is FISHEYE else cv2.projectPoints
    distortion = intrinsics.distortion if intrinsics.distortion.size else np.zeros(4)
    back = project(rays, still, still, MATRIX, distortion)[0]
    assert back.reshape(-1, 2) == pytest.approx(pixels, abs=0.02)


@pytest.mark.parametrize(
    ('matrix', 'distortion', 'model', 'size', 'reason'),
    [
        (np.zeros((3, 3)), [], 'plumb_bob', SIZE, 'focal'),
        (np.full((3, 3), np.nan), [], 'plumb_bob', SIZE, 'finite'),
        (np.eye(4), [], 'plumb_bob', SIZE, '3×3'),
        (MATRIX, [0.1, np.nan, 0, 0], 'plumb_bob', SIZE, 'finite'),
        (MATRIX, [0.1, 0, 0], 'plumb_bob', SIZE, '3 distortion'),
        (MATRIX, [0.1, 0, 0, 0], 'wide', SIZE, "'wide'"),
        (MATRIX, [0.1, 0, 0, 0], '', SIZE, "''"),
        (MATRIX, [0.1] * 5, 'equidistant', SIZE, '5 distortion'),
        (MATRIX, [], 'plumb_bob', (0, 0), '0×0'),
    ],
)
def test_impossible_intrinsics_are_rejected_in_one_line(
    matrix: NDArray, distortion: list[float], model: str, size: tuple[int, int], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        Intrinsics(matrix, np.array(distortion), model, size)
    assert '\n' not in str(error.value)


def test_a_camera_without_a_distortion_model_has_no_distortion() -> None:
    for distortion in (np.zeros(0), np.zeros(5)):
        rays = Intrinsics(MATRIX, distortion, '', SIZE).rays(np.array([[159.5, 119.5]]))
        assert rays == pytest.approx(np.array([[0, 0, 1]]))


@pytest.mark.parametrize('model', ['none', '', 'pinhole', 'plumb_bob', 'equidistant'])
@pytest.mark.parametrize('count', [0, 3, 5, 6, 14])
def test_zero_coefficients_are_accepted_with_any_model_and_count(model: str, count: int) -> None:
    name, coefficients = standard_distortion(model, np.zeros(count))
    lens = Intrinsics(MATRIX, coefficients, name, SIZE)
    assert lens.rays(np.array([[159.5, 119.5]])) == pytest.approx(np.array([[0, 0, 1]]))
    assert lens.pixels(np.array([[0, 0, 1.0]])) == pytest.approx(np.array([[159.5, 119.5]]))


@pytest.mark.parametrize(
    ('model', 'coefficients', 'standard', 'count'),
    [
        ('radtan', [0.1, -0.05, 1e-3, 1e-3], 'plumb_bob', 4),
        ('Brown-Conrady', [0.1, -0.05, 1e-3, 1e-3, 0.01], 'plumb_bob', 5),
        ('fisheye', [0.01, 0, 0, 0], 'equidistant', 4),
        ('kannala_brandt4', [0.01, 0.02, 0, 0], 'equidistant', 4),
        ('KANNALA_BRANDT', [0.01, 0.02, 0, 0], 'equidistant', 4),
        ('equi', [0.01, 0, 0, 0], 'equidistant', 4),
        ('equidistant', [0.01, 0.02, 0.03, 0.04, 0], 'equidistant', 4),
        ('plumb_bob', [0.1, 0, 0, 0, 0, 0, 0], 'plumb_bob', 4),
        ('plumb_bob', [0.1, 0, 0, 0, 0.2, 0], 'plumb_bob', 5),
        ('rational_polynomial', [0.1] * 8 + [0] * 2, 'rational_polynomial', 8),
    ],
)
def test_model_aliases_are_accepted_and_trailing_zeros_are_removed(
    model: str, coefficients: list[float], standard: str, count: int
) -> None:
    name, kept = standard_distortion(model, np.array(coefficients))
    assert (name, kept.tolist()) == (standard, coefficients[:count])
    Intrinsics(MATRIX, kept, name, SIZE)


@pytest.mark.parametrize(
    ('model', 'coefficients', 'reason'),
    [
        ('equidistant', [0.1, 0, 0, 0, 0.1], '5 distortion'),
        ('plumb_bob', [0.1, 0, 0], '3 distortion'),
        ('none', [0.1, 0, 0, 0], "'none'"),
    ],
)
def test_nonzero_coefficients_that_do_not_fit_the_model_are_rejected(
    model: str, coefficients: list[float], reason: str
) -> None:
    name, kept = standard_distortion(model, np.array(coefficients))
    with pytest.raises(ValueError, match=reason):
        Intrinsics(MATRIX, kept, name, SIZE)


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant', ''])
def test_pixels_are_the_inverse_of_rays(model: str) -> None:
    distortion = {'plumb_bob': [0.1, -0.05, 1e-3, 1e-3, 0], 'equidistant': [0.01, 0, 0, 0]}
    lens = Intrinsics(
        np.array([[400.0, 0, 319.5], [0, 410, 239.5], [0, 0, 1]]),
        np.array(distortion.get(model, []), np.float64),
        model,
        (640, 480),
    )
    points = np.array([[10.0, 20], [320, 240], [600, 400]])
    assert lens.pixels(3 * lens.rays(points)) == pytest.approx(points, abs=0.01)
