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


class Health:
    """What happened to the pictures; safe to use from several threads."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._lock = threading.Lock()
        self._frames: Counter[str] = Counter({'in': 0, 'out': 0, 'dropped': 0, 'failed': 0})
        self._refused: Counter[str] = Counter()
        self._set_aside: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._age = float('nan')
        self._troubles = 0
        self._last_sequence: int | None = None
        self._heard = time.monotonic()

    def received(self, sequence: int | None) -> None:
        """Counts a picture that came, and those that were lost before it.

        Args:
            sequence: The publication sequence number, which rises by one a message of a
                publisher; a lower one than before is a new publisher. None = not known.
        """
        with self._lock:
            self._frames['in'] += 1
            self._heard = time.monotonic()
            last, self._last_sequence = self._last_sequence, sequence
            if sequence is not None and last is not None and sequence > last:
                self._frames['in'] += sequence - last - 1
                self._frames['dropped'] += sequence - last - 1

    def new_subscription(self) -> None:
        """Forgets the last sequence number: what was missed while not subscribed is not lost."""
        with self._lock:
            self._last_sequence = None
            self._heard = time.monotonic()

    def dropped(self) -> None:
        """Counts a picture that a newer one replaced, or that nobody wanted the results of."""
        with self._lock:
            self._frames['dropped'] += 1

    def refused(self, reason: str) -> None:
        """Counts a picture that could not or should not be worked on."""
        with self._lock:
            self._refused[reason] += 1
            self._troubles += 1

    def set_aside(self, reason: str) -> None:
        """Counts what came with a picture and could not be used; the picture itself could."""
        with self._lock:
            self._set_aside[reason] += 1

    def failed(self) -> None:
        """Counts a picture that was lost by an error."""
        with self._lock:
            self._frames['failed'] += 1
            self._troubles += 1

    def published(self, latencies: dict[str, float], age: float) -> None:
        """Counts a picture whose results went out.

        Args:
            latencies: Stage → seconds; 'total' is from receipt to publish.
            age: Of the picture's stamp when its results went out, s.
        """
        with self._lock:
            self._frames['out'] += 1
            self._age = age
            for stage, seconds in latencies.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def silence(self) -> float:
        """Returns seconds since the last picture came, or since the subscription."""
        with self._lock:
            return time.monotonic() - self._heard

    def status(
        self, name: str, about: dict[str, str], trouble: str = '', silence: str = ''
    ) -> DiagnosticStatus:
        """Returns the diagnostic status: a warning if pictures were lost to trouble since the last.

        Args:
            name: Of the status.
            about: More keys and values, put first; 'state' among them.
            trouble: Why the node does not work at all, which is an error; empty if it does.
            silence: Why no pictures come, which is a warning; empty if they do.
        """
        with self._lock:
            values = dict(about)
            values.update({f'frames {key}': str(count) for key, count in self._frames.items()})
            values['frames refused'] = str(self._refused.total())
            values.update({f'refused: {why}': str(n) for why, n in sorted(self._refused.items())})
            values.update(
                {f'set aside: {why}': str(n) for why, n in sorted(self._set_aside.items())}
            )
            for stage, seconds in self._latencies.items():
                for percent, value in zip(
                    PERCENTILES, np.percentile(seconds, PERCENTILES), strict=True
                ):
                    values[f'latency {stage} p{percent} ms'] = f'{value * 1000:.1f}'
            values['image age s'] = f'{self._age:.3f}'
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
            status.message = f'{troubles} pictures refused or failed since the last report'
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status
