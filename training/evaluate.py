# SPDX-License-Identifier: Apache-2.0
"""Evaluates weights on labelled images with the inference code of the node."""

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
    """Yields the metrics as text, one per line, with their intervals.

    Args:
        figures: Metrics of `summarize`, without `intervals`.
        intervals: Intervals of the same metrics.
        path: Prefix of the names.
    """
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from lines(value, intervals.get(name, {}), f'{path}{name}.')
            continue
        bounds = intervals.get(name)
        text = '-' if value is None else f'{value:.4g}'
        interval = f'  {bounds[0]:.4g} to {bounds[1]:.4g}' if bounds else ''
        yield f'{path + name:22} {text:>8}{interval}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.evaluate', description=__doc__)
    parser.add_argument(
        '--weights', required=True, help='weights file or checkpoint, or resnet50 or light'
    )
    parser.add_argument(
        '--data', required=True, type=Path, help='folder or annotation file of the labelled images'
    )
    parser.add_argument(
        '--split', choices=('val', 'train', 'all'), help='images to evaluate on (default: val)'
    )
    add_dataset_options(parser)
    parser.add_argument('--grey', action='store_true', help='convert the images to grey')
    parser.add_argument(
        '--scale',
        type=float,
        help='factor on width and height of the images; results are compared at label size'
        ' (default: 1)',
    )
    parser.add_argument('--gain', type=float, help='factor on the pixel values (default: 1)')
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N (default: auto)')
    parser.add_argument(
        '--preset', choices=PRESETS, help='trade-off of accuracy and speed (default: auto)'
    )
    parser.add_argument(
        '--output-stride', type=int, help='8 or 16; 0 = that of the preset (default: 0)'
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help='probability from which a pixel is rock (default: threshold of the metadata)',
    )
    parser.add_argument(
        '--no-split-touching',
        action='store_true',
        help='do not separate touching rocks: instances are connected components',
    )
    parser.add_argument(
        '--no-rims',
        action='store_true',
        help='separate touching rocks by their shape, without the class rim',
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument(
        '--report', type=Path, metavar='OUT.html', help='also write a report as one HTML file'
    )
    parser.add_argument(
        '--run', type=Path, help='run folder of the training, whose curves the report shows'
    )
    parser.add_argument(
        '--worst',
        type=int,
        default=12,
        help='number of images with the lowest scores in the report (default: %(default)s)',
    )
    parser.set_defaults(split='val', scale=1.0, gain=1.0)
    return parser


def _evaluate(given: argparse.Namespace) -> NetworkResult:
    options = {name: getattr(given, name) for name in ('device', 'preset', 'output_stride')}
    settings: Any = {name: value for name, value in options.items() if value is not None}
    perturbation = Perturbation(given.grey, given.scale, given.gain)
    weights = load_weights(given.weights, given.device or 'auto')
    segmenter = Segmenter(weights, capture_after=CAPTURE_AFTER, **settings)
    samples = find_samples(
        dataset_from_options(given.data, given), given.split, segmenter.metadata.classes
    )
    parts = (given.data.resolve().name, given.split, str(perturbation))
    name = ', '.join(part for part in parts if part)
    result = evaluate(
        segmenter,
        samples,
        perturbation,
        given.threshold,
        name,
        settings=RockSettings(split_touching=not given.no_split_touching),
        rims=not given.no_rims,
    )
    return NetworkResult('', segmenter.metadata, [result])


def _evaluate_and_report(given: argparse.Namespace, command: str) -> tuple[NetworkResult, int]:
    """Returns the result, even if the report cannot be written, and the exit status."""
    from training.report import write_report  # matplotlib is slow to import

    curves = read_curves(given.run) if given.run else None
    result = _evaluate(given)
    try:
        write_report(given.report, [result], command, curves, given.worst)
    except Exception as error:  # noqa: BLE001  (no error of the report may discard the metrics)
        message = f'{given.report}: the report cannot be written: {first_line(error)}'
        print(f'training.evaluate: {message}', file=sys.stderr)
        return result, 1
    return result, 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(words)
    command = shlex.join(['python', '-m', 'training.evaluate', *words])
    try:
        if given.report:
            result, status = _evaluate_and_report(given, command)
        else:
            result, status = _evaluate(given), 0
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    figures = result.results[0].figures
    if given.json:
        print(json.dumps(figures))
    else:
        shown = {name: v for name, v in figures.items() if name not in ('intervals', 'conditions')}
        print('\n'.join(lines(shown, figures['intervals'])))
    return status


if __name__ == '__main__':
    sys.exit(main())
