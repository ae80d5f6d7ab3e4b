# SPDX-License-Identifier: Apache-2.0
"""Fixed logits instead of a network, so that only the code around the network is timed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 5, 4
ROCKS = COLUMNS * ROWS
RADIUS = 0.38  # of the size of a cell
LOGIT = 8.0


@lru_cache(maxsize=4)
def fixed_logits(height: int, width: int, channels: int) -> NDArray[np.float32]:
    """Draws the logits of an image with separate ellipses in rows and columns.

    Args:
        height: Height of the image, px.
        width: Width of the image, px.
        channels: 2 or more; channel 1 is rock.

    Returns:
        channels×H×W float32 logits, read-only.
    """
    y = (np.arange(height) + 0.5) * ROWS / height % 1 - 0.5
    x = (np.arange(width) + 0.5) * COLUMNS / width % 1 - 0.5
    inside = np.hypot(*np.meshgrid(x, y)) < RADIUS
    logits = np.full((channels, height, width), -LOGIT, np.float32)
    logits[0] = 0
    logits[1, inside] = LOGIT
    logits.flags.writeable = False
    return logits
