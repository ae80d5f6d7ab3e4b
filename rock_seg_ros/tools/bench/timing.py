# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurements and their statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rock_seg_ros.tools.bench.implementations import Run, Size

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Case:
    """Measurements of one implementation at one image size.

    Attributes:
        kind: 'network', 'image', 'node', 'shell', 'shell, all outputs' or 'overload'.
        who: Name of the implementation.
        size: Width and height, px.
        device: Device on which it ran.
        precision: Precision of its network; empty if it has none.
        runs: Runs in their order.
        limit_ms: Lower bound of the machine, or the requirement, ms; None = unknown.
        more: Further entries of the JSON object.
    """

    kind: str
    who: str
    size: Size
    device: str
    precision: str
    runs: list[Run]
    limit_ms: float | None = None
    more: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Kind and implementation."""
        return f'{self.kind}: {self.who}'

    @property
    def p50(self) -> float:
        """Median, ms."""
        return self.percentile(50)

    def percentile(self, which: float) -> float:
        """Returns a percentile, ms."""
        return float(np.percentile([run.seconds for run in self.runs], which)) * 1e3

    def to_json(self) -> dict[str, Any]:
        """Returns the object that `--json` prints."""
        mean = float(np.mean([run.seconds for run in self.runs]))
        return {
            'name': self.name,
            'size': list(self.size),
            'device': self.device,
            'precision': self.precision,
            **{f'p{which}_ms': round(self.percentile(which), 3) for which in PERCENTILES},
            'fps': round(1 / mean, 3),
            'rss_mb': round(max(run.rss_mb for run in self.runs), 1),
            'runs': len(self.runs),
            'limit_ms': None if self.limit_ms is None else round(self.limit_ms, 3),
            **(self.more or {}),
        }


def run_interleaved(
    implementations: Mapping[Any, Callable[[], Run]],
    seconds: float,
    most: int,
    on_run: Callable[[], object] = lambda: None,
) -> dict[Any, list[Run]]:
    """Measures implementations in the order A B A B, so that drift of the machine affects all.

    The first round is a warm-up and is discarded. At least one more round is completed.

    Args:
        implementations: Name → function that runs it once.
        seconds: Time after which no new round starts.
        most: Maximum number of rounds after the warm-up.
        on_run: Called after each run.

    Returns:
        Name → its runs, the same number for all.
    """
    deadline = time.monotonic() + seconds
    taken: dict[Any, list[Run]] = {who: [] for who in implementations}
    for turn in range(most + 1):
        if turn > 1 and time.monotonic() > deadline:
            break
        for who, run in implementations.items():
            result = run()
            if turn:
                taken[who].append(result)
            on_run()
    return taken


def fit_in_time(expected: Mapping[Any, float], seconds: float) -> list[Any]:
    """Chooses the implementations that can be measured in the given time, the fastest first.

    Args:
        expected: Name → expected seconds per run; 0 = unknown.
        seconds: Time for all, each with a warm-up and one run.

    Returns:
        The names that fit, in the order of `expected`.
    """
    left, chosen = seconds, set()
    for who in sorted(expected, key=lambda who: expected[who]):
        left -= 2 * expected[who]
        if left < 0:
            break
        chosen.add(who)
    return [who for who in expected if who in chosen]


def ratio(cases: Iterable[Case], slow: Mapping[str, Any], quick: Mapping[str, Any]) -> float | None:
    """Returns the ratio of the medians of two cases.

    Args:
        cases: All measurements.
        slow: Attributes of the numerator, such as `{'kind': 'network', 'who': 'torchvision'}`.
        quick: Attributes of the denominator.

    Returns:
        The ratio, above 1 if `quick` is faster; None if one of them was not measured.
    """
    found = list(cases)
    pair = [
        next((c for c in found if all(getattr(c, n) == v for n, v in wanted.items())), None)
        for wanted in (slow, quick)
    ]
    return pair[0].p50 / pair[1].p50 if pair[0] and pair[1] else None
