# SPDX-License-Identifier: Apache-2.0
"""Pairing of images with the items, such as depth, whose stamps are nearest."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar('Item')

NS = 1_000_000_000
JUMP = 1 * NS  # an earlier stamp by more is a restart; transports reorder messages by less


class Pairing(Generic[Item]):
    """Keeps the newest items by stamp. It is thread-safe."""

    def __init__(self, max_items: int = 30) -> None:
        """Creates an empty pairing.

        Args:
            max_items: Maximum number of items kept; more than 2 if stamps are held.
        """
        self._kept: list[tuple[int, Item]] = []
        self._held: deque[int] = deque(maxlen=2)
        self._max_items = max_items
        self._lock = Lock()

    def put(self, stamp: int, item: Item) -> None:
        """Adds an item. If there are too many, the oldest that no held stamp needs is discarded.

        Args:
            stamp: Stamp of the item, ns. If it is more than a second before the last one, such
                as when a bag starts again, all other items are discarded.
            item: The item.
        """
        with self._lock:
            if self._kept and stamp < self._kept[-1][0] - JUMP:
                self._kept.clear()
            self._kept.append((stamp, item))
            if len(self._kept) > self._max_items:
                needed = {self._row(held) for held in self._held}
                del self._kept[next(row for row in range(self._max_items) if row not in needed)]

    def hold(self, stamp: int) -> None:
        """Keeps the item nearest to a stamp (ns) until two other stamps are held."""
        with self._lock:
            self._held.append(stamp)

    def nearest(self, stamp: int, tolerance: float) -> Item | None:
        """Returns the item nearest in time, the newer one of two; None if none is near enough.

        Args:
            stamp: The stamp, ns.
            tolerance: Maximum difference of the stamps, s.
        """
        with self._lock:
            if not self._kept:
                return None
            at, item = self._kept[self._row(stamp)]
        return item if abs(stamp - at) <= tolerance * NS else None

    def _row(self, stamp: int) -> int:
        """Returns the index of the item nearest to a stamp, the newer one of two."""
        rows = reversed(range(len(self._kept)))
        return min(rows, key=lambda row: abs(stamp - self._kept[row][0]))
