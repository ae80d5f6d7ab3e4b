# SPDX-License-Identifier: Apache-2.0
"""Rounds weights to int8 so that the outputs of the layers change least on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.weights_file import (
    INT8_STEPS,
    Weights,
    WeightsError,
    int8_scale,
    stored_as_int8,
)
from training.calibration import run_network
from training.datasets import Sample

PATCHES = 1024  # of each image, per convolution
MAX_INPUTS = 4608  # larger convolutions are rounded to nearest: their products need gigabytes
DAMPING = 0.01  # share of the mean of the diagonal, added to it (as in GPTQ)
BLOCK = 128  # columns whose errors are passed on together, for speed


def round_to_int8(weights: Weights, samples: Sequence[Sample]) -> Weights:
    """Rounds the weights that a file stores as int8 to the numbers that it can store.

    GPTQ (Frantar et al. 2022, arXiv:2210.17323): the numbers of an output channel are rounded one
    after the other, and the error of each is made up for by those that are not rounded yet, as far
    as their inputs go together on the images.

    Args:
        weights: Weights of a checkpoint or a safetensors file, not of an ONNX file.
        samples: Images like those that the network will process; their labels are not read.

    Returns:
        The weights; `save_weights` stores those of the rounded layers without a further error.

    Raises:
        DataError: There is no image, or an image cannot be read.
        ValueError: The weights do not match the network.
        WeightsError: The network computes NaN or infinity.
    """
    model = restore(weights.metadata, weights.state, weights.metadata.output_stride)
    generator = torch.Generator().manual_seed(0)
    products: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.weight[0].numel() <= MAX_INPUTS
            and stored_as_int8(module.weight)
        ):
            module.register_forward_pre_hook(_recorder(f'{name}.weight', products, generator))
    run_network(model, weights, samples, 'rounding')
    for name, product in products.items():
        if not product.isfinite().all():
            raise WeightsError(
                f'{weights.path}: the input of {name} is NaN or infinite on the images'
            )
    rounded = {name: round_convolution(weights.state[name], products[name]) for name in products}
    return replace(weights, state={**weights.state, **rounded})


def _recorder(
    name: str, products: dict[str, Tensor], generator: torch.Generator
) -> Callable[[nn.Conv2d, tuple[Tensor, ...]], None]:
    def record(convolution: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        patches = _patches(convolution, inputs[0], generator)
        products[name] = products.get(name, 0) + patches.T @ patches

    return record


def _patches(convolution: nn.Conv2d, features: Tensor, generator: torch.Generator) -> Tensor:
    """Returns PATCHES×inputs, what the convolution reads at random places of the first image."""
    assert not isinstance(convolution.padding, str)
    (pad_y, pad_x), size = convolution.padding, features.shape[-2:]
    padded = functional.pad(features[0], (pad_x, pad_x, pad_y, pad_y))
    indices = []
    for axis in range(2):
        step, width = convolution.stride[axis], convolution.kernel_size[axis]
        offsets = torch.arange(width) * convolution.dilation[axis]
        room = size[axis] + 2 * convolution.padding[axis] - int(offsets[-1])
        starts = torch.randint(0, (room - 1) // step + 1, (PATCHES,), generator=generator) * step
        indices.append(starts[:, None] + offsets)
    found = padded[:, indices[0][:, :, None], indices[1][:, None, :]]
    return found.transpose(0, 1).flatten(1)


def round_convolution(weight: Tensor, products: Tensor) -> Tensor:
    """Rounds the weights of a convolution as `round_to_int8` does.

    Args:
        weight: Output channels first.
        products: inputs×inputs, the sum of the products of each two inputs of the convolution.

    Returns:
        Float32 weights, multiples of the `int8_scale` of their channel.
    """
    exact = weight.float().flatten(1)
    scale = int8_scale(exact)
    # The largest number of a channel keeps its value, because the stored scale is derived from it.
    kept = exact.abs() == exact.abs().amax(dim=1, keepdim=True)
    damped = products.double()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean() + 1e-12)
    order = damped.diagonal().argsort(descending=True)
    inverse = torch.linalg.inv(damped[order][:, order])
    passed_on = torch.linalg.cholesky(inverse, upper=True).float()
    exact, kept = exact[:, order], kept[:, order]
    wanted, rounded = exact.clone(), torch.empty_like(exact)
    for start in range(0, exact.shape[1], BLOCK):
        end = min(start + BLOCK, exact.shape[1])
        errors = torch.zeros(len(exact), end - start)
        for i in range(start, end):
            steps = (wanted[:, i] / scale).round().clamp(-INT8_STEPS, INT8_STEPS)
            rounded[:, i] = torch.where(kept[:, i], exact[:, i], steps * scale)
            error = (wanted[:, i] - rounded[:, i]) / passed_on[i, i]
            wanted[:, i + 1 : end] -= error[:, None] * passed_on[i, i + 1 : end]
            errors[:, i - start] = error
        wanted[:, end:] -= errors @ passed_on[start:end, end:]
    return rounded[:, order.argsort()].view_as(weight)
