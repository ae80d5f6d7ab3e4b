# SPDX-License-Identifier: Apache-2.0
"""Size and shape of a rock in pixels, from its mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_ELLIPSE_POINTS = 5
# Length of a step along a row or column, of a diagonal step, and of a change of direction
# (Vossepoel and Smeulders 1982, doi:10.1016/0146-664X(82)90043-8).
STRAIGHT, DIAGONAL, TURN = 0.980, 1.406, -0.091


@dataclass(frozen=True)
class Shape:
    """Size and shape of a rock in the image.

    Attributes:
        diameter: Equivalent diameter, that of the disc with the same area, px.
        long_axis: Long axis of the fitted ellipse, px; NaN where the contour has fewer than 5
            points.
        short_axis: Its short axis, px.
        orientation: Angle from the x axis to the long axis, counterclockwise as seen, 0 to 180,
            degrees.
        perimeter: Length of the outer contour, px.
        circularity: 4π · area / perimeter², at most 1, which is a disc.
    """

    diameter: float
    long_axis: float
    short_axis: float
    orientation: float
    perimeter: float
    circularity: float


def measure_shape(mask: NDArray[np.uint8]) -> Shape:
    """Measures a rock.

    The ellipse is fitted to the outer contour by direct least squares (Fitzgibbon et al. 1999,
    `cv2.fitEllipseDirect`): that of `cv2.fitEllipse` can be many times as large as an angular rock.
    Both can be for a rock of two rows, so the axes are at most the diameter of a circle around it.
    The contour runs through pixel centres. Half a pixel on each side is added to both axes, and π
    to the perimeter.

    Args:
        mask: H×W, one 8-connected rock, not 0 where it is.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    area = cv2.countNonZero(mask)
    long_axis = short_axis = orientation = np.nan
    if len(contour) >= MIN_ELLIPSE_POINTS:
        cv2.setRNGSeed(0)  # it moves the points of a thin rock at random until an ellipse fits
        _, axes, angle = cv2.fitEllipseDirect(contour)  # the angle is that of the first axis
        largest = 2 * cv2.minEnclosingCircle(contour)[1]
        short_axis, long_axis = sorted(min(axis, largest) for axis in axes)
        turned = 90 - angle if axes[1] >= axes[0] else -angle
        short_axis, long_axis, orientation = short_axis + 1, long_axis + 1, turned % 180
    perimeter = _length(contour[:, 0]) + np.pi
    return Shape(
        diameter=2 * float(np.sqrt(area / np.pi)),
        long_axis=long_axis,
        short_axis=short_axis,
        orientation=orientation,
        perimeter=perimeter,
        circularity=min(1.0, 4 * np.pi * area / perimeter**2),
    )


def _length(points: NDArray[Any]) -> float:
    """Returns the length of a closed contour of neighbouring pixels, V×2, px."""
    if len(points) == 1:
        return 0.0
    steps = np.roll(points, -1, axis=0) - points
    diagonal = int(np.count_nonzero(steps.all(axis=1)))
    turns = int(np.count_nonzero((steps != np.roll(steps, 1, axis=0)).any(axis=1)))
    return STRAIGHT * (len(steps) - diagonal) + DIAGONAL * diagonal + TURN * turns
