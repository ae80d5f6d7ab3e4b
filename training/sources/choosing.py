# SPDX-License-Identifier: Apache-2.0
"""Some of many pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar('T')


def evenly(things: Sequence[T], most: int) -> list[T]:
    """Returns at most so many of the things, evenly spread from the first to the last."""
    places = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[place] for place in places]
