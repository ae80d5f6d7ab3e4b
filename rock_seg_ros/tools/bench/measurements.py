# SPDX-License-Identifier: Apache-2.0
"""The measurements of `rock_seg bench`. In each one the contenders take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.tools.bench.contenders import TORCHVISION, BenchError, Contender, Worker
from rock_seg_ros.tools.bench.nodes import OUTPUTS, BenchNode
from rock_seg_ros.tools.bench.timing import Case, Run, Size, run_interleaved
from rock_seg_ros.tools.main import print_message

OURS, PLAIN = 'rock_seg', 'plain node'
PROGRAMS = 'rock_seg_ros.tools.bench.programs'
NODE, PLAIN_NODE = ('-m', 'rock_seg_ros.node'), ('-m', f'{PROGRAMS}.plain_node')
STUB_NODE = ('-m', f'{PROGRAMS}.stub_node')
NODE_PARAMETERS = ('weights', 'preset', 'precision', 'device')
# Share of the total time for each measurement.
NETWORK_SHARE, NODE_SHARE, SHELL_SHARE = 0.65, 0.25, 0.1
STUB_NETWORK_MS = 100
OVERLOAD_HZ = 100  # ten times as fast as the stub network
SETTLING = 0.2  # share of the images before the growth of memory is measured
Key = tuple[str, Contender]  # kind of the case, and what is measured
Measure = Callable[[NDArray[np.uint8]], Run]  # measures one run on H×W×3 uint8 RGB


@dataclass(frozen=True)
class Bench:
    """Measures at several image sizes.

    Attributes:
        images: Width and height, px → H×W×3 uint8 RGB.
        seconds: Time for the measurements without loading and overload, s; 0 = one round each.
        bar: Progress bar.
    """

    images: Mapping[Size, NDArray[np.uint8]]
    seconds: float
    bar: Any

    def measure_networks(
        self, contenders: Sequence[Contender]
    ) -> tuple[list[Case], list[Contender]]:
        """Measures networks alone, and segmentation from image to mask, without ROS.

        Returns:
            The cases, and those contenders that could be loaded, with their precisions.
        """
        self.bar.set_description_str('loading')
        loaded: list[Contender] = []
        runs: dict[Key, Measure] = {}
        with ExitStack() as stack:
            for worker in [stack.enter_context(Worker(contender)) for contender in contenders]:
                try:
                    contender = replace(worker.contender, precision=worker.await_loaded())
                except BenchError as error:
                    if worker.contender.name == TORCHVISION:
                        raise
                    print_message('bench', f'not measured: {error}')
                    continue
                loaded.append(contender)
                for kind in ('network', 'image'):
                    runs[kind, contender] = partial(worker.run, kind)
            return self._measure(runs, NETWORK_SHARE), loaded

    def measure_nodes(self, contenders: Sequence[Contender]) -> list[Case]:
        """Measures nodes from the publication of an image to the arrival of its mask."""
        with ExitStack() as stack:
            nodes = {}
            for number, contender in enumerate(contenders):
                if contender.name == TORCHVISION:
                    key, node = replace(contender, name=PLAIN), BenchNode('plain', PLAIN_NODE)
                else:
                    parameters = {name: getattr(contender, name) for name in NODE_PARAMETERS}
                    key, node = contender, BenchNode(f'{contender.name}_{number}', NODE, parameters)
                nodes[key] = stack.enter_context(node)
            return self._measure_nodes('node', nodes, NODE_SHARE)

    def measure_shell(self) -> list[Case]:
        """Measures nodes with a stub network, from the publication of an image to four outputs."""
        parameters = {'device': 'cpu', 'track': 'false'}  # the plain node does not track
        with (
            BenchNode('stub', (*STUB_NODE, '0'), parameters, tuple(OUTPUTS)) as stub,
            BenchNode('plain_stub', (*PLAIN_NODE, '--stub'), outputs=tuple(OUTPUTS)) as plain,
        ):
            nodes = {
                Contender(name, 'cpu', precision=''): node
                for name, node in ((OURS, stub), (PLAIN, plain))
            }
            return self._measure_nodes('shell', nodes, SHELL_SHARE)

    def measure_overload(self, images: int) -> Case:
        """Measures the age of masks when images arrive ten times as fast as they are processed.

        Args:
            images: Number of images.

        Raises:
            BenchError: The node published no mask.
        """
        self.bar.set_description_str('overload')
        size, image = next(iter(self.images.items()))
        program = (*STUB_NODE, str(STUB_NETWORK_MS))
        with BenchNode('overload', program, {'device': 'cpu'}) as node:
            node.await_ready(image)
            start = time.monotonic()
            runs = node.overload(image, OVERLOAD_HZ, images)
            seconds = time.monotonic() - start
        if not runs:
            raise BenchError('overload: the node published no masks')
        settled = runs[round(SETTLING * len(runs))]
        more = {
            'images': images,
            'fps': round(len(runs) / seconds, 3),
            'rss_growth_mb': round(runs[-1].rss_mb - settled.rss_mb, 1),
        }
        return Case('overload', f'age at {OVERLOAD_HZ} Hz', size, 'cpu', '', runs, more)

    def _measure_nodes(
        self, kind: str, nodes: Mapping[Contender, BenchNode], share: float
    ) -> list[Case]:
        self.bar.set_description_str('starting nodes')
        for node in nodes.values():
            node.await_ready(next(iter(self.images.values())))
        return self._measure({(kind, key): node.run for key, node in nodes.items()}, share)

    def _measure(self, runs: Mapping[Key, Measure], share: float) -> list[Case]:
        """Measures the contenders in turn, at one image size after the other."""
        cases: list[Case] = []
        for size, image in self.images.items():
            chosen = {
                key: partial(run, image)
                for key, run in runs.items()
                if not (cases and _is_slow(key[1]))
            }
            self.bar.set_description_str(f'{next(iter(runs))[0]}, {size[0]}×{size[1]}')
            seconds = share * self.seconds / len(self.images)
            results = run_interleaved(chosen, seconds, on_run=self.bar.update)
            cases += [
                Case(kind, contender.name, size, contender.device, contender.precision, measured)
                for (kind, contender), measured in results.items()
            ]
        return cases


def _is_slow(contender: Contender) -> bool:
    """Returns whether it takes so long for a large image that only the first size is measured."""
    has_network = contender.precision != ''
    slow_on_cpu = (TORCHVISION, PLAIN, 'exact')
    return has_network and contender.device == 'cpu' and contender.name in slow_on_cpu
