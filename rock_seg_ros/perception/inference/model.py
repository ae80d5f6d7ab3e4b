# SPDX-License-Identifier: Apache-2.0
"""Card and state dict → network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.networks import NETWORKS, DeepLabV3


def build(card: Card, output_stride: int = 0, aux: bool = False) -> DeepLabV3:
    """Builds the network that a card describes, with random weights.

    Args:
        card: The card.
        output_stride: One that the network has; 0 takes the card's.
        aux: Whether to add the auxiliary head, for training, where the network has one.

    Raises:
        ValueError: The network has no such output stride.
    """
    network = NETWORKS[card.architecture]
    if output_stride not in (0, *network.output_strides):
        legal = ' or '.join(map(str, (0, *network.output_strides)))
        raise ValueError(f'{network.title} has output_stride {legal}, not {output_stride}')
    return network.make(card.channels, card.decoder, output_stride or card.output_stride, aux)


def restore(card: Card, state: Mapping[str, Tensor], output_stride: int = 0) -> DeepLabV3:
    """Builds the network that a card describes, with its weights, on the CPU, for inference.

    Args:
        card: The card.
        state: Parameter name → tensor.
        output_stride: One that the network has; 0 takes the card's.

    Raises:
        ValueError: The state dict does not fit, or the network has no such output stride.
    """
    with torch.device('meta'):  # random values would cost a second
        model = build(card, output_stride)
    model = model.to_empty(device='cpu')
    load_state(model, state, NETWORKS[card.architecture].title)
    return model.eval()


def load_state(model: DeepLabV3, state: Mapping[str, Tensor], title: str) -> None:
    """Loads a state dict; an auxiliary head that only the state has is left out.

    Args:
        model: The network.
        state: Parameter name → tensor.
        title: Of the network, for the message.

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
        what = f'{missing[0]} is missing' if missing else f'{unknown[0]} is not part of it'
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
