# SPDX-License-Identifier: Apache-2.0
"""Measures weights on labelled images, with the code that the node runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.errors import all_lines, first_line
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import (
    CAPTURE_AFTER,
    DeviceError,
    Segmenter,
)
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.curves import read_curves
from training.datasets import DataError, find_samples
from training.datasets.options import add_dataset_options, dataset_from_options
from training.evaluation import NetworkResult, Perturbation, evaluate


def lines(figures: dict[str, Any], intervals: dict[str, Any], path: str = '') -> Iterator[str]:
    """Yields figures for people, one a line, with their intervals.

    Args:
        figures: Of `summarize`, without `intervals`.
        intervals: Of the same names.
        path: Goes before each name.
    """
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from lines(value, intervals.get(name, {}), f'{path}{name}.')
            continue
        bounds = intervals.get(name)
        told = '-' if value is None else f'{value:.4g}'
        between = f'  {bounds[0]:.4g} to {bounds[1]:.4g}' if bounds else ''
        yield f'{path + name:22} {told:>8}{between}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.evaluate', description=__doc__)
    parser.add_argument('--weights', required=True, help='weights file')
    parser.add_argument('--data', required=True, type=Path, help='folder or annotation file')
    parser.add_argument(
        '--split', choices=('val', 'train', 'all'), help='images to measure on (default: val)'
    )
    add_dataset_options(parser)
    parser.add_argument('--grey', action='store_true', help='turn the images grey')
    parser.add_argument('--scale', type=float, help='scale the images; judged at label size')
    parser.add_argument('--gain', type=float, help="multiply the images' values")
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--preset', choices=PRESETS, help='accuracy against speed')
    parser.add_argument('--output-stride', type=int, help="8 or 16; 0 = the preset's")
    parser.add_argument(
        '--threshold', type=float, help="probability from which a pixel is rock (default: card's)"
    )
    parser.add_argument(
        '--no-split-touching', action='store_true', help='judge connected components, not cut apart'
    )
    parser.add_argument(
        '--no-rims', action='store_true', help='cut as for weights that know no rims, by shape'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument('--report', type=Path, metavar='OUT.html', help='write a report, too')
    parser.add_argument('--run', type=Path, help="training's run folder: its curves, in the report")
    parser.add_argument(
        '--worst', type=int, default=12, help='images shown in the report (default: %(default)s)'
    )
    parser.set_defaults(split='val', scale=1.0, gain=1.0)
    return parser


def _measure(given: argparse.Namespace) -> NetworkResult:
    asked = {name: getattr(given, name) for name in ('device', 'preset', 'output_stride')}
    how: Any = {name: value for name, value in asked.items() if value is not None}
    conditions = Perturbation(given.grey, given.scale, given.gain)
    weights = load_weights(given.weights, given.device or 'auto')
    segmenter = Segmenter(weights, capture_after=CAPTURE_AFTER, **how)
    samples = find_samples(
        dataset_from_options(given.data, given), given.split, segmenter.card.classes
    )
    parts = (given.data.resolve().name, given.split, str(conditions))
    name = ', '.join(part for part in parts if part)
    result = evaluate(
        segmenter,
        samples,
        conditions,
        given.threshold,
        name,
        settings=RockSettings(split_touching=not given.no_split_touching),
        rims=not given.no_rims,
    )
    return NetworkResult('', segmenter.card, [result])


def _measure_and_report(given: argparse.Namespace, command: str) -> tuple[NetworkResult, int]:
    """Returns what was measured, even where no report can be made of it, and the exit status."""
    from training.report import write_report  # matplotlib is slow to import

    curves = read_curves(given.run) if given.run else None
    measured = _measure(given)
    try:
        write_report(given.report, [measured], command, curves, given.worst)
    except Exception as error:  # noqa: BLE001  (whatever it is, the figures are not lost)
        told = f'{given.report}: no report: {first_line(error)}'
        print(f'training.evaluate: {told}', file=sys.stderr)
        return measured, 1
    return measured, 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(words)
    command = shlex.join(['python', '-m', 'training.evaluate', *words])
    try:
        if given.report:
            measured, status = _measure_and_report(given, command)
        else:
            measured, status = _measure(given), 0
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    figures = measured.results[0].figures
    if given.json:
        print(json.dumps(figures))
    else:
        shown = {name: v for name, v in figures.items() if name not in ('intervals', 'conditions')}
        print('\n'.join(lines(shown, figures['intervals'])))
    return status


if __name__ == '__main__':
    sys.exit(main())
