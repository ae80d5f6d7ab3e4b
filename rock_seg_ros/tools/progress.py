# SPDX-License-Identifier: Apache-2.0
"""Progress and remaining time of long runs, on a terminal and in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sized
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 30.0  # s between two lines in a log file
LOG_LINE = '{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'
LOG_LINE_WITHOUT_TOTAL = '{n_fmt} [{elapsed}, {rate_fmt}]'


class _LogFile:
    """Writes each text of tqdm to stderr as a separate line, without overwriting."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    items: Iterable[Any] | None = None, *, unit: str, total: int | None = None, done: int = 0
) -> tqdm:
    """Shows the progress on stderr: a bar on a terminal, otherwise a line at intervals.

    Args:
        items: The items; None = the caller calls `update` of the bar.
        unit: Name of an item.
        total: Number of items; None = that of `items`, if it has a length.
        done: Number of the items of `total` that an earlier run has finished. They do not count in
            the speed, from which the time left follows.
    """
    more: dict[str, Any] = {'file': sys.stderr}
    if not sys.stderr.isatty():
        total = len(items) if total is None and isinstance(items, Sized) else total
        more = {
            'file': _LogFile(),
            'delay': LOG_INTERVAL,  # short work writes no lines
            'mininterval': LOG_INTERVAL,
            'maxinterval': LOG_INTERVAL,
            'bar_format': LOG_LINE if total else LOG_LINE_WITHOUT_TOTAL,
        }
    return tqdm(items, unit=unit, total=total, initial=done, **more)
