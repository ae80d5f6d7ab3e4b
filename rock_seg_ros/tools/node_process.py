# SPDX-License-Identifier: Apache-2.0
"""The node as a process of its own, which ends with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rock_seg_ros

LAST_LINES = 5
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
STOP_TIMEOUT = 20.0


class NodeProcess:
    """A running node. Used as a context manager: leaving it ends the process."""

    def __init__(
        self,
        parameters: Mapping[str, str],
        remappings: Mapping[str, str],
        log: Path,
        program: Sequence[str] = ('-m', 'rock_seg_ros.node'),
    ) -> None:
        """Starts the node in this process's environment.

        Args:
            parameters: Name → value, as one types it after `-p`.
            remappings: Name → name.
            log: File for what it prints.
            program: What Python runs.

        Raises:
            OSError: The log cannot be written.
        """
        self._log = log
        command = [sys.executable, *program, '--ros-args']
        for name, value in parameters.items():
            command += ['-p', f'{name}:={value}']
        for name, value in remappings.items():
            command += ['-r', f'{name}:={value}']
        # Found where this process found it, whatever the working directory is.
        root = str(Path(rock_seg_ros.__file__).parents[1])
        paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
        with log.open('wb') as output, _interrupts_held():
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # a terminal's Ctrl-C is for this process, which stops the node
                preexec_fn=_end_with_parent,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def status(self) -> int | None:
        """Returns the exit status; None while it runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """Returns the end of its log, as one line."""
        lines = self._log.read_text(errors='replace').splitlines()
        return ' | '.join(line.strip() for line in lines[-LAST_LINES:] if line.strip())

    def stop(self) -> None:
        """Interrupts it and waits for the forward pass in hand; one that hangs is killed.

        Ctrl-C meanwhile kills it, too, and is passed on.
        """
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()  # does nothing to one that has ended
            self._process.wait()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Has Ctrl-C take effect afterwards: Python loses it in what it runs around a fork."""
    held: list[Any] = []
    before: Any = signal.signal(signal.SIGINT, lambda *details: held.append(details))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held and callable(before):
        before(*held[0])


def _end_with_parent() -> None:
    """Has Linux interrupt the node however the process that started it ends, see prctl(2)."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
