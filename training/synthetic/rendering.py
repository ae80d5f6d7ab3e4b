# SPDX-License-Identifier: Apache-2.0
"""A rendered image with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BACKGROUND, IGNORED, SHADOW, ROCK = 0, 64, 128, 255


@dataclass(frozen=True)
class Rendering:
    """An image and its ground truth.

    Attributes:
        image: H×W×3 uint8 RGB.
        classes: H×W uint8: 0 ground, belt, objects and sky; 255 rock; 128 ground in the cast shadow
            of a rock; 64 rocks that are too small for certain labels.
        instances: H×W uint16 instance ids where `classes` is 255 or 64, else 0. A rock has the same
            id in all images of a scene.
        depth: H×W float32, m along the optical axis; NaN without a surface.
        pose: Camera in world, 4×4 float64; see `Camera`.
        intrinsics: K, 3×3 float64, px.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    depth: NDArray[np.float32]
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
