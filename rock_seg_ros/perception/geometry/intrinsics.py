# SPDX-License-Identifier: Apache-2.0
"""Camera intrinsics: pixels to rays and points to pixels, with lens distortion.

Everything is in the optical frame of REP 103: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant')
# Names of the models in drivers, kalibr, OpenCV and librealsense.
MODEL_ALIASES = {
    'radtan': 'plumb_bob',
    'radial_tangential': 'plumb_bob',
    'brown_conrady': 'plumb_bob',
    'equi': 'equidistant',
    'fisheye': 'equidistant',
    'kannala_brandt': 'equidistant',
    'kannala_brandt4': 'equidistant',
}
COUNTS = (0, 4, 5, 8, 12, 14)  # numbers of distortion coefficients that OpenCV accepts
FISHEYE_COUNTS = (0, 4)
# With OpenCV's default criteria, the error is 0.2 px where distortion is strong.
PRECISE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 1e-3)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics of a camera, as in sensor_msgs/CameraInfo.

    Attributes:
        matrix: K, 3×3 float64, px. Pixel centres are at whole numbers.
        distortion: D, as many coefficients as the model has; empty = no distortion.
        model: 'plumb_bob', 'rational_polynomial' or 'equidistant'. Any name if all coefficients
            are 0.
        size: Width and height of the images, px.
    """

    matrix: Floats
    distortion: Floats
    model: str = 'plumb_bob'
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Raises ValueError for values that no camera has, such as a camera_info of zeros."""
        if min(self.size) < 1:
            raise ValueError(f'the images must have pixels, not {self.size[0]}×{self.size[1]}')
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix).all():
            raise ValueError('the camera matrix must be 3×3 finite numbers')
        if self.matrix[0, 0] <= 0 or self.matrix[1, 1] <= 0:
            focal = f'{self.matrix[0, 0]:g}, {self.matrix[1, 1]:g}'
            raise ValueError(f'the focal lengths must be above 0, not {focal}')
        if not np.isfinite(self.distortion).all():
            raise ValueError('the distortion coefficients must be finite numbers')
        if not self.distortion.any():
            return
        if self.model not in MODELS:
            raise ValueError(
                f'the distortion model must be one of {", ".join(MODELS)}, not {self.model!r}'
            )
        if self.distortion.size not in _counts(self.model):
            raise ValueError(
                f'{self.model} cannot have {self.distortion.size} distortion coefficients'
            )

    def rays(self, points: NDArray[Any]) -> Floats:
        """Returns the V×3 undistorted viewing directions (z = 1) of V×2 pixels."""
        flat = np.asarray(points, np.float64).reshape(-1, 1, 2)
        if not len(flat):
            return np.zeros((0, 3))
        if not self.distortion.any():
            straight: NDArray = (flat[:, 0] - self.matrix[:2, 2]) / self.matrix[[0, 1], [0, 1]]
        elif self.model == 'equidistant':
            straight = cv2.fisheye.undistortPoints(flat, self.matrix, self.distortion)[:, 0]
        else:
            straight = cv2.undistortPoints(flat, self.matrix, self.distortion, criteria=PRECISE)
            straight = straight.reshape(-1, 2)
        return np.column_stack([straight, np.ones(len(straight))])

    def pixels(self, points: Floats) -> Floats:
        """Returns the V×2 pixels at which the camera sees V×3 points (m, z above 0)."""
        if not len(points):
            return np.zeros((0, 2))
        zero = np.zeros(3)
        flat = np.asarray(points, np.float64).reshape(-1, 1, 3)
        distortion = self.distortion if self.distortion.any() else np.zeros(4)
        if self.model == 'equidistant' and self.distortion.any():
            seen = cv2.fisheye.projectPoints(flat, zero, zero, self.matrix, distortion)[0]
        else:
            seen = cv2.projectPoints(flat, zero, zero, self.matrix, distortion)[0]
        return np.asarray(seen, np.float64).reshape(-1, 2)


def standard_distortion(model: str, coefficients: Floats) -> tuple[str, Floats]:
    """Converts the distortion of a driver to the names and lengths that `Intrinsics` accepts.

    Args:
        model: Name of the model as drivers write it, such as 'radtan' or 'Kannala Brandt4'.
        coefficients: D; zeros beyond the coefficients of the model are removed.

    Returns:
        The name of the model in sensor_msgs and the coefficients. An unknown model and a number of
        coefficients that does not fit are returned unchanged; `Intrinsics` rejects them.
    """
    name = model.strip().lower().replace('-', '_').replace(' ', '_')
    name = MODEL_ALIASES.get(name, name)
    if coefficients.size in _counts(name) or not np.isfinite(coefficients).all():
        return name, coefficients
    needed = int(np.flatnonzero(coefficients).max(initial=-1)) + 1
    fitting = [count for count in _counts(name) if needed <= count < coefficients.size]
    return name, coefficients[: fitting[0]] if fitting else coefficients


def _counts(model: str) -> tuple[int, ...]:
    return FISHEYE_COUNTS if model == 'equidistant' else COUNTS
