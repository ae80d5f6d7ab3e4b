# SPDX-License-Identifier: Apache-2.0
"""Runs the node, or another Python program, in a child process that ends with its parent."""

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
    """A running node. As a context manager, it stops the process on exit."""

    def __init__(
        self,
        parameters: Mapping[str, str],
        remappings: Mapping[str, str],
        log: Path,
        program: Sequence[str] = ('-m', 'rock_seg_ros.node'),
    ) -> None:
        """Starts the node in this process's environment.

        Args:
            parameters: Name of a parameter → its value as in `-p NAME:=VALUE`.
            remappings: Name of a topic → its new name.
            log: File for the output of the node.
            program: Arguments of the Python interpreter.

        Raises:
            OSError: The log cannot be written.
        """
        self._log = log
        arguments = [*program, '--ros-args']
        for name, value in parameters.items():
            arguments += ['-p', f'{name}:={value}']
        for name, value in remappings.items():
            arguments += ['-r', f'{name}:={value}']
        with log.open('wb') as output:
            self._process = start_python(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the node."""
        return self._process.pid

    def status(self) -> int | None:
        """Returns the exit status; None while the node runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """Returns the last lines of the log of the node, joined to one line."""
        lines = self._log.read_text(errors='replace').splitlines()
        return ' | '.join(line.strip() for line in lines[-LAST_LINES:] if line.strip())

    def stop(self) -> None:
        """Interrupts the node and waits until it has finished its current image.

        The node is killed if it does not end within `STOP_TIMEOUT` or on another Ctrl-C.
        """
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
                self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()  # has no effect if the process has ended
            self._process.wait()


def start_python(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts Python in a child process, which ends when this process ends.

    Ctrl-C reaches only this process, which then stops the child.

    Args:
        arguments: Arguments of the Python interpreter.
        options: Other arguments of `subprocess.Popen`.
    """
    with _signals_held():
        return subprocess.Popen(
            [sys.executable, *arguments],
            process_group=0,
            preexec_fn=_end_with_parent,
            env=child_environment(),
            **options,
        )


def child_environment() -> dict[str, str]:
    """Returns this environment, in which a child imports the same package as this process."""
    paths = [str(Path(rock_seg_ros.__file__).parents[1]), os.environ.get('PYTHONPATH', '')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the end of the block.

    During a fork, Python ignores what their handlers raise.
    """
    held: list[int] = []
    before: dict[int, Any] = {
        number: signal.signal(number, lambda received, _: held.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in held:
        signal.raise_signal(number)


def _end_with_parent() -> None:
    """Makes Linux terminate the child when its parent ends for any reason, see prctl(2)."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
