# SPDX-License-Identifier: Apache-2.0
"""Interleaved measurements and their statistics."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

MAX_ROUNDS = 200
Size = tuple[int, int]  # width and height, px
Name = TypeVar('Name')
Result = TypeVar('Result')


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
    """Measurements of one contender at one image size.

    Attributes:
        kind: 'network', 'image', 'node', 'shell' or 'overload'.
        contender: Name of what was measured.
        size: Width and height, px.
        device: Device on which it ran.
        precision: Precision of its network; empty if it has none.
        runs: Runs in their order.
        more: Entries of the JSON object that are added or replaced.
    """

    kind: str
    contender: str
    size: Size
    device: str
    precision: str
    runs: list[Run]
    more: Mapping[str, Any] = field(default_factory=dict)

    def percentile(self, which: float) -> float:
        """Returns a percentile, ms."""
        return float(np.percentile([run.seconds for run in self.runs], which)) * 1e3

    def to_json(self) -> dict[str, Any]:
        """Returns the object that `--json` prints."""
        return {
            'name': f'{self.kind}: {self.contender}',
            'size': list(self.size),
            'device': self.device,
            'precision': self.precision,
            **{f'p{which}_ms': round(self.percentile(which), 3) for which in (50, 95, 99)},
            'fps': round(1 / float(np.mean([run.seconds for run in self.runs])), 3),
            'rss_mb': round(max(run.rss_mb for run in self.runs), 1),
            'runs': len(self.runs),
            **self.more,
        }


def parse_size(text: str) -> Size:
    """Reads a size such as 640x480 from the command line."""
    width, cross, height = text.partition('x')
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'must be like 640x480, not {text}')
    return int(width), int(height)


def run_interleaved(
    contenders: Mapping[Name, Callable[[], Result]],
    seconds: float,
    max_rounds: int = MAX_ROUNDS,
    on_run: Callable[[], object] = lambda: None,
) -> dict[Name, list[Result]]:
    """Runs contenders in turn (A B A B), so that changes of the machine affect all alike.

    The first round is a warm-up and is discarded. At least one more round is completed.

    Args:
        contenders: Name → function that runs it once and returns its measurement.
        seconds: Time after which no new round starts, s.
        max_rounds: Maximum number of rounds after the warm-up.
        on_run: Called after each run.

    Returns:
        Name → its measurements, the same number for all.
    """
    deadline = time.monotonic() + seconds
    results: dict[Name, list[Result]] = {name: [] for name in contenders}
    for turn in range(max_rounds + 1):
        if turn > 1 and time.monotonic() > deadline:
            break
        for name, run in contenders.items():
            results[name].append(run())
            on_run()
    return {name: taken[1:] for name, taken in results.items()}


def rss_mb(process: int | str = 'self') -> float:
    """Returns the resident memory of a process in MB (10⁶ bytes)."""
    pages = Path(f'/proc/{process}/statm').read_text().split()[1]
    return int(pages) * os.sysconf('SC_PAGE_SIZE') / 1e6
