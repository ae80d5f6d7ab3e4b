# SPDX-License-Identifier: Apache-2.0
"""Presets: how much accuracy is given for speed, as one word."""

from __future__ import annotations

import torch

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import NETWORKS

PRESETS = ('auto', 'exact', 'balanced', 'fast')


def preset_stride(preset: str, metadata: ModelMetadata) -> int:
    """Returns a preset's output stride: 'exact' the network's finest, 'auto' as trained."""
    strides = NETWORKS[metadata.architecture].output_strides
    return {'exact': strides[0], 'auto': metadata.output_stride}.get(preset, strides[-1])


def resolve_preset(
    preset: str,
    device: torch.device,
    metadata: ModelMetadata,
    precision: str = 'auto',
    output_stride: int = 0,
) -> tuple[str, int]:
    """Turns a preset into a precision and an output stride; what is given beside it wins.

    For networks that are built from a state dict; an ONNX file has both fixed by its export.

    Args:
        preset: 'auto' (output stride as trained; fp16 on CUDA, else fp32), 'exact' (the finest;
            fp32, on CUDA without TF32), 'balanced' (the coarsest; fp16 on CUDA, else fp32) or
            'fast' (the coarsest; int8 on the CPU, on CUDA the same as 'balanced'). ResNet-50 has 8
            and 16, EfficientNet-Lite only 32.
        device: Where the network will run.
        metadata: Of the weights; int8 needs the activation ranges in it.
        precision: 'auto' takes the preset's; 'fp32', 'fp16', 'bf16' or 'int8' wins over it.
        output_stride: 0 takes the preset's; another wins over it.

    Returns:
        Precision, none of them 'auto', and output stride.

    Raises:
        ValueError: There is no such preset, or int8 is asked for where it cannot be.
    """
    if preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)}, not {preset!r}')
    on_cuda = device.type == 'cuda'
    asked = f'precision {precision!r}'
    if precision == 'auto':
        asked = f'preset {preset!r}'
        on_cpu = 'int8' if preset == 'fast' else 'fp32'
        precision = 'fp32' if preset == 'exact' else 'fp16' if on_cuda else on_cpu
    if precision == 'int8' and on_cuda:
        raise ValueError(f"{asked} is for the CPU, not {str(device)!r}; on CUDA use 'fp16'")
    if precision == 'int8' and not metadata.activation_ranges:
        raise ValueError(
            f'{asked} means int8, and these weights are not calibrated for it:'
            " use preset 'balanced', or training.export --calibrate"
        )
    return precision, output_stride or preset_stride(preset, metadata)
