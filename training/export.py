# SPDX-License-Identifier: Apache-2.0
"""Turns a checkpoint into a weights file with its card, and refuses one that finds other rocks."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.backends.onnx_backend import INPUT, OUTPUT
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.model import build, load_state
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import (
    Weights,
    WeightsError,
    load_weights,
    save_weights,
    write_beside,
)
from training.calibration import measure_ranges
from training.datasets import DataError, DatasetConfig, Sample, find_samples
from training.datasets.options import add_dataset_options, dataset_from_options
from training.datasets.selection import evenly_spaced
from training.evaluation import Result, evaluate

ONNX_OPSET = 18
MOST_PIXELS = 0.001  # share of mask pixels that may differ from the checkpoint's
MOST_IOU_CHANGE = 0.002  # int8: difference of rock IoU from the checkpoint's, on any source
MOST_IOU_LOST = 0.01  # computing in int8: loss of rock IoU against fp32, on any source
IMAGES = 8
CALIBRATION_IMAGES = 32
METRICS = (
    'iou',
    'mean_iou',
    'precision',
    'recall',
    'boundary_iou',
    'false_rock',
    'false_rock_on_empty',
    'ece',
)
ROCK_METRICS = ('precision', 'recall', 'mean_iou')


class ScoresOnly(nn.Module):
    """A network whose result is the scores themselves, as an ONNX graph's has to be."""

    def __init__(self, model: nn.Module) -> None:
        """Takes the network."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised RGB to N×channels×H×W scores."""
        return self.model(images)['out']


def export(
    weights: Weights,
    target: Path,
    samples: Sequence[Sample],
    int8: bool = False,
    output_stride: int = 0,
    device: str = 'auto',
    measure: bool = False,
) -> Card:
    """Writes a weights file without the auxiliary head; the target appears only if it holds.

    The file is run with the node's code, in fp32, beside the weights that it comes from.

    Args:
        weights: Of a checkpoint: the averaged weights of a training.
        target: `.safetensors` (fp16, or weight-only int8) or `.onnx` (fp32, any size and batch).
        samples: Images to check on; none = unchecked. int8 needs labelled ones.
        int8: Weight-only int8; `.safetensors` only.
        output_stride: Of the file, 8 or 16; 0 = as trained.
        device: To check on: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        measure: Put the figures of the file on the samples into its card.

    Returns:
        The card of the file, with what the check gave among its metrics.

    Raises:
        DataError: An image to check on cannot be read.
        DeviceError: This machine has no such device.
        WeightsError: The weights do not fit, the target cannot be what is asked, or the file finds
            too much else than the checkpoint.
    """
    if target.suffix not in ('.safetensors', '.onnx'):
        raise WeightsError(f'{target}: the name must end in .safetensors or .onnx')
    if int8 and target.suffix == '.onnx':
        raise WeightsError(f'{target}: --int8 is for .safetensors')
    card = replace(weights.card, output_stride=output_stride or weights.card.output_stride)
    model = build(card)
    try:
        load_state(model, weights.state, NETWORKS[card.architecture].title)
    except ValueError as error:
        raise WeightsError(f'{weights.path}: {error}') from None
    write = _onnx_writer(model) if target.suffix == '.onnx' else _safetensors_writer(model, int8)
    if not samples:
        write_beside(target, lambda temporary: write(temporary, card))
        return card
    theirs = _run(replace(weights, card=card), samples, device)

    def write_what_holds(temporary: Path) -> None:
        nonlocal card
        write(temporary, card)
        ours = _run(load_weights(temporary), samples, device)
        card = replace(card, metrics=card.metrics | compare(target, ours, theirs, int8))
        if measure:
            card = replace(card, metrics=card.metrics | figures_of(ours))
        if card.activation_ranges and target.suffix != '.onnx':
            quick = _run(load_weights(temporary), samples, 'cpu', 'int8')
            card = replace(card, metrics=card.metrics | compare_int8(target, quick, ours))
        write(temporary, card)

    write_beside(target, write_what_holds)
    return card


def _safetensors_writer(model: nn.Module, int8: bool) -> Callable[[Path, Card], None]:
    return lambda file, card: save_weights(file, model.state_dict(), card, int8)


def _onnx_writer(model: nn.Module) -> Callable[[Path, Card], None]:
    size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        ScoresOnly(model).eval(),
        (torch.zeros(2, 3, 97, 129),),  # sizes with no common factor, so that none is taken fixed
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=ONNX_OPSET,
        dynamic_shapes=({0: size, 2: size, 3: size},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None

    def write(file: Path, card: Card) -> None:
        program.model.metadata_props['card'] = card.to_json()
        program.save(file)

    return write


def _run(
    weights: Weights, samples: Sequence[Sample], device: str, precision: str = 'fp32'
) -> dict[str, Result]:
    """Measures weights on each source of the samples."""
    # For so few images, what OpenVINO takes to load is more than what it gains.
    backend = 'torch' if precision == 'fp32' and not weights.is_onnx else 'auto'
    segmenter = Segmenter(weights, device, precision, backend)
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    return {source: evaluate(segmenter, own, name=source) for source, own in by_source.items()}


def compare(
    target: Path, ours: dict[str, Result], theirs: dict[str, Result], int8: bool
) -> dict[str, float]:
    """Compares what a file finds with what the checkpoint finds, by source.

    Args:
        target: Is named in the error.
        ours: Of the file.
        theirs: Of the checkpoint, on the same images.
        int8: Judge by the change of rock IoU instead of by pixels.

    Returns:
        export_pixels_differ: Share of the mask pixels that differ, 0 to 1.
        export_iou_change: Largest change of rock IoU on a source that has labelled rock; is
            missing where none has.

    Raises:
        WeightsError: The file finds too much else, or int8 cannot be judged without labels.
    """
    pairs = [(ours[source], theirs[source]) for source in ours]
    masks = [
        (one.mask, other.mask)
        for our, their in pairs
        for one, other in zip(our.images, their.images, strict=True)
    ]
    differing = sum(np.count_nonzero(one != other) for one, other in masks)
    share = differing / sum(one.size for one, _ in masks)
    changes = [
        abs(our.figures['iou'] - their.figures['iou'])
        for our, their in pairs
        if our.counts.pixels[:, 1].any()
    ]
    if int8 and not changes:
        raise WeightsError(f'{target}: int8 is judged by IoU, and no image has labelled rock')
    if int8 and max(changes) > MOST_IOU_CHANGE:
        raise WeightsError(
            f"{target}: refused, its IoU is {100 * max(changes):.2f} points off the checkpoint's"
            f' on {len(masks)} images; at most {100 * MOST_IOU_CHANGE:.1f} may be'
        )
    if not int8 and share > MOST_PIXELS:
        raise WeightsError(
            f"{target}: refused, {share:.2%} of its mask pixels differ from the checkpoint's"
            f' on {len(masks)} images; at most {MOST_PIXELS:.1%} may'
        )
    change = {'export_iou_change': max(changes)} if changes else {}
    return {'export_pixels_differ': share, **change}


def compare_int8(
    target: Path, quick: dict[str, Result], exact: dict[str, Result]
) -> dict[str, float]:
    """Compares what a file finds when it computes in int8 with what it finds in fp32, by source.

    Args:
        target: Is named in the error.
        quick: In int8.
        exact: In fp32, on the same images.

    Returns:
        int8_iou_lost: Largest loss of rock IoU on a source that has labelled rock (negative: none
            loses); is missing where none has.

    Raises:
        WeightsError: A source loses too much.
    """
    lost = [
        exact[source].figures['iou'] - quick[source].figures['iou']
        for source in exact
        if exact[source].counts.pixels[:, 1].any()
    ]
    if lost and max(lost) > MOST_IOU_LOST:
        raise WeightsError(
            f'{target}: refused, computing in int8 it loses {100 * max(lost):.2f} points of IoU;'
            f' at most {100 * MOST_IOU_LOST:.1f} may be: calibrate it on more images'
        )
    return {'int8_iou_lost': max(lost)} if lost else {}


def figures_of(results: dict[str, Result]) -> dict[str, float]:
    """Returns the known main figures of each source as a card's metrics: 'NAME_val_iou' and so on.

    Args:
        results: Path of a source → what was measured on its val split.
    """
    metrics: dict[str, float | None] = {}
    for source, result in results.items():
        path = Path(source).resolve()
        name = f'{path.stem if path.is_file() else path.name}_val'
        told = result.figures
        metrics |= {f'{name}_{figure}': told[figure] for figure in METRICS}
        metrics |= {f'{name}_rocks_{figure}': told['rocks'][figure] for figure in ROCK_METRICS}
    return {name: v for name, v in metrics.items() if v is not None and isfinite(v)}


def trained_on(checkpoint: Path) -> list[DatasetConfig]:
    """Returns the labelled sources that a checkpoint names; empty if it names none.

    Raises:
        WeightsError: What it names is no source to this version.
    """
    kept: dict[str, Any] = {}
    if checkpoint.suffix == '.ckpt':
        try:
            kept = torch.load(checkpoint, map_location='cpu', weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError):  # of another making, such as a legacy file
            return []
    try:
        sources = [DatasetConfig(**fields) for fields in kept.get('sources', [])]
    except (TypeError, ValueError) as error:
        raise WeightsError(f'{checkpoint}: its sources cannot be used ({error})') from None
    return [source for source in sources if source.format != 'unlabelled']


def _samples(given: argparse.Namespace, card: Card) -> list[Sample]:
    """Returns the images to check on: all with --int8 or --measure, else some of each source."""
    if given.no_check:
        return []
    checkpoint = Path(given.checkpoint)
    if given.check_on:
        found = [find_samples(dataset_from_options(given.check_on, given), 'val', card.classes)]
    else:  # a source that holds nothing out was good enough for the training
        sources = trained_on(checkpoint)
        all_of = [find_samples(source, 'all', card.classes) for source in sources]
        found = [[sample for sample in own if sample.split == 'val'] for own in all_of]
    if not any(found):
        raise DataError(
            f'{checkpoint}: names no images to check on; give --check-on DATA or --no-check'
        )
    if given.int8 or given.measure:
        return [sample for own in found for sample in own]
    each = -(-given.max_images // sum(map(bool, found)))
    return [sample for own in found for sample in evenly_spaced(own, each)]


def _calibrated(given: argparse.Namespace, weights: Weights) -> Weights:
    """Returns the weights with the activation ranges that --calibrate asks for."""
    sources = [dataset_from_options(path, given) for path in given.calibrate] or trained_on(
        weights.path
    )
    found = [find_samples(source, 'train', weights.card.classes) for source in sources]
    each = -(-CALIBRATION_IMAGES // max(1, len(found)))
    ranges = measure_ranges(
        weights, [sample for own in found for sample in evenly_spaced(own, each)]
    )
    return replace(weights, card=replace(weights.card, activation_ranges=ranges))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.export', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='RUN/checkpoints/last.ckpt')
    parser.add_argument('-o', '--output', required=True, type=Path, help='.safetensors or .onnx')
    parser.add_argument('--int8', action='store_true', help='weight-only int8 (.safetensors)')
    parser.add_argument(
        '--calibrate',
        type=Path,
        nargs='*',
        metavar='DATA',
        help='measure what computing in int8 (preset fast) needs, on the train splits of these'
        ' data (default: what the checkpoint was trained on)',
    )
    parser.add_argument('--output-stride', type=int, default=0, help='8 or 16; 0 = as trained')
    parser.add_argument(
        '--threshold',
        type=float,
        metavar='P',
        help='rock probability from which a pixel is rock, 0 to 1, as training.tune chooses it'
        ' (default: as trained)',
    )
    checking = parser.add_mutually_exclusive_group()
    checking.add_argument(
        '--check-on',
        type=Path,
        metavar='DATA',
        help="check on this data set's val split (default: what the checkpoint was trained on)",
    )
    checking.add_argument('--no-check', action='store_true', help='write without a check')
    add_dataset_options(parser)
    parser.add_argument(
        '--max-images',
        '--pictures',  # its name until 0.1
        type=int,
        default=IMAGES,
        help='number of images that the masks are compared on (default: %(default)s); --int8 and'
        ' --measure use all',
    )
    parser.add_argument('--measure', action='store_true', help='put figures into the card')
    parser.add_argument('--device', default='auto', help='to check on: auto, cpu, cuda or cuda:N')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.max_images < 1:
        parser.error(f'--max-images must be at least 1, not {given.max_images}; see --no-check')
    try:
        weights = load_weights(given.checkpoint)
        if given.calibrate is not None:
            weights = _calibrated(given, weights)
        if given.threshold is not None:
            weights = replace(weights, card=replace(weights.card, threshold=given.threshold))
        samples = _samples(given, weights.card)
        card = export(
            weights,
            given.output,
            samples,
            given.int8,
            given.output_stride,
            given.device,
            given.measure,
        )
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.export: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for name, value in card.metrics.items():
        print(f'{name} {value:.4g}')
    checked = f'checked on {len(samples)} images' if samples else 'not checked'
    print(f'{given.output}: written, {given.output.stat().st_size / 1e6:.1f} MB, {checked}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
