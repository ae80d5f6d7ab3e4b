# SPDX-License-Identifier: Apache-2.0
"""Millimetres per pixel without a calibrated camera, from a length that is known in the image.

The scale holds in the plane of that length, parallel to the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.intrinsics import Floats

MAX_SIDE_RATIO = 1.3  # maximum ratio of the longest to the shortest side of a tag


class ScaleError(ValueError):
    """An image without a usable scale; the message is one line that gives the reason."""


@dataclass(frozen=True)
class Scale:
    """The scale of an image.

    Attributes:
        mm_per_px: Millimetres per pixel.
        source: Description of the source, such as the tag.
    """

    mm_per_px: float
    source: str


@cache
def tag_families() -> dict[str, int]:
    """Returns the families of ArUco and AprilTag markers: name → OpenCV's dictionary number.

    The names are OpenCV's in lower case without `DICT_`, such as '4x4_50' and 'apriltag_36h11'.
    """
    return {
        name.removeprefix('DICT_').lower(): getattr(cv2.aruco, name)
        for name in sorted(dir(cv2.aruco))
        if name.startswith('DICT_')
    }


def scale_from_tag(image: NDArray[np.uint8], family: str, side: float) -> Scale:
    """Measures the one tag in an image.

    Args:
        image: H×W×3 uint8 RGB.
        family: A key of `tag_families`.
        side: Length of a side of the tag's black square, mm.

    Returns:
        The scale from the mean of the four sides.

    Raises:
        ScaleError: There is no tag of the family, there are several, or it is seen so much from the
            side that its longest side is more than 1.3 times its shortest.
    """
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    dictionary = cv2.aruco.getPredefinedDictionary(tag_families()[family])
    detector = cv2.aruco.ArucoDetector(dictionary, parameters)
    quads, ids, _ = detector.detectMarkers(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if ids is None or not len(ids):
        raise ScaleError(f'no tag of the family {family} found; sizes are in px only')
    names = ', '.join(str(number) for number in sorted(np.ravel(ids).tolist()))
    if len(ids) > 1:
        raise ScaleError(f'{len(ids)} tags found (ids {names}); exactly one must be in view')
    sides = side_lengths(np.reshape(quads[0], (4, 2)))
    ratio = float(sides.max() / sides.min())
    if ratio > MAX_SIDE_RATIO:
        raise ScaleError(
            f'tag {names} is seen from the side (longest side {ratio:.2f} times the shortest,'
            f' at most {MAX_SIDE_RATIO}); point the camera straight at it'
        )
    return Scale(side / float(sides.mean()), f'tag {names} of {family}, {side:g} mm')


def side_lengths(quad: NDArray[np.floating]) -> Floats:
    """Returns the lengths of the four sides of a quadrilateral, whose corners are 4×2."""
    return np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1).astype(np.float64)


def scale_from_points(first: tuple[float, float], second: tuple[float, float], mm: float) -> Scale:
    """Returns the scale of two points (x, y in px) that are a known distance (mm) apart.

    Raises:
        ScaleError: The points are the same.
    """
    distance = float(np.hypot(second[0] - first[0], second[1] - first[1]))
    if not distance:
        raise ScaleError(f'the two points are the same: {first[0]:g}, {first[1]:g}')
    return Scale(mm / distance, f'{mm:g} mm between two points {distance:.1f} px apart')
