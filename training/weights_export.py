# SPDX-License-Identifier: Apache-2.0
"""Writes a weights file, and checks that its results are those of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rock_seg_ros.perception.inference.backends.onnx_backend import INPUT, OUTPUT
from rock_seg_ros.perception.inference.folding import fold_batch_norm
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build, load_state
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import (
    Weights,
    WeightsError,
    atomic_write,
    load_weights,
    save_weights,
)
from training.datasets import Sample
from training.evaluation import Result, evaluate

ONNX_OPSET = 18
MAX_PIXEL_CHANGE = 0.001  # share of mask pixels that may differ from the checkpoint
MAX_IOU_LOSS_STORED = (
    0.002  # int8 weights: loss of rock IoU per source, compared with the checkpoint
)
MAX_IOU_LOSS = 0.01  # int8 computation: loss of rock IoU per source, compared with fp32
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
METRICS_WITHOUT_ROCK = ('false_rock', 'false_rock_on_empty', 'ece')  # IoU and others say nothing
ROCK_METRICS = ('precision', 'recall', 'mean_iou')


class LogitsOnly(nn.Module):
    """A network that returns the logits as a tensor, as an ONNX graph needs."""

    def __init__(self, model: nn.Module) -> None:
        """Wraps the network."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalized RGB to N×channels×H×W logits."""
        return self.model(images)['out']


def export(
    weights: Weights,
    target: Path,
    samples: Sequence[Sample],
    int8: bool = False,
    output_stride: int = 0,
    device: str = 'auto',
    measure: bool = False,
    rounded: Weights | None = None,
) -> ModelMetadata:
    """Writes a weights file without the auxiliary head; the target appears only after the check.

    The check compares the results of the file and of the original weights, both with the inference
    code of the node in fp32.

    Args:
        weights: Weights of a checkpoint, usually the averaged ones.
        target: `.safetensors` (fp16, or weight-only int8) or `.onnx` (fp32, any size and batch).
        samples: Images for the check; empty = no check. int8 needs labelled images.
        int8: Whether the weights are stored as int8; `.safetensors` only.
        output_stride: Output stride of the file, 8 or 16; 0 = as trained.
        device: Device of the check: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        measure: Whether the metrics of the file on the samples are added to the metadata.
        rounded: The same weights after `round_to_int8`, which the file stores; without them, int8
            is rounded to nearest.

    Returns:
        The metadata of the file, whose metrics include the results of the check.

    Raises:
        DataError: An image for the check cannot be read.
        DeviceError: The device is not available.
        WeightsError: The weights do not match the network, the target or an option is invalid, or
            the results of the file differ too much from those of the checkpoint.
    """
    if target.suffix not in ('.safetensors', '.onnx'):
        raise WeightsError(f'{target}: the name must end in .safetensors or .onnx')
    if int8 and target.suffix == '.onnx':
        raise WeightsError(f'{target}: --int8 is for .safetensors')
    metadata = replace(
        weights.metadata, output_stride=output_stride or weights.metadata.output_stride
    )
    model = build(metadata)
    try:
        load_state(model, (rounded or weights).state, NETWORKS[metadata.architecture].title)
    except ValueError as error:
        raise WeightsError(f'{weights.path}: {error}') from None
    write = _onnx_writer(model) if target.suffix == '.onnx' else _safetensors_writer(model, int8)
    if not samples:
        atomic_write(target, lambda temporary: write(temporary, metadata))
        return metadata
    original = _run(replace(weights, metadata=metadata), samples, device)

    def write_and_check(temporary: Path) -> None:
        nonlocal metadata
        write(temporary, metadata)
        exported = _run(load_weights(temporary), samples, device)
        metadata = replace(
            metadata, metrics=metadata.metrics | compare(target, exported, original, int8)
        )
        if measure:
            metadata = replace(metadata, metrics=metadata.metrics | figures_of(exported))
        if metadata.activation_ranges and target.suffix != '.onnx':
            int8_results = _run(load_weights(temporary), samples, 'cpu', 'int8')
            metrics = compare_int8(target, int8_results, exported)
            metadata = replace(metadata, metrics=metadata.metrics | metrics)
        write(temporary, metadata)

    atomic_write(target, write_and_check)
    return metadata


def _safetensors_writer(model: nn.Module, int8: bool) -> Callable[[Path, ModelMetadata], None]:
    return lambda file, metadata: save_weights(file, model.state_dict(), metadata, int8)


def _onnx_writer(model: nn.Module) -> Callable[[Path, ModelMetadata], None]:
    fold_batch_norm(model.eval())  # takes a quarter off the time of the export
    size = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        LogitsOnly(model).eval(),
        (torch.zeros(2, 3, 97, 129),),  # sizes without a common factor stay dynamic
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=ONNX_OPSET,
        dynamic_shapes=({0: size, 2: size, 3: size},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None

    def write(file: Path, metadata: ModelMetadata) -> None:
        program.model.metadata_props['card'] = metadata.to_json()
        program.save(file)

    return write


def _run(
    weights: Weights, samples: Sequence[Sample], device: str, precision: str = 'fp32'
) -> dict[str, Result]:
    """Evaluates weights on each source of the samples."""
    # For a few images, loading OpenVINO takes longer than it saves.
    backend = 'torch' if precision == 'fp32' and not weights.is_onnx else 'auto'
    segmenter = Segmenter(weights, device, precision, backend)
    by_source: dict[str, list[Sample]] = {}
    for sample in samples:
        by_source.setdefault(sample.source, []).append(sample)
    return {source: evaluate(segmenter, group, name=source) for source, group in by_source.items()}


def compare(
    target: Path, exported: dict[str, Result], original: dict[str, Result], int8: bool
) -> dict[str, float]:
    """Compares the results of a file and of its checkpoint by source.

    Args:
        target: The file, which errors name.
        exported: Results of the file.
        original: Results of the checkpoint on the same images.
        int8: Whether the loss of rock IoU is limited instead of the share of changed pixels.

    Returns:
        export_pixels_differ: Share of the mask pixels that differ, 0 to 1.
        export_iou_change: Largest change of rock IoU over the sources with labelled rock; missing
            if there is none.

    Raises:
        WeightsError: The results differ too much, or int8 has no labelled rock to compare.
    """
    pairs = [(exported[source], original[source]) for source in exported]
    masks = [
        (one.mask, other.mask)
        for ours, theirs in pairs
        for one, other in zip(ours.images, theirs.images, strict=True)
    ]
    differing = sum(np.count_nonzero(one != other) for one, other in masks)
    share = differing / sum(one.size for one, _ in masks)
    losses = {
        source: theirs.figures['iou'] - ours.figures['iou']
        for source, (ours, theirs) in zip(exported, pairs, strict=True)
        if ours.counts.pixels[:, 1].any()
    }
    if int8 and not losses:
        raise WeightsError(f'{target}: the check of int8 needs IoU, but no image has labelled rock')
    if int8 and max(losses.values()) > MAX_IOU_LOSS_STORED:
        source = max(losses, key=lambda name: losses[name])
        raise WeightsError(
            f'{target}: rejected, because its IoU on {source} is {100 * losses[source]:.2f} points'
            f' below that of the checkpoint; the limit is {100 * MAX_IOU_LOSS_STORED:.1f}'
        )
    if not int8 and share > MAX_PIXEL_CHANGE:
        raise WeightsError(
            f'{target}: rejected, because {share:.2%} of its mask pixels differ from the checkpoint'
            f' on {len(masks)} images; the limit is {MAX_PIXEL_CHANGE:.1%}'
        )
    change = {'export_iou_change': max(map(abs, losses.values()))} if losses else {}
    return {'export_pixels_differ': share, **change}


def compare_int8(
    target: Path, int8: dict[str, Result], fp32: dict[str, Result]
) -> dict[str, float]:
    """Compares the results of a file in int8 and in fp32 by source.

    Args:
        target: The file, which errors name.
        int8: Results in int8.
        fp32: Results in fp32 on the same images.

    Returns:
        int8_iou_lost: Largest loss of rock IoU over the sources with labelled rock, negative if
            there is only gain; missing if there is no labelled rock.

    Raises:
        WeightsError: The loss of a source is too large.
    """
    lost = [
        fp32[source].figures['iou'] - int8[source].figures['iou']
        for source in fp32
        if fp32[source].counts.pixels[:, 1].any()
    ]
    if lost and max(lost) > MAX_IOU_LOSS:
        raise WeightsError(
            f'{target}: rejected, because int8 loses {100 * max(lost):.2f} points of IoU; the limit'
            f' is {100 * MAX_IOU_LOSS:.1f}; calibrate with more images'
        )
    return {'int8_iou_lost': max(lost)} if lost else {}


def figures_of(results: dict[str, Result]) -> dict[str, float]:
    """Returns the main metrics of each source for the metadata, such as 'NAME_val_iou'.

    A source without labelled rock has only metrics of false rock and of calibration.

    Args:
        results: Path of a source → result on its val split.
    """
    metrics: dict[str, float | None] = {}
    for source, result in results.items():
        path = Path(source).resolve()
        name = f'{path.stem if path.is_file() else path.name}_val'
        found = result.figures
        has_rock = found['recall'] is not None
        names = METRICS if has_rock else METRICS_WITHOUT_ROCK
        metrics |= {f'{name}_{metric}': found[metric] for metric in names}
        if has_rock:
            metrics |= {f'{name}_rocks_{metric}': found['rocks'][metric] for metric in ROCK_METRICS}
    return {name: v for name, v in metrics.items() if v is not None and isfinite(v)}
