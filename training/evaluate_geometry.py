# SPDX-License-Identifier: Apache-2.0
"""Evaluates the positions and sizes of rocks in metres on synthetic scenes with exact ground truth.

The truth is computed per pixel from the rendered instances and depth. The measurements use the
depth of a simulated stereo camera, or only a ground plane, and exact masks or those of a network.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.geometry_evaluation import measure, report
from training.stereo_camera import StereoCamera
from training.synthetic.scene_kinds import SCENE_KINDS


def lines(results: dict[str, Any]) -> Iterator[str]:
    """Yields the metrics as readable text."""
    for name, case in results['cases'].items():
        for which, metrics in case.items():
            yield f'{name}, {which}: ' + _line(metrics)
    for origin, found in results['abundance'].items():
        yield (
            f'measured k / true k, {origin}: {_text(found["ratio"], "")} '
            f'({found["scenes"]} scenes), covered {_text(found["together"]["abundance"], "")}'
        )


def _line(values: dict[str, Any]) -> str:
    parts = [f'{values["rocks"]} rocks', f'located {_text(values["located"], "")}']
    parts.append(f'bias of the diameter {_text(values["diameter_bias"], "%")}')
    for name, unit in (('position', '%'), ('diameter', '%'), ('height', 'm')):
        bounds = values['intervals'][name]
        interval = f' ({bounds[0]:.3g} to {bounds[1]:.3g})' if bounds else ''
        parts.append(f'{name} {_text(values[name], unit)}{interval}')
    return ', '.join(parts)


def _text(value: float | None, unit: str) -> str:
    return '-' if value is None else f'{value:.3g} {unit}'.rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate_geometry', description=__doc__
    )
    parser.add_argument(
        '--kinds',
        '--looks',  # its name until 0.1
        nargs='+',
        choices=SCENE_KINDS,
        default=['mars', 'quarry'],
        help='kinds of the scenes (default: mars quarry)',
    )
    parser.add_argument(
        '--scenes', type=int, default=10, help='scenes per kind (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=991, help='seed of the scenes (default: %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(640, 480),
        metavar=('W', 'H'),
        help='width and height of the images, px (default: 640 480)',
    )
    parser.add_argument(
        '--baseline',
        type=float,
        default=StereoCamera.baseline,
        help='baseline of the stereo camera, m (default: %(default)s)',
    )
    parser.add_argument(
        '--noise',
        type=float,
        default=StereoCamera.noise,
        help='standard deviation of the disparity, px (default: %(default)s)',
    )
    parser.add_argument(
        '--weights',
        default='',
        help='weights file, resnet50 or light (default: the embedded weights of the device)',
    )
    parser.add_argument('--exact-only', action='store_true', help='use only exact masks')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--overlays', type=Path, help='output folder for overlays')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    scenes = [(given.seed, number, kind) for kind in given.kinds for number in range(given.scenes)]
    stereo = StereoCamera(given.baseline, given.noise)
    try:
        segmenter = (
            None
            if given.exact_only
            else Segmenter(load_weights(given.weights, given.device), given.device)
        )
        results = report(measure(scenes, tuple(given.size), stereo, segmenter, given.overlays))
    except (DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate_geometry: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(results) if given.json else '\n'.join(lines(results)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
