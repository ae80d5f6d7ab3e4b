# SPDX-License-Identifier: Apache-2.0
"""The class 'rim': the pixels between rocks that touch."""

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
    """Assigns the class 'rim' to pixels that are near two different rocks.

    Args:
        classes: H×W class ids, integer; ignored pixels (255) stay ignored.
        instances: H×W instance ids, integer below 2^24, 0 = none; used only on rock classes.
        rock_ids: Class ids that are rock.
        rim_id: Class id of the rims.
        width: Largest distance of a rim pixel from each of the two rocks, px, 0 or more.

    Returns:
        H×W class ids of the same dtype, a new array.
    """
    rock = np.isin(classes, rock_ids) & (instances > 0)
    window = _disc(width)
    # OpenCV cannot filter int32; float32 represents the ids exactly.
    ids = np.where(rock, instances, 0).astype(np.float32)
    largest = cv2.dilate(ids, window)
    ids[~rock] = np.inf
    smallest = cv2.erode(ids, window)
    rim = (smallest < largest) & (classes != IGNORE)
    return np.where(rim, np.asarray(rim_id, classes.dtype), classes)


def _disc(radius: float) -> np.ndarray:
    reach = int(radius)
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (np.hypot(down, right) <= radius).astype(np.uint8)
