# SPDX-License-Identifier: Apache-2.0
"""A pretrained ResNet-50 of half the width, widened to initialize DeepLabV3-ResNet50."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.preprocessing import normalize
from rock_seg_ros.perception.inference.weights_file import WeightsError

_CONV_OUTPUT = re.compile(r'bn_(?:stage(\d)_block(\d)_(\w+)|1)/')
_LAYERS = {
    'branch2a': ('conv1', 'bn1'),
    'branch2b': ('conv2', 'bn2'),
    'branch2c': ('conv3', 'bn3'),
    'proj_shortcut': ('downsample.0', 'downsample.1'),
}


def load_open_nsfw(model: DeepLabV3, metadata: ModelMetadata, file: Path, images: Tensor) -> None:
    """Copies the weights of Yahoo's Open NSFW model, widened, into the backbone of a ResNet-50.

    Open NSFW (https://github.com/yahoo/open_nsfw, BSD-2-Clause) is a ResNet-50 with half the
    channels, trained on ImageNet and then on other photographs. Each channel is doubled as in
    Net2WiderNet (Chen et al. 2016, arXiv:1511.05641), so that the wide network computes the same
    features. It is not exact: torchvision's network strides in the 3×3 convolutions of its blocks.

    Args:
        model: A network with the backbone 'resnet50'; its other parts keep their weights.
        metadata: Metadata of the network.
        file: The ONNX file of Open NSFW.
        images: N×3×H×W uint8 RGB training images, which give the statistics for batch
            normalization; those of the file are folded into its convolutions.

    Raises:
        WeightsError: The file has another network.
    """
    convolutions = narrow_convolutions(file)
    weight, bias = convolutions['conv1', 'bn1']
    std = torch.tensor(metadata.std).view(3, 1, 1) * 255
    convolutions['conv1', 'bn1'] = (weight.flip(1) * std, bias)  # its images are BGR, 0 to 255
    generator = torch.Generator().manual_seed(0)
    backbone = cast('nn.Module', model.backbone)
    with torch.no_grad():
        for (convolution, batch_norm), (weight, bias) in convolutions.items():
            wide = cast('nn.Conv2d', backbone.get_submodule(convolution))
            wide.weight.copy_(widen(weight, wide.out_channels, wide.in_channels, generator))
            norm = cast('nn.BatchNorm2d', backbone.get_submodule(batch_norm))
            norm.bias.copy_(bias.repeat(len(norm.bias) // len(bias)))
        add_batch_norm_statistics(backbone, normalize(images, metadata))


def narrow_convolutions(file: Path) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Reads the convolutions of Open NSFW.

    Returns:
        Names of a convolution and of its batch normalization in torchvision's ResNet-50 → weight,
        out×in×k×k, and bias; the batch normalization is folded into them.

    Raises:
        WeightsError: The file has another network.
    """
    graph = onnx.load(file).graph
    values = {
        each.name: torch.from_numpy(numpy_helper.to_array(each).copy())
        for each in graph.initializer
    }
    convolutions = {}
    for node in graph.node:
        if node.op_type == 'Conv':
            names = _torchvision_names(node.output[0])
            convolutions[names] = (values[node.input[1]], values[node.input[2]])
    return convolutions


def widen(weight: Tensor, outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    """Repeats the channels of a convolution, so that its outputs are the same, repeated.

    Args:
        weight: out×in×k×k.
        outputs: Number of output channels, out or twice out.
        inputs: Number of input channels, in or twice in; the second half equals the first.
        generator: Divides each weight at random among the two equal inputs; otherwise, equal
            channels would stay equal in training.

    Returns:
        outputs×inputs×k×k.
    """
    weight = weight.repeat(outputs // len(weight), 1, 1, 1)
    if inputs == weight.shape[1]:
        return weight
    share = torch.rand((*weight.shape[:2], 1, 1), generator=generator)
    return torch.cat([weight * share, weight * (1 - share)], dim=1)


def add_batch_norm_statistics(model: nn.Module, images: Tensor) -> None:
    """Sets the statistics of batch normalization to those of images.

    Args:
        model: A network. Its batch normalization adds its bias and does nothing else; it keeps
            doing so on these images, whatever its statistics and weights were.
        images: N×C×H×W, the normalized input.
    """

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def _torchvision_names(output: str) -> tuple[str, str]:
    match = _CONV_OUTPUT.match(output)
    if match is None:
        raise WeightsError(f'convolution {output!r} is not one of Open NSFW')
    stage, block, branch = match.groups()
    if stage is None:
        return 'conv1', 'bn1'
    convolution, batch_norm = _LAYERS[branch]
    prefix = f'layer{int(stage) + 1}.{block}'
    return f'{prefix}.{convolution}', f'{prefix}.{batch_norm}'
