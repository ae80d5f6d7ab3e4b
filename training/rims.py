# SPDX-License-Identifier: Apache-2.0
"""The rim between rocks that touch, as a class of its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from training.datasets import IGNORE


def mark_rims(
    classes: np.ndarray,
    instances: np.ndarray,
    rock_ids: Sequence[int],
    rim_id: int,
    width: float = 1.5,
) -> np.ndarray:
    """Gives the pixels that are near two different rocks a class of their own.

    Args:
        classes: H×W class ids, integer; 255 = ignored, and stays so.
        instances: H×W rock numbers, integer below 2^24, 0 = none; counted only on rock classes.
        rock_ids: Class ids that are rock.
        rim_id: Class id that the rims get.
        width: Largest distance of a rim's pixel from either rock, px, 0 or more.

    Returns:
        H×W class ids of the same dtype, a new array.
    """
    rock = np.isin(classes, rock_ids) & (instances > 0)
    window = _disc(width)
    # OpenCV has no filters of int32; float32 holds the numbers exactly.
    numbers = np.where(rock, instances, 0).astype(np.float32)
    largest = cv2.dilate(numbers, window)
    numbers[~rock] = np.inf
    smallest = cv2.erode(numbers, window)
    rim = (smallest < largest) & (classes != IGNORE)
    return np.where(rim, np.asarray(rim_id, classes.dtype), classes)


def _disc(radius: float) -> np.ndarray:
    reach = int(radius)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (np.hypot(down, right) <= radius).astype(np.uint8)
