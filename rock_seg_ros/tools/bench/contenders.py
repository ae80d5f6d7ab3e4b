# SPDX-License-Identifier: Apache-2.0
"""The networks that `rock_seg bench` compares, and the processes in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.tools.bench.timing import Run
from rock_seg_ros.tools.node_process import start_python

TORCHVISION = 'torchvision'
RESNET, LIGHT = 'resnet50', 'light'
# Name in the results → embedded weights and preset.
PRESETS = {
    'exact': (RESNET, 'exact'),
    'balanced': (RESNET, 'balanced'),
    'fast': (RESNET, 'fast'),
    'light': (LIGHT, 'balanced'),
    'light_fast': (LIGHT, 'fast'),
}
PROGRAM = 'rock_seg_ros.tools.bench.programs.network'
STDERR = 2  # stdout gets only the results


class BenchError(ValueError):
    """A measurement failed; the message is one line with the reason."""


@dataclass(frozen=True)
class Contender:
    """Describes a network to the process that loads it.

    Attributes:
        name: 'torchvision' or a name in `PRESETS`.
        device: 'cpu' or 'cuda'.
        weights: Weights file or name of embedded weights; empty for torchvision.
        preset: Preset of this package.
        precision: 'auto' = the one of the preset; empty = no network.
    """

    name: str
    device: str
    weights: str = ''
    preset: str = ''
    precision: str = 'auto'


def choose_contenders(presets: Sequence[str], weights: str, device: str) -> list[Contender]:
    """Returns the networks that are compared on a device.

    Args:
        presets: Names in `PRESETS`.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.
        device: 'cpu' or 'cuda'.
    """
    chosen = [Contender(TORCHVISION, device)]
    for name in presets:
        embedded, preset = PRESETS[name]
        file = weights if weights and embedded == RESNET else embedded
        chosen.append(Contender(name, device, file, preset))
        if device == 'cuda' and name == 'exact':
            chosen.append(replace(chosen[-1], precision='fp16'))
    return chosen


class Worker:
    """A network in its own process. Use it as a context manager, which ends the process.

    Attributes:
        contender: The network.
    """

    def __init__(self, contender: Contender) -> None:
        """Starts the process, which loads the network."""
        self.contender = contender
        self._connection, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = start_python(
                ['-m', PROGRAM, str(descriptor)], pass_fds=[descriptor], stdout=STDERR
            )
        self._connection.send(contender)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def await_loaded(self) -> str:
        """Waits until the network is loaded; returns its precision.

        Raises:
            BenchError: It could not be loaded; the message has the reason.
        """
        return self._receive()

    def run(self, kind: str, image: NDArray[np.uint8]) -> Run:
        """Measures one run.

        Args:
            kind: 'network' or 'image'.
            image: H×W×3 uint8 RGB, the same one for each run at this size.

        Raises:
            BenchError: The run failed; the message has the reason.
        """
        return self._receive((kind, image))

    def _receive(self, *requests: object) -> Any:
        """Sends the requests; returns the answer."""
        try:
            for request in requests:
                self._connection.send(request)
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            raise BenchError(f'{self.contender.name}: the process ended unexpectedly') from None
        if isinstance(answer, BenchError):
            raise BenchError(f'{self.contender.name}: {answer}')
        return answer
