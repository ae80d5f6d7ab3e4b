# SPDX-License-Identifier: Apache-2.0
"""The counters and latencies of a camera, and its status on `/diagnostics`."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 500
PERCENTILES = (50, 95, 99)
MAX_REASONS = 50  # counted separately; a reason may hold numbers that a publisher changes each time
OTHER_REASONS = 'other reasons'
MAX_AGE = 3600.0  # s; a stamp farther from now is assumed to be of another clock


def format_age(age: float) -> str:
    """Returns the age of a stamp in seconds as text, or why it is not known."""
    if abs(age) > MAX_AGE:
        return 'not known, the stamps are of another clock'
    return f'{age:.3f}'


def _count(counter: Counter[str], reason: str) -> None:
    full = reason not in counter and len(counter) >= MAX_REASONS
    counter[OTHER_REASONS if full else reason] += 1


class CameraStatistics:
    """Counts the images of a camera by outcome. It may be used from several threads."""

    def __init__(self) -> None:
        """Sets all counters to zero."""
        self._lock = threading.Lock()
        self._frames: Counter[str] = Counter({'in': 0, 'out': 0, 'dropped': 0})
        self._failed: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._age = float('nan')
        self._errors_since_status = 0
        self._sequences: list[int] = []  # the last number of each publisher, the newest first
        self._last_received = time.monotonic()

    def received(self, sequence: int | None, publishers: int = 1) -> None:
        """Counts a received image, and the images that were lost before it as dropped.

        DDS does not report which publisher sent a message. The message is assigned to the
        publisher with the highest number below its own. No loss is counted if the message may be
        the first one of a publisher.

        Args:
            sequence: The publication sequence number, which each publisher increases by one per
                message; None = not known.
            publishers: Minimum number of publishers on the topic.
        """
        with self._lock:
            self._frames['in'] += 1
            self._last_received = time.monotonic()
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
        """Clears the sequence numbers: images before a subscription do not count as dropped."""
        with self._lock:
            self._sequences.clear()
            self._last_received = time.monotonic()

    def dropped(self) -> None:
        """Counts an image that a newer one replaced, or whose outputs have no subscriber."""
        with self._lock:
            self._frames['dropped'] += 1

    def rejected(self, reason: str) -> None:
        """Counts an image that is invalid, too large or too old."""
        with self._lock:
            _count(self._rejected, reason)
            self._errors_since_status += 1

    def ignored(self, reason: str) -> None:
        """Counts an input, such as depth, without which an image was processed."""
        with self._lock:
            _count(self._ignored, reason)

    def failed(self, reason: str) -> None:
        """Counts an image whose processing raised an error."""
        with self._lock:
            _count(self._failed, reason)
            self._errors_since_status += 1

    def published(self, latencies: dict[str, float], age: float) -> None:
        """Counts an image whose results were published.

        Args:
            latencies: Stage → seconds; 'total' is the time from receipt to publication.
            age: Age of the image's stamp at publication, s.
        """
        with self._lock:
            self._frames['out'] += 1
            self._age = age
            for stage, seconds in latencies.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def seconds_without_image(self) -> float:
        """Returns the seconds since the last image, or since the subscription."""
        with self._lock:
            return time.monotonic() - self._last_received

    def status(
        self, name: str, node_values: dict[str, str], error: str = '', no_images: str = ''
    ) -> DiagnosticStatus:
        """Returns the status: WARN if an image was rejected or failed since the last status.

        Args:
            name: Name of the status.
            node_values: Keys and values of the node, which come first; 'state' is one of them.
            error: Why the node cannot work, which is an ERROR; empty if it can.
            no_images: Why no images arrive, which is a WARN; empty if they do.
        """
        with self._lock:
            values = dict(node_values)
            values.update({f'frames {key}': str(count) for key, count in self._frames.items()})
            values['frames failed'] = str(self._failed.total())
            values['frames rejected'] = str(self._rejected.total())
            values['frames refused'] = values['frames rejected']  # deprecated name of the key
            for outcome, counter in (
                ('failed', self._failed),
                ('rejected', self._rejected),
                ('ignored', self._ignored),
            ):
                values.update({f'{outcome}: {why}': str(n) for why, n in sorted(counter.items())})
            for stage, seconds in self._latencies.items():
                for percent, value in zip(
                    PERCENTILES, np.percentile(seconds, PERCENTILES), strict=True
                ):
                    values[f'latency {stage} p{percent} ms'] = f'{value * 1000:.1f}'
            values['image age s'] = format_age(self._age)
            errors, self._errors_since_status = self._errors_since_status, 0
        message = node_values.get('state', '')
        status = DiagnosticStatus(name=name, level=DiagnosticStatus.OK, message=message)
        if error:
            status.level = DiagnosticStatus.ERROR
            status.message = error
        elif no_images:
            status.level = DiagnosticStatus.WARN
            status.message = no_images
        elif errors:
            status.level = DiagnosticStatus.WARN
            status.message = f'{errors} images were rejected or failed since the last status'
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status
