# SPDX-License-Identifier: Apache-2.0
"""Selects some items of a sequence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

T = TypeVar('T')
SHOWN = 3


def evenly_spaced(items: Sequence[T], max_count: int) -> list[T]:
    """Returns at most `max_count` items, evenly spaced from the first to the last."""
    indices = np.linspace(0, len(items) - 1, min(max_count, len(items))).round().astype(int)
    return [items[index] for index in indices]


def join_first(items: Collection[object], separator: str = ', ', most: int = SHOWN) -> str:
    """Joins the first items to a text that ends with the number of further items.

    Args:
        items: The items, such as valid values.
        separator: Text between two items.
        most: Maximum number of items that are listed.
    """
    listed = separator.join(map(str, islice(items, most)))
    more = len(items) - most
    return f'{listed}{separator}and {more} more' if more > 0 else listed
