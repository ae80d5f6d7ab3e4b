# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurements and their statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PERCENTILES = (50, 95, 99)
Size = tuple[int, int]


class Run(NamedTuple):
    """One timed run.

    Attributes:
        seconds: Duration, s.
        rss_mb: Resident memory of the process after the run, MB.
    """

    seconds: float
    rss_mb: float


@dataclass(frozen=True)
class Case:
    """Measurements of one implementation at one image size.

    Attributes:
        kind: 'network', 'image', 'node', 'shell', 'shell, all outputs' or 'overload'.
        implementation: Name of the implementation.
        size: Width and height, px.
        device: Device on which it ran.
        precision: Precision of its network; empty if it has none.
        runs: Runs in their order.
        limit_ms: Lower bound of the machine, or the requirement, ms; None = unknown.
        more: Further entries of the JSON object.
    """

    kind: str
    implementation: str
    size: Size
    device: str
    precision: str
    runs: list[Run]
    limit_ms: float | None = None
    more: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Kind and implementation."""
        return f'{self.kind}: {self.implementation}'

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
    """Measures implementations in turn (A B A B), so that changes of the machine affect all alike.

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
    results: dict[Any, list[Run]] = {name: [] for name in implementations}
    for turn in range(most + 1):
        if turn > 1 and time.monotonic() > deadline:
            break
        for name, run in implementations.items():
            result = run()
            if turn:
                results[name].append(result)
            on_run()
    return results


def fit_in_time(expected: Mapping[Any, float], seconds: float) -> list[Any]:
    """Chooses the implementations that can be measured in the given time, the fastest first.

    Args:
        expected: Name → expected seconds per run; 0 = unknown.
        seconds: Time for all, each with a warm-up and one run.

    Returns:
        The names that fit, in the order of `expected`.
    """
    left, chosen = seconds, set()
    for name in sorted(expected, key=lambda name: expected[name]):
        left -= 2 * expected[name]
        if left < 0:
            break
        chosen.add(name)
    return [name for name in expected if name in chosen]


def ratio(slow: Case | None, fast: Case | None) -> float | None:
    """Returns the ratio of two medians, above 1 if `fast` is faster; None without measurements."""
    return slow.p50 / fast.p50 if slow and fast else None


def rss_mb(process: int | str = 'self') -> float:
    """Returns the resident memory of a process in MB (10⁶ bytes); NaN if it is unknown."""
    try:
        status = Path(f'/proc/{process}/status').read_text()
    except OSError:
        return float('nan')
    sizes = (int(line.split()[1]) for line in status.splitlines() if line.startswith('VmRSS'))
    return next(sizes, float('nan')) * 1024 / 1e6  # missing if the process ended
