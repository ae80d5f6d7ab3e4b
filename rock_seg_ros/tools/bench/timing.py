# SPDX-License-Identifier: Apache-2.0
"""Runs taken in turn, and what they come to."""

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
    """What was measured of one contender at one size.

    Attributes:
        kind: 'network', 'image', 'node', 'shell', 'shell, all outputs', 'overload'.
        who: Is measured.
        size: Width and height, px.
        device: Where it ran.
        precision: Of its network; empty where there is none.
        runs: In the order in which they were taken.
        limit_ms: That the machine, or the requirement, allows; None = not known.
        more: Goes into the JSON object as it is.
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
        """Kind and who, in one."""
        return f'{self.kind}: {self.who}'

    @property
    def p50(self) -> float:
        """Median, ms."""
        return self.percentile(50)

    def percentile(self, which: float) -> float:
        """Returns a percentile, ms."""
        return float(np.percentile([run.seconds for run in self.runs], which)) * 1e3

    def to_json(self) -> dict[str, Any]:
        """Returns what `--json` prints of it."""
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
    tell: Callable[[], object] = lambda: None,
) -> dict[Any, list[Run]]:
    """Measures contenders A B A B, so that a machine that drifts drifts for all of them.

    The first round warms up and does not count. At least one more is run to its end.

    Args:
        implementations: Who → runs once.
        seconds: After which no round is begun.
        most: Rounds that count, at most.
        tell: Called after each run.

    Returns:
        Who → its runs, all of the same number.
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
            tell()
    return taken


def fit_in_time(expected: Mapping[Any, float], seconds: float) -> list[Any]:
    """Chooses whom to measure when there is not time for all: the quickest first.

    Args:
        expected: Who → seconds of a run; not known is 0.
        seconds: For all, each warming up once and running once.

    Returns:
        Those that fit, in the order of `expected`.
    """
    left, chosen = seconds, set()
    for who in sorted(expected, key=lambda who: expected[who]):
        left -= 2 * expected[who]
        if left < 0:
            break
        chosen.add(who)
    return [who for who in expected if who in chosen]


def ratio(cases: Iterable[Case], slow: Mapping[str, Any], quick: Mapping[str, Any]) -> float | None:
    """Returns how many times as fast the one case is as the other, by their medians.

    Args:
        cases: All that were measured.
        slow: Attributes that tell the one, such as `{'kind': 'network', 'who': 'torchvision'}`.
        quick: Attributes of the other.

    Returns:
        Above 1 = `quick` is faster; None where one of them was not measured.
    """
    found = list(cases)
    pair = [
        next((c for c in found if all(getattr(c, n) == v for n, v in wanted.items())), None)
        for wanted in (slow, quick)
    ]
    return pair[0].p50 / pair[1].p50 if pair[0] and pair[1] else None
