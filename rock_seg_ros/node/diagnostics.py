# SPDX-License-Identifier: Apache-2.0
"""Counters, latencies, diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 500
PERCENTILES = (50, 95, 99)
MAX_REASONS = 50  # that are counted apart; some name numbers that a publisher may change each time
OTHER_REASONS = 'other reasons'
OF_THIS_CLOCK = 3600.0  # s; stamps farther from now are of another clock


def format_age(age: float) -> str:
    """Returns seconds from a stamp until now, or in words that they are not known."""
    if abs(age) > OF_THIS_CLOCK:
        return 'not known, stamps are not of this clock'
    return f'{age:.3f}'


def _count(counter: Counter[str], reason: str) -> None:
    full = reason not in counter and len(counter) >= MAX_REASONS
    counter[OTHER_REASONS if full else reason] += 1


class CameraStatistics:
    """What happened to the images; safe to use from several threads."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._lock = threading.Lock()
        self._frames: Counter[str] = Counter({'in': 0, 'out': 0, 'dropped': 0})
        self._failed: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._set_aside: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._age = float('nan')
        self._troubles = 0
        self._sequences: list[int] = []  # the last one of each publisher, the newest first
        self._heard = time.monotonic()

    def received(self, sequence: int | None, publishers: int = 1) -> None:
        """Counts an image that came, and those that were lost before it.

        Args:
            sequence: The publication sequence number, which rises by one a message of a
                publisher; None = not known.
            publishers: How many there are, at least. Whose a message is DDS does not tell: it is of
                the publisher whose last number it follows best. Where it may be of one that was not
                heard yet nothing is lost.
        """
        with self._lock:
            self._frames['in'] += 1
            self._heard = time.monotonic()
            if sequence is None:
                self._sequences.clear()
                return
            last = max((known for known in self._sequences if known < sequence), default=None)
            if last is not None and (
                sequence == last + 1 or len(self._sequences) >= max(1, publishers)
            ):
                self._sequences.remove(last)
                self._frames['in'] += sequence - last - 1
                self._frames['dropped'] += sequence - last - 1
            self._sequences = [sequence, *self._sequences][: max(1, publishers)]

    def new_subscription(self) -> None:
        """Forgets the last sequence numbers: what was missed while not subscribed is not lost."""
        with self._lock:
            self._sequences.clear()
            self._heard = time.monotonic()

    def dropped(self) -> None:
        """Counts an image that a newer one replaced, or that nobody wanted the results of."""
        with self._lock:
            self._frames['dropped'] += 1

    def refused(self, reason: str) -> None:
        """Counts an image that could not or should not be worked on."""
        with self._lock:
            _count(self._refused, reason)
            self._troubles += 1

    def set_aside(self, reason: str) -> None:
        """Counts what came with an image and could not be used; the image itself could."""
        with self._lock:
            _count(self._set_aside, reason)

    def failed(self, reason: str) -> None:
        """Counts an image that was lost by an error."""
        with self._lock:
            _count(self._failed, reason)
            self._troubles += 1

    def published(self, latencies: dict[str, float], age: float) -> None:
        """Counts an image whose results went out.

        Args:
            latencies: Stage → seconds; 'total' is from receipt to publish.
            age: Of the image's stamp when its results went out, s.
        """
        with self._lock:
            self._frames['out'] += 1
            self._age = age
            for stage, seconds in latencies.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def silence(self) -> float:
        """Returns seconds since the last image came, or since the subscription."""
        with self._lock:
            return time.monotonic() - self._heard

    def status(
        self, name: str, about: dict[str, str], trouble: str = '', silence: str = ''
    ) -> DiagnosticStatus:
        """Returns the diagnostic status: a warning if images were lost to trouble since the last.

        Args:
            name: Of the status.
            about: More keys and values, put first; 'state' among them.
            trouble: Why the node does not work at all, which is an error; empty if it does.
            silence: Why no images come, which is a warning; empty if they do.
        """
        with self._lock:
            values = dict(about)
            values.update({f'frames {key}': str(count) for key, count in self._frames.items()})
            values['frames failed'] = str(self._failed.total())
            values['frames refused'] = str(self._refused.total())
            for what, counter in (
                ('failed', self._failed),
                ('refused', self._refused),
                ('set aside', self._set_aside),
            ):
                values.update({f'{what}: {why}': str(n) for why, n in sorted(counter.items())})
            for stage, seconds in self._latencies.items():
                for percent, value in zip(
                    PERCENTILES, np.percentile(seconds, PERCENTILES), strict=True
                ):
                    values[f'latency {stage} p{percent} ms'] = f'{value * 1000:.1f}'
            values['image age s'] = format_age(self._age)
            troubles, self._troubles = self._troubles, 0
        message = about.get('state', '')
        status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK, message=message)
        if trouble:
            status.level = DiagnosticStatus.ERROR
            status.message = trouble
        elif silence:
            status.level = DiagnosticStatus.WARN
            status.message = silence
        elif troubles:
            status.level = DiagnosticStatus.WARN
            status.message = f'{troubles} images refused or failed since the last report'
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status
