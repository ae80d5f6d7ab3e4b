# SPDX-License-Identifier: Apache-2.0
"""Checks of memory and processor cores."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from rock_seg_ros.tools.doctor.finding import Finding
from rock_seg_ros.tools.doctor.packages import MIB

MEMORY = Path('/proc/meminfo')
CGROUP = Path('/sys/fs/cgroup')
MIN_MEMORY = 2048 * MIB


def memory() -> Iterator[Finding]:
    """Checks the memory that is left for the node, within the limit of the container."""
    free = _available()
    text = f'{free // MIB} MiB available'
    if free < MIN_MEMORY:
        text += f'; the node may need {MIN_MEMORY // MIB} MiB'
        fix = 'ros2 param set /rock_seg weights light'
        yield Finding('memory', 'warning', text, fix)
    else:
        yield Finding('memory', 'ok', text)


def cores() -> Iterator[Finding]:
    """Reports the number of cores that this process may use."""
    usable, total = len(os.sched_getaffinity(0)), os.cpu_count()
    yield Finding('cores', 'ok', f'{usable} of {total} usable')


def _available() -> int:
    """Returns the available memory in bytes."""
    found = re.search(r'^MemAvailable: +(\d+) kB$', MEMORY.read_text(), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    try:
        limit, used = ((CGROUP / f'memory.{name}').read_text() for name in ('max', 'current'))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return free
