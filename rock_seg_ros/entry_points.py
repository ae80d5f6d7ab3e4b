# SPDX-License-Identifier: Apache-2.0
# PYTHON_ARGCOMPLETE_OK
"""The installed commands. Imports nothing slow, so that Ctrl-C never prints a traceback."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def seg_node() -> NoReturn:
    """Runs the node and ends the process with its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no handler in Python: loading torch may hold it
    if not {'-h', '--help'} & set(sys.argv):
        print('Starting the rock segmentation node, loading PyTorch.', file=sys.stderr, flush=True)  # noqa: T201
    from rock_seg_ros.node.seg_node import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    _end(main())


def rock_seg() -> NoReturn:
    """Runs the `rock_seg` command and ends the process with its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no handler in Python: loading torch may hold it
    from rock_seg_ros.tools import completion

    if completion.is_requested():
        completion.complete()
    from rock_seg_ros.tools.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    _end(main())


def _end(status: int) -> NoReturn:
    """Ends the process without the teardown of Python, which takes seconds if torch is loaded."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
