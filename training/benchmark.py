# SPDX-License-Identifier: Apache-2.0
"""Measures weights on everything that they are meant for: one table, one report.

Threshold and cutting are chosen on the one half of each validation set (`training.tune`), and
what is reported is measured on the other.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jsonargparse import ArgumentParser, Namespace

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.pipeline import Pixels
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import EMBEDDED, WeightsError, load_weights
from rock_seg_ros.tools.bench.implementations import Run
from rock_seg_ros.tools.bench.timing import run_interleaved
from training.cases import (
    HALF_CHOICES,
    Case,
    SegmenterNetwork,
    choose_cases,
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
MOST_RUNS = 20
PRINT = '-'


@dataclass(frozen=True)
class Benchmark:
    """What a run of the benchmark gave.

    Attributes:
        networks: What each of them came to, on the same cases.
        half: Which half of the validation sets was measured on.
        missing: Name of a case that was left out → why.
        against: Name of the weights that the others are compared with; empty = with none.
        differences: Name of a network → name of a case → what `compare` returns.
    """

    networks: list[NetworkResult]
    half: str
    missing: dict[str, str]
    against: str
    differences: dict[str, dict[str, Any]]

    def tables(self) -> list[Table]:
        """Returns the table of figures, and that of differences where there are any."""
        found = [figures_table(self.networks)]
        if self.differences:
            order = [result.name for result in self.networks[0].results]
            found.append(differences_table(self.against, self.differences, order))
        return found

    def text(self) -> str:
        """Returns the tables and what is missing, for people."""
        lines = [as_text(table) + '\n' for table in self.tables()]
        lines += [f'half of the validation sets: {self.half}']
        lines += [f'missing: {name}: {reason}' for name, reason in self.missing.items()]
        return '\n'.join(lines)

    def markdown(self) -> str:
        """Returns the tables in Markdown."""
        return '\n\n'.join(f'{table.title}:\n\n{as_markdown(table)}' for table in self.tables())

    def to_json(self) -> dict[str, Any]:
        """Returns all figures, of `summarize` and `compare`, as JSON can hold them."""
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
    """Measures every network on every case.

    Args:
        networks: By name, at least one.
        cases: By name, those that are there.
        half: 'tune', 'report' or 'both'.
        missing: Name of a case that was left out → why.
        pairs: Name of a network → name of that which it is compared with.
        against: Name of the weights that the others are compared with.

    Raises:
        DataError: As for `measure`.
    """
    image_result: dict[tuple[str, str], list[ImageResult]] = {}
    for network, case, own in measure(networks, cases, half):
        image_result.setdefault((network, case), []).append(own)
    speeds = milliseconds(networks, _image(networks, cases, half))
    measured = {
        name: NetworkResult(
            name,
            network.card,
            [
                Result(case, cases[case].conditions, image_result[name, case], cases[case].shown)
                for case in cases
            ],
            speeds[name],
        )
        for name, network in networks.items()
    }
    differences = {
        ours: _differences(measured[ours], measured[theirs]) for ours, theirs in pairs.items()
    }
    return Benchmark(list(measured.values()), half, dict(missing), against, differences)


def _differences(ours: NetworkResult, theirs: NetworkResult) -> dict[str, Any]:
    return {
        result.name: compare(result.counts, theirs.result(result.name).counts, result.only_recall)
        for result in ours.results
    }


def _image(
    networks: Mapping[str, SegmenterNetwork], cases: Mapping[str, Case], half: str
) -> Pixels:
    """Returns the first image of the first case, scaled to `SIZE`."""
    (name, case), classes = next(iter(cases.items())), next(iter(networks.values())).card.classes
    image = parts_of(name, case, classes, half)[0].sample.read().image
    return cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def milliseconds(networks: Mapping[str, SegmenterNetwork], image: Pixels) -> dict[str, float]:
    """Returns the median time from an image to its mask, ms; the networks take turns.

    Args:
        networks: By name.
        image: H×W×3 uint8 RGB.
    """
    runs = run_interleaved(
        {name: partial(_run_once, own.segmenter, image) for name, own in networks.items()},
        TIMING_SECONDS,
        MOST_RUNS,
    )
    return {
        name: 1e3 * float(np.median([run.seconds for run in own])) for name, own in runs.items()
    }


def _run_once(segmenter: Segmenter, image: Pixels) -> Run:
    start = time.perf_counter()
    segmenter.segment(image).mask()
    return Run(time.perf_counter() - start, 0.0)


def _names(weights: Sequence[str]) -> dict[str, str]:
    """Returns a short name of each weights file → the file, the whole path where two are alike."""
    short = [Path(file).stem if file else 'embedded' for file in weights]
    names = [
        file if short.count(name) > 1 else name for name, file in zip(short, weights, strict=True)
    ]
    return dict(zip(names, weights, strict=True))


def _load(
    given: Namespace,
) -> tuple[dict[str, SegmenterNetwork], dict[str, str], str]:
    """Loads every weights file at every preset.

    Returns:
        The networks by name; name of a network → name of that which it is compared with; name of
        the weights that the others are compared with.
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
    parser.add_argument('--config', action='config', help='YAML file with `cases`')
    parser.add_argument(
        '--cases', type=dict[str, Case], required=True, help='name: what to measure'
    )
    parser.add_argument('--only', nargs='+', type=str, default=[], help='names of cases')
    parser.add_argument(
        '--half',
        choices=HALF_CHOICES,
        default='report',
        help='of each validation set; training.tune chooses by the other',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--presets',
        '--preset',
        nargs='+',
        choices=PRESETS,
        default=['auto'],
        help='accuracy against speed, one or several',
    )
    parser.add_argument('--output-stride', type=int, default=0, help="8 or 16; 0 = the preset's")
    parser.add_argument(
        '--against', type=str, help='weights file that the others are compared with, image by image'
    )
    parser.add_argument('--report', type=Path, help='write a report, OUT.html')
    parser.add_argument('--run', type=Path, help="training's run folder: its curves, in the report")
    parser.add_argument(
        '--sheet',
        type=Path,
        help='write a contact sheet of the worst images, OUT.png or .jpg, one for each network;'
        ' also of data that may not be passed on',
    )
    parser.add_argument(
        '--json', nargs='?', const=PRINT, help='print one JSON object, or write it to a file'
    )
    parser.add_argument(
        '--markdown', nargs='?', const=PRINT, help='print the tables in Markdown, or write them'
    )
    return parser


def _measure(given: Namespace) -> tuple[Benchmark, dict[str, SegmenterNetwork]]:
    networks, pairs, against = _load(given)
    classes = next(iter(networks.values())).card.classes
    cases, missing = choose_cases(given.cases, given.only, classes, given.half)
    return run(networks, cases, given.half, missing, pairs, against), networks


def _sheet_file(sheet: Path, network: str, several: bool) -> Path:
    """Returns OUT.png, or OUT-NETWORK.png where there are several networks."""
    own = ''.join(letter if letter.isalnum() else '_' for letter in network)
    return sheet.with_stem(f'{sheet.stem}-{own}') if several else sheet


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    parsed: Namespace = parser.parse_args(words)
    try:
        given = parser.instantiate(parsed)
        curves = read_curves(given.run) if given.run else None
        told, networks = _measure(given)
        if given.report:
            command = shlex.join(['python', '-m', 'training.benchmark', *words])
            write_report(given.report, told.networks, command, curves, tables=told.tables()[1:])
        for network in told.networks if given.sheet else []:
            file = _sheet_file(given.sheet, network.name, len(networks) > 1)
            write_image(file, worst_sheet(networks[network.name], network.results))
        _tell(told, given)
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.benchmark: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _tell(told: Benchmark, given: Namespace) -> None:
    """Prints the tables as text, unless JSON or Markdown is to be printed; writes the others."""
    printed = [
        (given.json, json.dumps(told.to_json())),
        (given.markdown, told.markdown()),
    ]
    if PRINT not in (given.json, given.markdown):
        print(told.text())
    for where, content in printed:
        if where == PRINT:
            print(content)
        elif where:
            write_atomically(Path(where), f'{content}\n'.encode())


if __name__ == '__main__':
    sys.exit(main())
