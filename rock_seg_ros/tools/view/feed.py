# SPDX-License-Identifier: Apache-2.0
"""The newest results of a source, written by its thread and read by the viewers."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES = 300
MAX_TRACKS = 1000
MAX_POINTS = 150  # per track

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Result:
    """The results for one image.

    Attributes:
        record: Name and size of the image and its rocks, as `image_record` returns them.
        time: Time of the image, s.
        layer: Returns a layer by its name: 'image' or 'overlay', H×W×3 uint8 RGB; 'mask' or
            'confidence', H×W uint8. Returns None for a layer that the source does not have.
        number: Increases from result to result.
    """

    record: dict[str, Any]
    time: float
    layer: Callable[[str], NDArray[np.uint8] | None] = field(repr=False)
    number: int = field(default_factory=lambda: next(_NUMBERS))


class Sample(NamedTuple):
    """A point of the plots.

    Attributes:
        number: Number of the sample, from 1.
        latency: Time from an image to its rocks, ms.
        dropped: Number of images that were dropped so far.
    """

    number: int
    latency: float
    dropped: int


class Feed:
    """Keeps the newest result and a bounded history. Its methods may be called from any thread.

    Attributes:
        result: The newest result; None = there is none yet.
    """

    def __init__(self) -> None:
        """Starts without a result."""
        self.result: Result | None = None
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._taken = 0
        self._tracks: OrderedDict[int, deque[list[float | None]]] = OrderedDict()
        self._listeners: set[Callable[[], None]] = set()

    def show(self, result: Result, tracked: bool = True) -> None:
        """Replaces the newest result.

        Args:
            result: The new one.
            tracked: Whether ids mean the same rocks as before; otherwise the history is cleared.
        """
        with self._lock:
            if not tracked:
                self._tracks.clear()
            for rock in result.record['rocks']:
                points = self._tracks.setdefault(rock['id'], deque(maxlen=MAX_POINTS))
                self._tracks.move_to_end(rock['id'])
                points.append([round(result.time, 3), rock['area'], rock['diameter_mm']])
            while len(self._tracks) > MAX_TRACKS:
                self._tracks.popitem(last=False)
            self.result = result
        self.notify()

    def measure(self, latency: float, dropped: int) -> None:
        """Adds a point to the plots: latency in ms and the number of dropped images so far."""
        with self._lock:
            self._taken += 1
            self._samples.append(Sample(self._taken, round(latency, 1), dropped))

    def samples(self, after: int) -> list[Sample]:
        """Returns the samples with a number above `after`, oldest first."""
        with self._lock:
            return [sample for sample in self._samples if sample.number > after]

    def track(self, rock: int) -> Sequence[Sequence[float | None]]:
        """Returns time (s), area (px) and diameter (mm or None) of a rock, oldest first."""
        with self._lock:
            return list(self._tracks.get(rock, ()))

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls `listener` after each change, from any thread."""
        self._listeners.add(listener)

    def notify(self) -> None:
        """Reports a change of the source or its results to the listeners."""
        for listener in tuple(self._listeners):
            listener()
