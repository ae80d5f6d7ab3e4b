# SPDX-License-Identifier: Apache-2.0
"""Measures weights on labelled pictures, with the code that the node runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from rock_seg_ros.perception.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.weights_file import WeightsError, load_weights
from training.config import MASK_VALUES, TrainingConfig
from training.datasets import IGNORE, DataError, Sample, find_samples, read_sample
from training.metrics import rock_metrics


def evaluate(
    segmenter: Segmenter, samples: Sequence[Sample], mask_values: dict[int, int]
) -> dict[str, float]:
    """Measures a network on whole pictures.

    Args:
        segmenter: The network.
        samples: The labelled pictures.
        mask_values: Grey value in the mask files → class id of the card; 255 as id is ignored.

    Returns:
        images: Number of pictures.
        iou, precision, recall: Of rock pixels, pooled over all pictures, 0 to 1.
        mean_iou: IoU of rock pixels, averaged over the pictures that have any, in truth or found.

    Raises:
        DataError: A file does not decode or does not fit its picture.
    """
    pooled, single = rock_metrics(), rock_metrics()
    ious = []
    for sample in tqdm(samples, unit='picture', desc='evaluating'):
        picture, targets = read_sample(sample, mask_values)
        found = torch.from_numpy(segmenter.segment(picture).mask()) // 255
        rock = np.isin(targets, segmenter.card.rock_ids)
        truth = torch.from_numpy(np.where(targets == IGNORE, IGNORE, rock).astype(np.int64))
        pooled.update(found.long(), truth)
        if rock.any() or found.any():
            ious.append(float(single(found.long(), truth)['iou']))
            single.reset()
    figures = {name: float(value) for name, value in pooled.compute().items()}
    return {'images': len(samples), **figures, 'mean_iou': float(np.mean(ious)) if ious else 0.0}


def read_mask_values(text: str) -> dict[int, int]:
    """Reads '{GREY: CLASS_ID, ...}', as the training's configuration writes it.

    Raises:
        argparse.ArgumentTypeError: It is no such mapping, or a number is not 0 to 255.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not all(
        isinstance(n, int) and 0 <= n <= 255 for pair in values.items() for n in pair
    ):
        raise argparse.ArgumentTypeError(f"must be like '{{0: 0, 255: 1}}', not {text!r}")
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.evaluate', description=__doc__)
    parser.add_argument('--weights', required=True, help='weights file')
    parser.add_argument(
        '--data', required=True, type=Path, help='folder with images/, masks/, manifest.csv'
    )
    parser.add_argument(
        '--split', choices=('val', 'train', 'all'), help='pictures to measure on (default: val)'
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=TrainingConfig.val_fraction,
        help='share that is val without a manifest (default: %(default)s)',
    )
    parser.add_argument(
        '--mask-values', type=read_mask_values, default=MASK_VALUES, help='{grey: class id, ...}'
    )
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--output-stride', type=int, help='8 or 16; 0 = as trained')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.set_defaults(split='val')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    try:
        asked = {name: getattr(given, name) for name in ('device', 'output_stride')}
        how: Any = {name: value for name, value in asked.items() if value is not None}
        segmenter = Segmenter(load_weights(given.weights), **how)
        samples = find_samples(given.data, given.split, given.val_fraction)
        figures = evaluate(segmenter, samples, given.mask_values)
    except (DataError, DeviceError, WeightsError, ValueError) as error:
        print(f'training.evaluate: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f'{name:10} {value:.4g}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
