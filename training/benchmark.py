# SPDX-License-Identifier: Apache-2.0
"""Measures weights on everything that they are meant for: one table, one report."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.presets import PRESETS
from rock_seg_ros.perception.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.weights_file import WeightsError, load_weights
from training.curves import read_curves
from training.evaluate import Conditions, Result, evaluate
from training.report import write_report
from training.sources import DataError, SourceConfig, find_samples


@dataclass
class Case:
    """One thing that is measured.

    Attributes:
        source: The labelled pictures.
        split: 'train', 'val' or 'all'.
        conditions: What is done to the pictures first.
        shown: Whether the report may show pictures of it; false for data that may not be passed on.
    """

    source: SourceConfig
    split: str = 'val'
    conditions: Conditions = field(default_factory=Conditions)
    shown: bool = False


def measure(segmenter: Segmenter, cases: dict[str, Case]) -> list[Result]:
    """Measures every case.

    Args:
        segmenter: The network.
        cases: By name, at least one.

    Raises:
        DataError, ValueError: As for `find_samples` and `evaluate`.
    """
    results = []
    for name, case in cases.items():
        samples = find_samples(case.source, case.split, segmenter.card.classes)
        results.append(evaluate(segmenter, samples, case.conditions, name=name, shown=case.shown))
    return results


def line(result: Result) -> str:
    """Returns the main figures of a result for people."""
    told = result.figures
    values = {
        'IoU': told['iou'],
        'boundary IoU': told['boundary_iou'],
        'rock recall': told['rocks']['recall'],
        'false rock': told['false_rock'],
    }
    figures = (f'{name} {value:.4f}' for name, value in values.items() if value is not None)
    return f'{result.name:28} ' + ', '.join(figures)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.benchmark')
    parser.add_argument('--weights', default='', help='weights file (default: the embedded)')
    parser.add_argument('--config', action='config', help='YAML file with `cases`')
    parser.add_argument(
        '--cases', type=dict[str, Case], required=True, help='name: what to measure'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--preset', choices=PRESETS, default='auto', help='accuracy against speed')
    parser.add_argument('--output-stride', type=int, default=0, help="8 or 16; 0 = the preset's")
    parser.add_argument('--report', type=Path, help='write a report, OUT.html')
    parser.add_argument('--run', type=Path, help="training's run folder: its curves, in the report")
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    parsed: Namespace = parser.parse_args(words)
    try:
        given = parser.instantiate(parsed)
        weights = load_weights(given.weights, given.device)
        segmenter = Segmenter(
            weights, given.device, output_stride=given.output_stride, preset=given.preset
        )
        results = measure(segmenter, given.cases)
        if given.report:
            curves = read_curves(given.run) if given.run else None
            command = shlex.join(['python', '-m', 'training.benchmark', *words])
            write_report(given.report, results, weights.card, command, curves)
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.benchmark: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        print(json.dumps({result.name: result.figures for result in results}))
    else:
        print('\n'.join(map(line, results)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
