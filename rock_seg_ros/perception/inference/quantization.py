# SPDX-License-Identifier: Apache-2.0
"""int8 quantization of the torch network, as fake quantization that OpenVINO compiles to int8.

Weights are quantized symmetrically with one scale per output channel, activations with one scale
per tensor, from ranges measured on images (Krishnamoorthi 2018, arXiv:1806.08342).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.weights_file import INT8_STEPS, int8_scale

ACTIVATION_STEPS = 255  # unsigned 8 bit


def quantized_inputs(model: DeepLabV3) -> dict[str, list[nn.Conv2d]]:
    """Returns the inputs that are quantized: all except in the exact parts and the last layer.

    Returns:
        Name of a module whose input is quantized → the convolutions that read it. The input of a
        residual block is also quantized for its shortcut, so that it is stored in 8 bits.
    """
    found = model.shared_inputs()
    excluded: set[nn.Module] = {list(model.classifier.modules())[-1]}
    for readers in found.values():
        excluded.update(readers)
    for part in model.exact_parts():
        excluded.update(part.modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module not in excluded:
            found[name] = [module]
    return found


def quantize(model: DeepLabV3, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Quantizes a network in place.

    Args:
        model: The network, in evaluation mode.
        ranges: Minimum and maximum of each of the `quantized_inputs`, by name.

    Raises:
        ValueError: The names are not those of this network.
    """
    inputs = quantized_inputs(model)
    differing = sorted(inputs.keys() ^ ranges.keys())
    if differing:
        raise ValueError(
            f'its activation_ranges do not fit the network at {differing[0]}'
            f' ({len(differing)} differences); calibrate it again with'
            ' training.export --calibrate'
        )
    for name, convolutions in inputs.items():
        model.get_submodule(name).register_forward_pre_hook(InputRounding(*ranges[name]))
        for convolution in convolutions:
            rounding = _WeightRounding(convolution.weight)
            parametrize.register_parametrization(convolution, 'weight', rounding)


class InputRounding:
    """Rounds the input of a module to 8 bits, as its forward pre-hook."""

    def __init__(self, low: float, high: float) -> None:
        """Computes scale and zero point; the value 0 is represented exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale = (high - low) / ACTIVATION_STEPS
        self.zero = round(-low / self.scale)

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns the inputs of the module, the first of them rounded."""
        return (self.rounded(inputs[0]), *inputs[1:])

    def rounded(self, values: Tensor) -> Tensor:
        """Returns float32 values, rounded to 8 bits and limited to the range."""
        return torch.fake_quantize_per_tensor_affine(
            values, self.scale, self.zero, 0, ACTIVATION_STEPS
        )


class _WeightRounding(nn.Module):
    scale: Tensor
    zero: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale = torch.maximum(int8_scale(weight.detach()), _scale_of_pairs(weight.detach()))
        self.register_buffer('scale', scale)
        self.register_buffer('zero', torch.zeros(len(weight), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(
            weight, self.scale, self.zero, 0, -INT8_STEPS, INT8_STEPS
        )


def _scale_of_pairs(weight: Tensor) -> Tensor:
    """Returns the smallest step of each output channel with which no 16-bit sum overflows.

    A CPU without VNNI adds the products of each two neighbouring input channels in 16 bits, where
    larger sums are cut off. Activations are at most 255, so two weights are at most 128 together.
    """
    even = weight.shape[1] // 2 * 2
    sums = weight[:, 0:even:2] + weight[:, 1:even:2]
    return sums.abs().flatten(1).amax(dim=1) / INT8_STEPS if even else torch.zeros(len(weight))
