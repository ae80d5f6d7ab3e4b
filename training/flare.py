# SPDX-License-Identifier: Apache-2.0
"""A lens flare of the Sun, for measuring what a network does with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUN = (0.8, 0.1)  # x and y, as shares of width and height
DISC, GLOW = 0.02, 0.08  # radius, and distance at which the glow has decreased to 1/e, diagonals
VEIL = 30.0  # pixel values that stray light adds everywhere
GHOSTS = (  # position on the line from the Sun (0) through the centre (1), radius, RGB
    (0.45, 0.020, (90, 60, 40)),
    (0.80, 0.035, (40, 70, 45)),
    (1.35, 0.060, (60, 45, 80)),
    (1.70, 0.030, (80, 80, 50)),
)


def add_flare(image: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Adds the Sun near a corner, with its glow, a veil of stray light, and reflections (ghosts).

    The ghosts lie on the line through the Sun and the centre of the image, as in a lens (Hullin et
    al. 2011, doi:10.1145/2010324.1965003).

    Args:
        image: H×W×3 uint8 RGB.
        strength: Factor on the added light, 0 to 1; 0 adds nothing.

    Returns:
        H×W×3 uint8 RGB.
    """
    height, width = image.shape[:2]
    diagonal = np.hypot(height, width)
    rows, columns = np.ogrid[:height, :width]
    sun, centre = np.multiply(SUN, (width, height)), np.divide((width, height), 2)

    def distance(place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns H×W, the distance of each pixel from a place, in diagonals."""
        return np.hypot(rows - place[1], columns - place[0]) / diagonal

    glow = 255 * np.exp(-np.maximum(0, distance(sun) - DISC) / GLOW)
    light = np.repeat((VEIL + glow)[..., None], 3, axis=2)
    for position, radius, colour in GHOSTS:
        inside = distance(sun + position * (centre - sun)) <= radius
        light[inside] += colour
    return np.clip(image + strength * light, 0, 255).round().astype(np.uint8)
