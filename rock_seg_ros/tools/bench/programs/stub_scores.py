# SPDX-License-Identifier: Apache-2.0
"""Fixed scores instead of a network, so that only the code around the network is timed."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

LOGIT = 8.0
WAVES, WAVE = 5, 0.08


@lru_cache(maxsize=4)
def fixed_scores(height: int, width: int, rocks: int, channels: int) -> NDArray[np.float32]:
    """Draws the scores of an image with separate rocks with wavy contours, in rows.

    Args:
        height: Height of the image, px.
        width: Width of the image, px.
        rocks: Number of rocks.
        channels: 2 or more; channel 1 is rock.

    Returns:
        channels×H×W float32 logits, read-only.
    """
    columns = ceil(sqrt(rocks * width / height))
    rows = ceil(rocks / columns)
    cell_height, cell_width = height // rows, width // columns
    y = (np.arange(cell_height) / cell_height - 0.5)[:, None] / 0.32
    x = (np.arange(cell_width) / cell_width - 0.5)[None, :] / 0.4
    scores = np.zeros((channels, height, width), np.float32)
    scores[1:] = -LOGIT
    for number in range(rocks):
        outline = 1 + WAVE * np.sin(WAVES * np.arctan2(y, x) + number)
        inside = 2 * LOGIT * (1 - np.hypot(x, y) / outline)
        top, left = number // columns * cell_height, number % columns * cell_width
        cell = scores[1, top : top + cell_height, left : left + cell_width]
        cell[:] = np.clip(inside, -LOGIT, LOGIT)
    scores.flags.writeable = False
    return scores
