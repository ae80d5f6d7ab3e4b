# SPDX-License-Identifier: Apache-2.0
"""What belongs to a picture: the item whose stamp is nearest."""

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
        """Starts empty; `most` is how many items are kept."""
        self._kept: deque[tuple[int, Item]] = deque(maxlen=most)
        self._lock = Lock()

    def put(self, stamp: int, item: Item) -> None:
        """Keeps an item in place of the oldest.

        Args:
            stamp: ns. More than a second before the last one, it forgets what was kept: a bag
                is played again.
            item: What is handed out for it.
        """
        with self._lock:
            if self._kept and stamp < self._kept[-1][0] - JUMP:
                self._kept.clear()
            self._kept.append((stamp, item))

    def nearest(self, stamp: int, tolerance: float) -> Item | None:
        """Returns the item nearest in time, of two the newer; None if none is near enough.

        Args:
            stamp: ns.
            tolerance: How far it may be off, s.
        """
        with self._lock:
            kept = reversed(tuple(self._kept))
        at, item = min(kept, key=lambda one: abs(stamp - one[0]), default=(None, None))
        return item if at is not None and abs(stamp - at) <= tolerance * NS else None
