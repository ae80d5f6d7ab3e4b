# SPDX-License-Identifier: Apache-2.0
"""Exports a checkpoint to a weights file, and checks that both find the same rocks."""

from __future__ import annotations

import argparse
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmenter import DeviceError
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError, load_weights
from training.calibration import measure_ranges
from training.datasets import DataError, DatasetConfig, Sample, find_samples
from training.datasets.options import add_dataset_options, dataset_from_options
from training.datasets.selection import evenly_spaced
from training.rounding import round_to_int8
from training.weights_export import export

IMAGES = 8
CALIBRATION_IMAGES = 32


def trained_on(checkpoint: Path) -> list[DatasetConfig]:
    """Returns the labelled sources that are recorded in a checkpoint; empty if there are none.

    Raises:
        WeightsError: A recorded source is invalid in this version.
    """
    content: dict[str, Any] = {}
    if checkpoint.suffix == '.ckpt':
        try:
            content = torch.load(checkpoint, map_location='cpu', weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError):  # not written by Lightning
            return []
    try:
        sources = [DatasetConfig(**fields) for fields in content.get('sources', [])]
    except (TypeError, ValueError) as error:
        raise WeightsError(f'{checkpoint}: its recorded sources are invalid ({error})') from None
    return [source for source in sources if source.format != 'unlabelled']


def _samples(given: argparse.Namespace, metadata: ModelMetadata) -> list[Sample]:
    """Returns the images of the check: all with --int8 or --measure, else some of each source."""
    if given.no_check:
        return []
    checkpoint = Path(given.checkpoint)
    if given.check_on:
        found = [find_samples(dataset_from_options(given.check_on, given), 'val', metadata.classes)]
    else:
        found = _of_split('val', trained_on(checkpoint), metadata)
    if not any(found):
        raise DataError(
            f'{checkpoint}: has no record of images for the check; give --check-on or --no-check'
        )
    if given.int8 or given.measure:
        return [sample for group in found for sample in group]
    each = -(-given.max_images // sum(map(bool, found)))
    return [sample for group in found for sample in evenly_spaced(group, each)]


def _of_split(
    split: str, sources: list[DatasetConfig], metadata: ModelMetadata
) -> list[list[Sample]]:
    """Returns the images of each source in a split, which a source may not have."""
    all_of = [find_samples(source, 'all', metadata.classes) for source in sources]
    return [[sample for sample in group if sample.split == split] for group in all_of]


def _interpolated(weights: Weights, file: str, share: str) -> Weights:
    """Interpolates linearly between weights and those that came before them in the training.

    WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903): fine-tuned weights lose less of what the
    original ones have learned if both are averaged.

    Raises:
        ValueError: The share is not 0 to 1.
        WeightsError: The networks differ.
    """
    try:
        part = float(share)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise ValueError(f'the SHARE of --interpolate must be 0 to 1, not {share}')
    before = load_weights(file)
    if before.metadata.classes != weights.metadata.classes:
        raise WeightsError(
            f'{before.path}: its classes {before.metadata.classes} are not those of the checkpoint,'
            f' {weights.metadata.classes}'
        )
    state = {}
    for name, tensor in weights.state.items():
        other = before.state.get(name)
        if other is not None and other.shape == tensor.shape:
            state[name] = torch.lerp(other.double(), tensor.double(), part).to(tensor.dtype)
        elif not name.startswith('aux_classifier.'):  # exported files do not have it
            raise WeightsError(
                f'{before.path}: is of another network than the checkpoint; {name} differs'
            )
    return replace(weights, state=state)


def _calibration_samples(given: argparse.Namespace, weights: Weights) -> list[Sample]:
    """Returns the images for --calibrate."""
    sources = [dataset_from_options(path, given) for path in given.calibrate] or trained_on(
        weights.path
    )
    found = _of_split('train', sources, weights.metadata)
    each = -(-CALIBRATION_IMAGES // max(1, sum(map(bool, found))))
    return [sample for group in found for sample in evenly_spaced(group, each)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.export', description=__doc__)
    parser.add_argument(
        '--checkpoint',
        required=True,
        help='checkpoint or weights file, such as RUN/checkpoints/last.ckpt',
    )
    parser.add_argument(
        '-o', '--output', required=True, type=Path, help='file to write, .safetensors or .onnx'
    )
    parser.add_argument(
        '--int8', action='store_true', help='store the weights as int8 (.safetensors only)'
    )
    parser.add_argument(
        '--calibrate',
        type=Path,
        nargs='*',
        metavar='DATA',
        help='measure the activation ranges that int8 (preset fast) needs, on the train splits of'
        ' these data (without DATA: of the data that the checkpoint was trained on); with --int8,'
        ' the weights are also rounded so that the outputs of the layers change least on them',
    )
    parser.add_argument(
        '--interpolate',
        nargs=2,
        metavar=('FILE', 'SHARE'),
        help='interpolate between the weights in FILE, from which the training started or which are'
        ' an earlier checkpoint of it, and the checkpoint, whose share is 0 to 1; a smaller share'
        ' keeps more of what FILE has learned (WiSE-FT)',
    )
    parser.add_argument(
        '--output-stride', type=int, default=0, help='8 or 16; 0 = as trained (default)'
    )
    parser.add_argument(
        '--threshold',
        type=float,
        metavar='P',
        help='probability from which a pixel is rock, 0 to 1; training.tune chooses it (default: as'
        ' trained)',
    )
    checking = parser.add_mutually_exclusive_group()
    checking.add_argument(
        '--check-on',
        type=Path,
        metavar='DATA',
        help='data set whose val split is used for the check (default: the data that the checkpoint'
        ' was trained on)',
    )
    checking.add_argument('--no-check', action='store_true', help='write the file without a check')
    add_dataset_options(parser)
    parser.add_argument(
        '--max-images',
        '--pictures',  # its name until 0.1
        type=int,
        default=IMAGES,
        help='number of images in the check (default: %(default)s); --int8 and --measure use all',
    )
    parser.add_argument(
        '--measure', action='store_true', help='add the metrics on the images to the metadata'
    )
    parser.add_argument(
        '--device',
        default='auto',
        help='device of the check: auto, cpu, cuda or cuda:N (default: auto)',
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.max_images < 1:
        parser.error(f'--max-images must be at least 1, not {given.max_images}; see --no-check')
    try:
        weights = load_weights(given.checkpoint)
        if given.interpolate:
            weights = _interpolated(weights, *given.interpolate)
        rounded = None
        if given.calibrate is not None:
            images = _calibration_samples(given, weights)
            ranges = measure_ranges(weights, images)
            weights = replace(weights, metadata=replace(weights.metadata, activation_ranges=ranges))
            rounded = round_to_int8(weights, images) if given.int8 else None
        if given.threshold is not None:
            weights = replace(
                weights, metadata=replace(weights.metadata, threshold=given.threshold)
            )
        samples = _samples(given, weights.metadata)
        metadata = export(
            weights,
            given.output,
            samples,
            given.int8,
            given.output_stride,
            given.device,
            given.measure,
            rounded,
        )
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.export: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for name, value in metadata.metrics.items():
        print(f'{name} {value:.4g}')
    plural = '' if len(samples) == 1 else 's'
    checked = f'checked on {len(samples)} image{plural}' if samples else 'not checked'
    print(f'{given.output}: written, {given.output.stat().st_size / 1e6:.1f} MB, {checked}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
