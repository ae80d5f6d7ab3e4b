# SPDX-License-Identifier: Apache-2.0
"""The measurements of `rock_seg bench`. Each function returns a list of cases."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rock_seg_ros.tools.bench.implementations import (
    CONFIGURATIONS,
    PRODUCT_SIDE,
    BenchError,
    ImplementationProcess,
    Job,
    read_scaled,
    weights_of,
)
from rock_seg_ros.tools.bench.nodes import (
    DEFAULT_OUTPUTS,
    NODE_PROGRAM,
    OUTPUTS,
    BenchNode,
    SerializedImage,
    keep_freed_memory,
    ros_context,
)
from rock_seg_ros.tools.bench.timing import Case, Run, Size, fit_in_time, run_interleaved

PRODUCT, TORCHVISION, EAGER = 'matrix product', 'torchvision', 'eager'
OURS, PLAIN, ECHO = 'rock_seg', 'plain node', 'echo node'
PROGRAMS = 'rock_seg_ros.tools.bench.programs'
SHELLS = {OURS: 'stub_node', PLAIN: 'baseline_node', ECHO: 'echo_node'}
ALLOWED_AGE_MS = 20.0
STUB_NETWORK_MS = 100.0
OVERLOAD = 10.0
FEW_ROCKS, MANY_ROCKS = 20, 200
SETTLING = 0.2  # share of the images before the growth of memory is measured
ANSWER_TIMEOUT_FACTOR = 5.0
Start = Callable[..., BenchNode]
# Share of the total time for each measurement.
SHARES = {'alone': 0.65, 'node': 0.25, 'shell': 0.1}


@dataclass(frozen=True)
class Plan:
    """Defines what is measured, and for how long.

    Attributes:
        sizes: Widths and heights, px; the first gets half of the time.
        presets: Configurations of the package, keys of `CONFIGURATIONS`.
        devices: 'cpu', and 'cuda' if there is a GPU; nodes run on the last.
        shell_sizes: Sizes at which nodes are measured without a network.
        seconds: Time for all measurements except the overload, without loading, s.
        most: Maximum number of rounds of a measurement.
        many: Whether nodes without a network are also measured with many rocks.
        images: Number of images of the overload.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.
        image: Image file, which is scaled to each size.
        bar: Progress bar.
    """

    sizes: tuple[Size, ...]
    presets: tuple[str, ...]
    devices: tuple[str, ...]
    shell_sizes: tuple[Size, ...]
    seconds: float
    most: int
    many: bool
    images: int
    weights: str
    image: Path
    bar: Any

    def seconds_for(self, what: str, size: Size) -> float:
        """Returns the time for a measurement at one of the sizes, s."""
        part = 1.0
        if len(self.sizes) > 1:
            part = 0.5 if size == self.sizes[0] else 0.5 / (len(self.sizes) - 1)
        return SHARES[what] * self.seconds * part

    def image_message(self, size: Size) -> SerializedImage:
        """Returns the image, scaled to a size, as the message that a camera publishes."""
        return SerializedImage(read_scaled(self.image, size))

    def rounds(
        self, implementations: Mapping[Any, Callable[[], Run]], seconds: float, description: str
    ) -> dict[Any, list[Run]]:
        """Measures implementations in turn, with a progress bar."""
        self.bar.set_description_str(description)
        return run_interleaved(implementations, seconds, self.most, self.bar.update)


def measure_in_process(plan: Plan, device: str) -> list[Case]:
    """Measures networks, and segmentation from image to mask, without ROS."""
    cases: list[Case] = []
    with _implementations(plan, device) as processes:
        expected: dict[tuple[str, ImplementationProcess], float] = {}
        for process in processes:
            if process.job.implementation != PRODUCT:
                expected['network', process] = 0.0
            if process.job.implementation not in (PRODUCT, EAGER):
                expected['image', process] = 0.0
        product = next(process for process in processes if process.job.implementation == PRODUCT)
        before = plan.sizes[0]
        for size in plan.sizes:
            seconds = plan.seconds_for('alone', size) / len(plan.devices)
            grown = size[0] * size[1] / (before[0] * before[1])
            chosen = fit_in_time({key: grown * s for key, s in expected.items()}, seconds)
            _report_skipped(
                [f'{s}: {p.job.implementation}' for s, p in expected if (s, p) not in chosen], size
            )
            implementations = {
                (step, process): partial(process.run, step, size) for step, process in chosen
            }
            implementations['network', product] = partial(product.run, 'network', size)
            results = plan.rounds(
                implementations, seconds, f'networks, {_format_size(size)}, {device}'
            )
            rate = _rate(results.pop(('network', product)), device)
            for (step, process), runs in results.items():
                expected[step, process] = runs[0].seconds / grown
                cases.append(_in_process_case(plan, step, process, size, runs, rate))
    return cases


@contextmanager
def _implementations(plan: Plan, device: str) -> Iterator[list[ImplementationProcess]]:
    """Yields the processes of the implementations that can be loaded."""
    names = [(PRODUCT, ''), (TORCHVISION, ''), (EAGER, '')]
    names += [(preset, 'auto') for preset in plan.presets]
    if device == 'cuda' and 'exact' in plan.presets:
        names.append(('exact', 'fp16'))
    plan.bar.set_description_str('loading')
    jobs = [Job(name, device, precision, plan.weights, plan.image) for name, precision in names]
    processes = [ImplementationProcess(job) for job in jobs]
    try:
        loaded = []
        for process in processes:
            try:
                process.await_loaded()
                loaded.append(process)
            except BenchError as error:
                if process.job.implementation not in plan.presets:
                    raise
                print_message(f'not measured: {error}')
        yield loaded
    finally:
        for process in processes:
            process.stop()


def _in_process_case(
    plan: Plan, step: str, process: ImplementationProcess, size: Size, runs: list[Run], rate: float
) -> Case:
    name, more = process.job.implementation, {}
    limit = None
    if step == 'network':
        flops = count_flops(name, plan.weights, size)
        limit, more = flops / rate * 1e3, {'gflop': round(flops / 1e9, 2)}
    return Case(step, name, size, process.job.device, process.precision, runs, limit, more)


def _rate(runs: list[Run], device: str) -> float:
    """Returns the FLOP per second of the fastest matrix product."""
    return 2.0 * PRODUCT_SIDE[device] ** 3 / min(run.seconds for run in runs)


def count_flops(name: str, weights: str, size: Size) -> int:
    """Counts the FLOP of a forward pass; a multiplication and an addition count as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models.segmentation import deeplabv3_resnet50

    from rock_seg_ros.perception.inference.model import build
    from rock_seg_ros.perception.inference.presets import preset_stride
    from rock_seg_ros.perception.inference.weights_file import load_weights

    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        if name == TORCHVISION:
            model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2)
        else:
            ours = name if name in CONFIGURATIONS else 'exact'
            metadata = load_weights(weights_of(ours, weights)).metadata
            model = build(metadata, preset_stride(CONFIGURATIONS[ours][1], metadata))
        model.eval()(torch.empty(1, 3, size[1], size[0]))
    return int(counter.get_total_flops())


def measure_nodes(plan: Plan, alone: list[Case]) -> list[Case]:
    """Measures nodes from the publication of an image to the mask, for the networks in `alone`."""
    device, cases = plan.devices[-1], []
    durations: dict[Size, dict[tuple[str, str], float]] = {size: {} for size in plan.sizes}
    for case in alone:
        if case.kind == 'image' and case.device == device:
            durations[case.size][case.implementation, case.precision] = case.p50 / 1e3
    with _nodes(plan) as start:
        nodes = {
            (name, precision): _start_node(plan, start, name, precision, device)
            for name, precision in durations[plan.sizes[0]]
        }
        for size, expected in durations.items():
            image, seconds = plan.image_message(size), plan.seconds_for('node', size)
            chosen = fit_in_time(expected, seconds)
            _report_skipped([f'node: {node[0]}' for node in nodes if node not in chosen], size)
            for node in chosen:
                nodes[node].subscribe({'mask': 1}, image, ANSWER_TIMEOUT_FACTOR * expected[node])
            measured = {node: partial(nodes[node].run, image) for node in chosen}
            results = plan.rounds(measured, seconds, f'nodes, {_format_size(size)}, {device}')
            for (name, precision), runs in results.items():
                name = PLAIN if name == TORCHVISION else name
                cases.append(Case('node', name, size, device, precision, runs))
    return cases


def _start_node(plan: Plan, start: Start, name: str, precision: str, device: str) -> BenchNode:
    if name == TORCHVISION:
        return start('plain', _program('baseline_node'))
    parameters = {
        'weights': weights_of(name, plan.weights),
        'preset': CONFIGURATIONS[name][1],
        'precision': precision,
        'device': device,
    }
    return start(f'{name}_{precision}', parameters=parameters)


def _program(name: str, *arguments: str) -> list[str]:
    """Returns the arguments of the Python interpreter for one of the `programs`."""
    return ['-m', f'{PROGRAMS}.{name}', *arguments]


def measure_shell(plan: Plan) -> list[Case]:
    """Measures nodes without a network, from the publication of an image to all outputs.

    The echo node computes nothing, so that it measures rclpy and DDS on both sides.
    """
    cases: list[Case] = []
    default_outputs = dict.fromkeys(DEFAULT_OUTPUTS, 1)
    scenes = [('shell', FEW_ROCKS, default_outputs, size) for size in plan.shell_sizes]
    if plan.many:
        all_outputs = {**dict.fromkeys(OUTPUTS, 1), 'polygons': MANY_ROCKS}
        scenes.append(('shell, all outputs', MANY_ROCKS, all_outputs, plan.shell_sizes[0]))
    with _nodes(plan) as start:
        nodes = {
            (name, rocks): start(
                f'{name.split()[0]}_{rocks}',
                _program(program, '--rocks', str(rocks)),
                {'device': 'cpu', 'track': 'false'},  # the baseline node does not track
            )
            for rocks in sorted({scene[1] for scene in scenes})
            for name, program in SHELLS.items()
            if name != ECHO or rocks == FEW_ROCKS  # the echo node has only the default outputs
        }
        for kind, rocks, outputs, size in scenes:
            image = plan.image_message(size)
            measured = {}
            for (name, number), node in nodes.items():
                if number == rocks:
                    node.subscribe(outputs, image)
                    measured[name] = partial(node.run, image)
            seconds = SHARES['shell'] * plan.seconds / len(scenes)
            results = plan.rounds(measured, seconds, f'{kind}, {_format_size(size)}')
            more = {'rocks': rocks, 'outputs': list(outputs)}
            cases += [
                Case(kind, name, size, 'cpu', '', runs, None, more)
                for name, runs in results.items()
            ]
    return cases


def measure_overload(plan: Plan) -> list[Case]:
    """Measures the age of results when images arrive ten times as fast as they are processed."""
    size, rate = plan.shell_sizes[0], OVERLOAD * 1e3 / STUB_NETWORK_MS
    with _nodes(plan) as start:
        node = start(
            'overloaded',
            _program('stub_node', '--network-ms', str(STUB_NETWORK_MS)),
            {'device': 'cpu'},
        )
        image = plan.image_message(size)
        node.subscribe({'mask': 1}, image)
        plan.bar.set_description_str(f'overload, {_format_size(size)}')
        start_time = time.monotonic()
        runs = node.overload(image, rate, plan.images)
        seconds = time.monotonic() - start_time
    if not runs:
        raise BenchError('overload: the node published no results')
    settled = runs[round(SETTLING * len(runs))]
    more = {
        'images': plan.images,
        'fps': round(len(runs) / seconds, 3),
        'rss_growth_mb': round(runs[-1].rss_mb - settled.rss_mb, 1),
    }
    limit = STUB_NETWORK_MS + ALLOWED_AGE_MS
    return [Case('overload', f'age at {rate:.0f} Hz', size, 'cpu', '', runs, limit, more)]


@contextmanager
def _nodes(plan: Plan) -> Iterator[Start]:
    """Yields a function that starts nodes; all of them are stopped at the end."""
    plan.bar.set_description_str('starting nodes')
    keep_freed_memory()
    with ros_context() as context, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(
            name: str,
            program: Sequence[str] = NODE_PROGRAM,
            parameters: Mapping[str, str] | None = None,
        ) -> BenchNode:
            return stack.enter_context(BenchNode(name, context, folder, program, parameters))

        yield start


def _report_skipped(names: Sequence[str], size: Size) -> None:
    if names:
        print_message(
            f'skipped at {_format_size(size)} for lack of time: {", ".join(names)};'
            ' increase --seconds to measure them'
        )


def print_message(line: str) -> None:
    """Prints a line above the progress bar."""
    tqdm.write(f'rock_seg bench: {line}', file=sys.stderr)


def _format_size(size: Size) -> str:
    return f'{size[0]}×{size[1]}'
