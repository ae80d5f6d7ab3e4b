# SPDX-License-Identifier: Apache-2.0
"""Evaluates weights on many sets of images, and writes tables and a report.

Each validation set has two halves: `training.tune` chooses the threshold on one, and this command
reports on the other.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonargparse import ArgumentParser, Namespace

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmentation import Pixels
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import EMBEDDED, WeightsError, load_weights
from rock_seg_ros.tools.bench.timing import run_interleaved
from training.arguments import add_case_arguments
from training.cases import (
    HALF_CHOICES,
    Case,
    SegmenterNetwork,
    available_cases,
    measure,
    parts_of,
)
from training.curves import read_curves
from training.datasets import DataError
from training.evaluation import ImageResult, NetworkResult, Result
from training.metrics import compare
from training.report import write_report
from training.sheet import worst_sheet
from training.tables import Table, as_markdown, as_text, differences_table, figures_table
from training.writing import write_atomically, write_image

SIZE = (640, 480)
TIMING_SECONDS = 30.0
MAX_RUNS = 20
PRINT = '-'


@dataclass(frozen=True)
class Benchmark:
    """The results of a benchmark.

    Attributes:
        networks: Results of the networks, on the same cases.
        half: The half of the validation sets that was used.
        missing: Name of a case that was not evaluated → reason.
        against: Name of the weights that the others are compared with; empty = no comparison.
        differences: Name of a network → name of a case → result of `compare`.
    """

    networks: list[NetworkResult]
    half: str
    missing: dict[str, str]
    against: str
    differences: dict[str, dict[str, Any]]

    def tables(self) -> list[Table]:
        """Returns the table of metrics, and the table of differences if there are any."""
        tables = [figures_table(self.networks)]
        if self.differences:
            order = [result.name for result in self.networks[0].results]
            tables.append(differences_table(self.against, self.differences, order))
        return tables

    def text(self) -> str:
        """Returns the tables and the missing cases as readable text."""
        lines = [as_text(table) + '\n' for table in self.tables()]
        lines += [f'half of the validation sets: {self.half}']
        lines += [f'missing: {name}: {reason}' for name, reason in self.missing.items()]
        return '\n'.join(lines)

    def markdown(self) -> str:
        """Returns the tables in Markdown."""
        return '\n\n'.join(f'{table.title}:\n\n{as_markdown(table)}' for table in self.tables())

    def to_json(self) -> dict[str, Any]:
        """Returns all results of `summarize` and `compare` as a JSON object."""
        return {
            'half': self.half,
            'missing': self.missing,
            'networks': {
                network.name: {
                    'milliseconds_640x480': network.milliseconds,
                    'cases': {result.name: result.figures for result in network.results},
                }
                for network in self.networks
            },
            'against': self.against or None,
            'differences': self.differences,
        }


def run(
    networks: Mapping[str, SegmenterNetwork],
    cases: Mapping[str, Case],
    half: str,
    missing: Mapping[str, str],
    pairs: Mapping[str, str],
    against: str = '',
) -> Benchmark:
    """Evaluates every network on every case.

    Args:
        networks: The networks by name, at least one.
        cases: The cases by name, all with images.
        half: 'tune', 'report' or 'both'.
        missing: Name of a case that was not evaluated → reason.
        pairs: Name of a network → name of the network that it is compared with.
        against: Name of the weights that the others are compared with.

    Raises:
        DataError: The data of a case are invalid; see `measure`.
    """
    image_results: dict[tuple[str, str], list[ImageResult]] = {}
    for network, case, result in measure(networks, cases, half):
        image_results.setdefault((network, case), []).append(result)
    speeds = milliseconds(networks, _timing_image(networks, cases, half))
    results = {
        name: NetworkResult(
            name,
            network.metadata,
            [
                Result(case, cases[case].conditions, image_results[name, case], cases[case].shown)
                for case in cases
            ],
            speeds[name],
        )
        for name, network in networks.items()
    }
    differences = {
        ours: _differences(results[ours], results[theirs]) for ours, theirs in pairs.items()
    }
    return Benchmark(list(results.values()), half, dict(missing), against, differences)


def _differences(ours: NetworkResult, theirs: NetworkResult) -> dict[str, Any]:
    return {
        result.name: compare(result.counts, theirs.result(result.name).counts, result.only_recall)
        for result in ours.results
    }


def _timing_image(
    networks: Mapping[str, SegmenterNetwork], cases: Mapping[str, Case], half: str
) -> Pixels:
    """Returns the first image of the first case, scaled to `SIZE`."""
    (name, case), classes = (
        next(iter(cases.items())),
        next(iter(networks.values())).metadata.classes,
    )
    image = parts_of(name, case, classes, half)[0].sample.read().image
    return cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def milliseconds(networks: Mapping[str, SegmenterNetwork], image: Pixels) -> dict[str, float]:
    """Returns the median time from an image to its mask per network, ms; the runs are interleaved.

    Args:
        networks: The networks by name.
        image: H×W×3 uint8 RGB.
    """
    runs = run_interleaved(
        {name: partial(_run_once, net.segmenter, image) for name, net in networks.items()},
        TIMING_SECONDS,
        MAX_RUNS,
    )
    return {name: 1e3 * float(np.median(timed)) for name, timed in runs.items()}


def _run_once(segmenter: Segmenter, image: Pixels) -> float:
    start = time.perf_counter()
    segmenter.segment(image).mask()
    return time.perf_counter() - start


def _names(weights: Sequence[str]) -> dict[str, str]:
    """Returns short name of a weights file → file; the full path is the name of duplicates."""
    short = [Path(file).stem if file else 'embedded' for file in weights]
    names = [
        file if short.count(name) > 1 else name for name, file in zip(short, weights, strict=True)
    ]
    return dict(zip(names, weights, strict=True))


def _load(
    given: Namespace,
) -> tuple[dict[str, SegmenterNetwork], dict[str, str], str]:
    """Loads every weights file with every preset.

    Returns:
        The networks by name; name of a network → name of the network that it is compared with; and
        name of the weights that the others are compared with.
    """
    files = list(
        dict.fromkeys([*given.weights, *([] if given.against is None else [given.against])])
    )
    names = _names(files)
    against = next((name for name, file in names.items() if file == given.against), '')
    networks, pairs = {}, {}
    for name, file in names.items():
        weights = load_weights(file, given.device)
        for preset in dict.fromkeys(given.presets):
            networks[f'{name}, {preset}'] = SegmenterNetwork(
                Segmenter(weights, given.device, output_stride=given.output_stride, preset=preset)
            )
            if against and name != against:
                pairs[f'{name}, {preset}'] = f'{against}, {preset}'
    return networks, pairs, against


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.benchmark')
    parser.add_argument(
        '--weights',
        nargs='+',
        type=str,
        default=list(EMBEDDED),
        help='weights files, resnet50 or light (default: both embedded networks)',
    )
    add_case_arguments(parser)
    parser.add_argument(
        '--half',
        choices=HALF_CHOICES,
        default='report',
        help='half of each validation set to evaluate on; training.tune uses the half tune',
    )
    parser.add_argument(
        '--presets',
        '--preset',
        nargs='+',
        choices=PRESETS,
        default=['auto'],
        help='trade-offs of accuracy and speed to evaluate, one or several',
    )
    parser.add_argument(
        '--output-stride', type=int, default=0, help='8 or 16; 0 = that of the preset'
    )
    parser.add_argument(
        '--against',
        type=str,
        help='weights file that the others are compared with, by a paired bootstrap',
    )
    parser.add_argument('--report', type=Path, help='write a report as one HTML file')
    parser.add_argument(
        '--run', type=Path, help='run folder of the training, whose curves the report shows'
    )
    parser.add_argument(
        '--sheet',
        type=Path,
        help='write a contact sheet (.png or .jpg) of the worst images per network; it may contain'
        ' data that must not be redistributed',
    )
    parser.add_argument(
        '--json', nargs='?', const=PRINT, help='print one JSON object, or write it to a file'
    )
    parser.add_argument(
        '--markdown',
        nargs='?',
        const=PRINT,
        help='print the tables in Markdown, or write them to a file',
    )
    return parser


def _benchmark(given: Namespace) -> tuple[Benchmark, dict[str, SegmenterNetwork]]:
    networks, pairs, against = _load(given)
    classes = next(iter(networks.values())).metadata.classes
    cases, missing = available_cases(given.cases, given.only, classes, given.half)
    return run(networks, cases, given.half, missing, pairs, against), networks


def _sheet_file(sheet: Path, network: str, several: bool) -> Path:
    """Returns OUT.png, or OUT-NETWORK.png if there are several networks."""
    suffix = ''.join(letter if letter.isalnum() else '_' for letter in network)
    return sheet.with_stem(f'{sheet.stem}-{suffix}') if several else sheet


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    parsed: Namespace = parser.parse_args(words)
    try:
        given = parser.instantiate(parsed)
        curves = read_curves(given.run) if given.run else None
        benchmark, networks = _benchmark(given)
        failures: list[Exception] = []
        _write_tables(benchmark, given, failures)
        if given.report:
            command = shlex.join(['python', '-m', 'training.benchmark', *words])
            tables = benchmark.tables()[1:]
            with _kept(failures):
                write_report(given.report, benchmark.networks, command, curves, tables=tables)
        for network in benchmark.networks if given.sheet else []:
            file = _sheet_file(given.sheet, network.name, len(networks) > 1)
            with _kept(failures):
                write_image(file, worst_sheet(networks[network.name], network.results))
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.benchmark: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for failure in failures:
        print(f'training.benchmark: {all_lines(failure)}', file=sys.stderr)
    return 1 if failures else 0


@contextmanager
def _kept(failures: list[Exception]) -> Iterator[None]:
    """Keeps the error of an output, so that the others are written."""
    try:
        yield
    except (ValueError, OSError) as error:
        failures.append(error)


def _write_tables(benchmark: Benchmark, given: Namespace, failures: list[Exception]) -> None:
    """Writes JSON and Markdown; prints the tables as text unless one of these is printed."""
    outputs = [
        (given.json, json.dumps(benchmark.to_json())),
        (given.markdown, benchmark.markdown()),
    ]
    if PRINT not in (given.json, given.markdown):
        print(benchmark.text())
    for target, content in outputs:
        if target == PRINT:
            print(content)
        elif target:
            with _kept(failures):
                write_atomically(Path(target), f'{content}\n'.encode())


if __name__ == '__main__':
    sys.exit(main())
