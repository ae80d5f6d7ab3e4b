# SPDX-License-Identifier: Apache-2.0
"""Presets: how much accuracy is given for speed, as one word."""

from __future__ import annotations

import torch

from rock_seg_ros.perception.card import Card

PRESETS = ('auto', 'exact', 'balanced', 'fast')
OUTPUT_STRIDE_OF = {'exact': 8, 'balanced': 16, 'fast': 16}


def resolve_preset(
    preset: str, device: torch.device, card: Card, precision: str = 'auto', output_stride: int = 0
) -> tuple[str, int]:
    """Turns a preset into a precision and an output stride; what is given beside it wins.

    For networks that are built from a state dict; an ONNX file has both fixed by its export.

    Args:
        preset: 'auto' (output stride as trained; fp16 on CUDA, else fp32), 'exact' (8; fp32),
            'balanced' (16; fp16 on CUDA, else fp32) or 'fast' (16; fp16 on CUDA, else int8).
        device: Where the network will run.
        card: Of the weights; int8 needs the activation ranges in it.
        precision: 'auto' takes the preset's; 'fp32', 'fp16', 'bf16' or 'int8' wins over it.
        output_stride: 0 takes the preset's; 8 or 16 wins over it.

    Returns:
        Precision, none of them 'auto', and output stride, 8 or 16.

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
    if precision == 'int8' and not card.activation_ranges:
        raise ValueError(
            f'{asked} means int8, and these weights are not calibrated for it:'
            " use preset 'balanced', or training.export --calibrate"
        )
    return precision, output_stride or OUTPUT_STRIDE_OF.get(preset, card.output_stride)
