# SPDX-License-Identifier: Apache-2.0
"""Some of many things."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

T = TypeVar('T')
SHOWN = 3


def evenly_spaced(things: Sequence[T], most: int) -> list[T]:
    """Returns at most so many of the things, evenly spread from the first to the last."""
    places = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[place] for place in places]


def join_first(things: Collection[object], separator: str = ', ', most: int = SHOWN) -> str:
    """Names the first of the things, and tells how many more there are.

    Args:
        things: What is named, such as the values that are legal.
        separator: Stands between them.
        most: That are named.
    """
    named = separator.join(map(str, islice(things, most)))
    more = len(things) - most
    return f'{named}{separator}and {more} more' if more > 0 else named
