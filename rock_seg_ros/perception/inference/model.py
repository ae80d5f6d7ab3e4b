# SPDX-License-Identifier: Apache-2.0
"""Building of a network from its metadata and weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import NETWORKS, DeepLabV3


def build(metadata: ModelMetadata, output_stride: int = 0, aux: bool = False) -> DeepLabV3:
    """Builds the network that the metadata describes, with random weights.

    Args:
        metadata: The metadata of the weights.
        output_stride: An output stride of the network; 0 = that of the metadata.
        aux: Whether the auxiliary head is added for training, if the network has one.

    Raises:
        ValueError: The network has no such output stride.
    """
    network = NETWORKS[metadata.architecture]
    if output_stride not in (0, *network.output_strides):
        valid = ' or '.join(map(str, (0, *network.output_strides)))
        raise ValueError(f'output_stride of {network.title} must be {valid}, not {output_stride}')
    return network.make(
        metadata.channels, metadata.decoder, output_stride or metadata.output_stride, aux
    )


def restore(
    metadata: ModelMetadata, state: Mapping[str, Tensor], output_stride: int = 0
) -> DeepLabV3:
    """Builds the network that the metadata describes, with its weights, on the CPU, for inference.

    Args:
        metadata: The metadata of the weights.
        state: Parameter name → tensor.
        output_stride: An output stride of the network; 0 = that of the metadata.

    Raises:
        ValueError: The state dict does not fit, or the network has no such output stride.
    """
    with torch.device('meta'):  # initializing random weights would take a second
        model = build(metadata, output_stride)
    model = model.to_empty(device='cpu')
    load_state(model, state, NETWORKS[metadata.architecture].title)
    return model.eval()


def load_state(model: DeepLabV3, state: Mapping[str, Tensor], title: str) -> None:
    """Loads a state dict. The auxiliary head is ignored if the network has none.

    Args:
        model: The network.
        state: Parameter name → tensor.
        title: Name of the network for the error message.

    Raises:
        ValueError: A tensor is missing, unknown, or of another shape; the message names it.
    """
    own = model.state_dict()
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name in own or not name.startswith('aux_classifier.')
    }
    for name in own:
        if name not in kept and name.endswith('num_batches_tracked'):
            kept[name] = own[name]
    missing = sorted(own.keys() - kept.keys())
    unknown = sorted(kept.keys() - own.keys())
    if missing or unknown:
        what = f'{missing[0]} is missing' if missing else f'{unknown[0]} is unknown'
        raise ValueError(
            f'the weights do not fit {title} with decoder {model.decoder!r}: {what}'
            f' ({len(missing)} missing, {len(unknown)} unknown)'
        )
    for name, tensor in kept.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f'the weights do not fit: {name} has shape {tuple(tensor.shape)},'
                f' not {tuple(own[name].shape)}'
            )
    model.load_state_dict(OrderedDict(kept))
