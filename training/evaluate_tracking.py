# SPDX-License-Identifier: Apache-2.0
"""Evaluates the track ids of rocks on synthetic drives with exact ground truth.

The rocks have exact masks, some of which are removed for a short time, or are found by a network.
The results are IDF1 and id switches (Ristani et al. 2016, arXiv:1609.01775) of the tracker, and of
the tracker without some of its components.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.synthetic.scene import DRIVES
from training.tracking_evaluation import STEP, TRACKERS, Score, measure


def lines(scores: dict[str, dict[str, Score]]) -> list[str]:
    """Returns a readable table of IDF1, and of the id switches per 1000 rocks."""
    head = f'{"IDF1 (switches per 1000)":44}' + ''.join(f'{name:>18}' for name in TRACKERS)
    rows = [head]
    for case, row in scores.items():
        cells = (f'{s.idf1:.4f} ({1000 * s.switches / max(1, s.given):.1f})' for s in row.values())
        rows.append(f'{case:44}' + ''.join(f'{cell:>18}' for cell in cells))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, prog='python -m training.evaluate_tracking'
    )
    parser.add_argument(
        '--kinds',
        '--looks',  # its name until 0.1
        nargs='+',
        choices=DRIVES,
        default=DRIVES,
        help='kinds of the scenes (default: all)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=1,
        help='seed of the first drive of each kind (default: %(default)s)',
    )
    parser.add_argument(
        '--drives', type=int, default=2, help='drives per kind (default: %(default)s)'
    )
    parser.add_argument(
        '--frames',
        type=int,
        default=60,
        help=f'images per drive, {STEP} m apart (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=('W', 'H'),
        help='width and height of the images, px (default: 320 240)',
    )
    parser.add_argument(
        '--network', action='store_true', help='also track the rocks that a network finds'
    )
    parser.add_argument(
        '--weights',
        default='',
        help='weights file, resnet50 or light (default: the embedded weights of the device)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    seeds = range(given.seed, given.seed + given.drives)
    try:
        if min(given.drives, given.frames) < 1:
            raise ValueError(
                f'--drives and --frames must be 1 or more, not {given.drives} and {given.frames}'
            )
        segmenter = None
        if given.network:
            segmenter = Segmenter(load_weights(given.weights, given.device), given.device)
        scores = measure(given.kinds, seeds, tuple(given.size), given.frames, segmenter)
    except (DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate_tracking: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        result = {
            case: {name: {'idf1': s.idf1, **asdict(s)} for name, s in row.items()}
            for case, row in scores.items()
        }
        print(json.dumps(result))
    else:
        print('\n'.join(lines(scores)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
