# SPDX-License-Identifier: Apache-2.0
"""The measurements of `rock_seg bench`. In each one the contenders take turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.tools.bench.contenders import (
    PRODUCT,
    TORCHVISION,
    BenchError,
    Contender,
    Worker,
)
from rock_seg_ros.tools.bench.nodes import (
    OUTPUTS,
    NodeProgram,
    serialize_image,
    start_nodes,
)
from rock_seg_ros.tools.bench.timing import Case, Run, Size, run_interleaved

OURS, PLAIN = 'rock_seg', 'plain node'
PROGRAMS = 'rock_seg_ros.tools.bench.programs'
NODE_PROGRAM = ('-m', 'rock_seg_ros.node')
STUB_NODE, PLAIN_NODE = ('-m', f'{PROGRAMS}.stub_node'), ('-m', f'{PROGRAMS}.plain_node')
# Share of the total time for each measurement.
NETWORK_SHARE, NODE_SHARE, SHELL_SHARE = 0.65, 0.25, 0.1
STUB_NETWORK_MS = 100
OVERLOAD_HZ = 100  # ten times as fast as the stub network
SETTLING = 0.2  # share of the images before the growth of memory is measured
Key = tuple[str, Contender]  # kind of the case, and what is measured


@dataclass(frozen=True)
class Bench:
    """Measures at several image sizes.

    Attributes:
        image: H×W×3 uint8 RGB, which is scaled to each size.
        sizes: Widths and heights, px.
        seconds: Time for the measurements without loading and overload, s; 0 = one round each.
        bar: Progress bar.
        images: Size → scaled image.
        messages: Size → scaled image as a serialized Image.
    """

    image: NDArray[np.uint8]
    sizes: Sequence[Size]
    seconds: float
    bar: Any
    images: dict[Size, NDArray[np.uint8]] = field(init=False, default_factory=dict)
    messages: dict[Size, bytearray] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for size in self.sizes:
            self.images[size] = cv2.resize(self.image, size)  # type: ignore[assignment]
            self.messages[size] = serialize_image(self.images[size])

    def measure_networks(
        self, contenders: Sequence[Contender]
    ) -> tuple[list[Case], list[Contender]]:
        """Measures networks alone, and segmentation from image to mask, without ROS.

        Returns:
            The cases, and those contenders that could be loaded, with their precisions.
        """
        self.bar.set_description_str('loading')
        runs: dict[Key, Callable[[Any], Run]] = {}
        with ExitStack() as stack:
            for worker in [stack.enter_context(Worker(contender)) for contender in contenders]:
                try:
                    contender = replace(worker.contender, precision=worker.await_loaded())
                except BenchError as error:
                    if worker.contender.name == TORCHVISION:
                        raise
                    tqdm.write(f'rock_seg bench: not measured: {error}', file=sys.stderr)
                    continue
                for kind in ('network', 'image') if contender.name != PRODUCT else ('network',):
                    runs[kind, contender] = partial(worker.run, kind)
            loaded = [contender for kind, contender in runs if kind == 'image']
            return self._measure(runs, self.images, NETWORK_SHARE), loaded

    def measure_nodes(self, contenders: Sequence[Contender]) -> list[Case]:
        """Measures nodes from the publication of an image to the arrival of its mask."""
        programs = {}
        for number, contender in enumerate(contenders):
            if contender.name == TORCHVISION:
                programs[replace(contender, name=PLAIN)] = NodeProgram('plain', PLAIN_NODE)
                continue
            names = ('weights', 'preset', 'precision', 'device')
            parameters = {name: getattr(contender, name) for name in names}
            name = f'{contender.name}_{number}'
            programs[contender] = NodeProgram(name, NODE_PROGRAM, parameters)
        return self._measure_nodes('node', programs, NODE_SHARE)

    def measure_shell(self) -> list[Case]:
        """Measures nodes with a stub network, from the publication of an image to four outputs."""
        programs = {
            Contender(name, 'cpu', precision=''): NodeProgram(
                name.replace(' ', '_'),
                program,
                {'device': 'cpu', 'track': 'false'},  # the plain node does not track
                tuple(OUTPUTS),
            )
            for name, program in ((OURS, STUB_NODE), (PLAIN, (*PLAIN_NODE, '--stub')))
        }
        return self._measure_nodes('shell', programs, SHELL_SHARE)

    def measure_overload(self, images: int) -> Case:
        """Measures the age of masks when images arrive ten times as fast as they are processed.

        Args:
            images: Number of images.

        Raises:
            BenchError: The node published no mask.
        """
        arguments = (*STUB_NODE, '--network-ms', str(STUB_NETWORK_MS))
        program = NodeProgram('overload', arguments, {'device': 'cpu'})
        size = self.sizes[0]
        self.bar.set_description_str('overload')
        with start_nodes([program], self.messages[size]) as [node]:
            start = time.monotonic()
            runs = node.overload(self.messages[size], OVERLOAD_HZ, images)
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
        self, kind: str, programs: Mapping[Contender, NodeProgram], share: float
    ) -> list[Case]:
        self.bar.set_description_str('starting nodes')
        image = self.messages[self.sizes[0]]
        with start_nodes(list(programs.values()), image) as nodes:
            runs = {(kind, key): node.run for key, node in zip(programs, nodes, strict=True)}
            return self._measure(runs, self.messages, share)

    def _measure(
        self,
        runs: Mapping[Key, Callable[[Any], Run]],
        images: Mapping[Size, Any],
        share: float,
    ) -> list[Case]:
        """Measures the contenders in turn, at one image size after the other."""
        cases: list[Case] = []
        for size in self.sizes:
            chosen = {
                key: partial(run, images[size])
                for key, run in runs.items()
                if size == self.sizes[0] or not key[1].slow
            }
            self.bar.set_description_str(f'{next(iter(runs))[0]}, {size[0]}×{size[1]}')
            seconds = share * self.seconds / len(self.sizes)
            cases += [
                Case(kind, contender.name, size, contender.device, contender.precision, measured)
                for (kind, contender), measured in run_interleaved(
                    chosen, seconds, on_run=self.bar.update
                ).items()
            ]
        return cases
