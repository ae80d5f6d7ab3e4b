# SPDX-License-Identifier: Apache-2.0
"""The installed commands. Imports nothing heavy, so that Ctrl-C is quiet from the first moment."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def seg_node() -> int:
    """Runs the node; returns its exit status."""
    signal.signal(signal.SIGINT, _leave)
    from rock_seg_ros.node.seg_node import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


def rock_seg() -> int:
    """Runs the `rock_seg` command; returns its exit status."""
    signal.signal(signal.SIGINT, _leave)
    from rock_seg_ros.tools.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()
