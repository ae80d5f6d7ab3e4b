# SPDX-License-Identifier: Apache-2.0
"""What belongs to an image: the item whose stamp is nearest."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar('Item')

NS = 1_000_000_000
JUMP = 1 * NS  # stamps this far back are a new start; transports swap neighbours by less


class Pairing(Generic[Item]):
    """Keeps the newest items by stamp; one thread may put while another asks."""

    def __init__(self, most: int = 30) -> None:
        """Starts empty; `most` is how many items are kept, above 2 where stamps are held."""
        self._kept: list[tuple[int, Item]] = []
        self._held: deque[int] = deque(maxlen=2)
        self._most = most
        self._lock = Lock()

    def put(self, stamp: int, item: Item) -> None:
        """Keeps an item in place of the oldest that no held stamp needs.

        Args:
            stamp: ns. More than a second before the last one, it forgets what was kept: a bag
                is played again.
            item: What is handed out for it.
        """
        with self._lock:
            if self._kept and stamp < self._kept[-1][0] - JUMP:
                self._kept.clear()
            self._kept.append((stamp, item))
            if len(self._kept) > self._most:
                needed = {self._row(held) for held in self._held}
                del self._kept[next(row for row in range(self._most) if row not in needed)]

    def hold(self, stamp: int) -> None:
        """Keeps what is nearest to a stamp (ns), however much comes, until two others are held."""
        with self._lock:
            self._held.append(stamp)

    def nearest(self, stamp: int, tolerance: float) -> Item | None:
        """Returns the item nearest in time, of two the newer; None if none is near enough.

        Args:
            stamp: ns.
            tolerance: How far it may be off, s.
        """
        with self._lock:
            if not self._kept:
                return None
            at, item = self._kept[self._row(stamp)]
        return item if abs(stamp - at) <= tolerance * NS else None

    def _row(self, stamp: int) -> int:
        """Returns where the item nearest to a stamp is, of two the newer."""
        rows = reversed(range(len(self._kept)))
        return min(rows, key=lambda row: abs(stamp - self._kept[row][0]))
