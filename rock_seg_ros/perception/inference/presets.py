# SPDX-License-Identifier: Apache-2.0
"""Presets: named choices of output stride and precision, from accurate to fast."""

from __future__ import annotations

import torch

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import NETWORKS

PRESETS = ('auto', 'exact', 'balanced', 'fast')


def preset_stride(preset: str, metadata: ModelMetadata) -> int:
    """Returns the output stride of a preset: 'exact' the finest, 'auto' that of the training."""
    strides = NETWORKS[metadata.architecture].output_strides
    return {'exact': strides[0], 'auto': metadata.output_stride}.get(preset, strides[-1])


def resolve_preset(
    preset: str,
    device: torch.device,
    metadata: ModelMetadata,
    precision: str = 'auto',
    output_stride: int = 0,
    int8_backend: bool = False,
) -> tuple[str, int]:
    """Returns the precision and the output stride of a preset, unless they are given.

    It is for networks that are built from a state dict. An ONNX file has a fixed precision and
    output stride.

    Args:
        preset: 'auto' (output stride of the training; fp16 on CUDA, int8 on the CPU where weights
            and backend support it, else fp32), 'exact' (finest output stride; fp32, on CUDA without
            TF32), 'balanced' (coarsest output stride; fp16 on CUDA, else fp32) or 'fast' (coarsest
            output stride; int8 on the CPU, fp16 on CUDA). ResNet-50 has the output strides 8 and
            16, EfficientNet-Lite has only 32.
        device: The device of the network.
        metadata: The metadata of the weights; int8 needs its activation ranges.
        precision: 'fp32', 'fp16', 'bf16' or 'int8'; 'auto' = that of the preset.
        output_stride: An output stride of the network; 0 = that of the preset.
        int8_backend: Whether the backend supports int8, which 'auto' then prefers on the CPU.

    Returns:
        The precision, which is not 'auto', and the output stride.

    Raises:
        ValueError: There is no such preset, or int8 is not available on the device or for the
            weights.
    """
    if preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)}, not {preset!r}')
    on_cuda = device.type == 'cuda'
    choice = f'precision {precision!r}'
    if precision == 'auto':
        choice = f'preset {preset!r}'
        auto_int8 = preset == 'auto' and int8_backend and bool(metadata.activation_ranges)
        on_cpu = 'int8' if preset == 'fast' or auto_int8 else 'fp32'
        precision = 'fp32' if preset == 'exact' else 'fp16' if on_cuda else on_cpu
    if precision == 'int8' and on_cuda:
        raise ValueError(f"{choice} needs the CPU, not {str(device)!r}; on CUDA use 'fp16'")
    if precision == 'int8' and not metadata.activation_ranges:
        raise ValueError(
            f'{choice} needs weights that are calibrated for int8: use preset'
            " 'balanced', or training.export --calibrate"
        )
    return precision, output_stride or preset_stride(preset, metadata)
