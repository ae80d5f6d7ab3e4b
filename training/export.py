# SPDX-License-Identifier: Apache-2.0
"""Turns a training's checkpoint into a weights file with its card."""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rock_seg_ros.perception.backends.onnx_backend import INPUT, OUTPUT
from rock_seg_ros.perception.model import build, load_state
from rock_seg_ros.perception.segmenter import Segmenter
from rock_seg_ros.perception.weights_file import (
    Weights,
    WeightsError,
    load_weights,
    save_weights,
    write_beside,
)
from training.config import DATA_SETTINGS, MASK_VALUES, TrainingConfig
from training.datasets import DataError, find_samples
from training.evaluate import evaluate, read_mask_values

ONNX_OPSET = 18


class ScoresOnly(nn.Module):
    """A network whose result is the scores themselves, as an ONNX graph's has to be."""

    def __init__(self, model: nn.Module) -> None:
        """Takes the network."""
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps N×3×H×W normalised RGB to N×channels×H×W scores."""
        return self.model(pictures)['out']


def export(weights: Weights, target: Path, int8: bool = False, output_stride: int = 0) -> None:
    """Writes a weights file without the auxiliary head.

    Args:
        weights: Of a checkpoint: the averaged weights of a training.
        target: `.safetensors` (fp16, or weight-only int8) or `.onnx` (fp32, any size and batch).
        int8: Weight-only int8; `.safetensors` only.
        output_stride: Of the file, 8 or 16; 0 = as trained.

    Raises:
        WeightsError: The weights do not fit, or the target cannot be what is asked.
    """
    if target.suffix not in ('.safetensors', '.onnx'):
        raise WeightsError(f'{target}: the name must end in .safetensors or .onnx')
    if int8 and target.suffix == '.onnx':
        raise WeightsError(f'{target}: --int8 is for .safetensors')
    card = replace(weights.card, output_stride=output_stride or weights.card.output_stride)
    model = build(card)
    try:
        load_state(model, weights.state)
    except ValueError as error:
        raise WeightsError(f'{weights.path}: {error}') from None
    if target.suffix == '.onnx':
        write_beside(target, lambda temporary: _write_onnx(model, card.to_json(), temporary))
    else:
        save_weights(target, model.state_dict(), card, int8)


def _write_onnx(model: nn.Module, card: str, file: Path) -> None:
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
    program.model.metadata_props['card'] = card
    program.save(file)


def data_settings(checkpoint: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of `DATA_SETTINGS`; what it does not say has its default."""
    settings = {'val_fraction': TrainingConfig.val_fraction, 'mask_values': MASK_VALUES}
    if checkpoint.suffix == '.ckpt':
        try:
            kept = torch.load(checkpoint, map_location='cpu', weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError):  # of another making, such as a legacy file
            kept = {}
        settings.update({name: kept[name] for name in DATA_SETTINGS if name in kept})
    return settings


def measured(
    weights: Weights,
    target: Path,
    data: Path,
    val_fraction: float,
    mask_values: dict[int, int],
    **how: int,
) -> Weights:
    """Returns the weights with figures in their card, measured on the file that they become.

    Args:
        weights: As for `export`.
        target: Tells the kind of file.
        data: A data set; its val split is measured on.
        val_fraction: Of the training, as for `find_samples`.
        mask_values: As for `evaluate`.
        how: `int8` and `output_stride` of `export`.

    Raises:
        DataError, WeightsError: As for `evaluate` and `export`.
    """
    samples = find_samples(data, 'val', val_fraction)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / target.name
        export(weights, trial, bool(how['int8']), how['output_stride'])
        figures = evaluate(Segmenter(load_weights(trial)), samples, mask_values)
    named = {f'{data.resolve().name}_val_{n}': v for n, v in figures.items() if n != 'images'}
    return replace(weights, card=replace(weights.card, metrics=weights.card.metrics | named))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.export', description=__doc__)
    parser.add_argument('--checkpoint', required=True, help='RUN/checkpoints/last.ckpt')
    parser.add_argument('-o', '--output', required=True, type=Path, help='.safetensors or .onnx')
    parser.add_argument('--int8', action='store_true', help='weight-only int8 (.safetensors)')
    parser.add_argument('--output-stride', type=int, default=0, help='8 or 16; 0 = as trained')
    parser.add_argument(
        '--data', type=Path, help="measure on this data set's val split, figures into the card"
    )
    parser.add_argument(
        '--mask-values',
        type=read_mask_values,
        help="{grey: class id, ...} (default: the training's)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    try:
        weights = load_weights(given.checkpoint)
        how = {'int8': given.int8, 'output_stride': given.output_stride}
        if given.data:
            settings = data_settings(weights.path)
            if given.mask_values is not None:
                settings['mask_values'] = given.mask_values
            weights = measured(weights, given.output, given.data, **settings, **how)
        export(weights, given.output, **how)
    except (DataError, WeightsError, ValueError, OSError) as error:
        print(f'training.export: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for name, value in weights.card.metrics.items():
        print(f'{name} {value:.4f}')
    print(f'{given.output}: written, {given.output.stat().st_size / 1e6:.1f} MB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
