# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3 on ResNet-50, with and without a skip decoder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from typing_extensions import override

from rock_seg_ros.perception.inference.networks.base import (
    DeepLabV3,
    Network,
    atrous_rates,
    resize_logits,
    scale_to,
)

STAGES = {'layer1': 'shallow', 'layer3': 'aux', 'layer4': 'deep'}


class SkipDecoder(nn.Module):
    """ASPP joined with stride-4 features, refined (after DeepLabV3+, arXiv:1802.02611)."""

    def __init__(self, classes: int, rates: tuple[int, ...], width: int = 128) -> None:
        """Builds the decoder.

        Args:
            classes: Output channels.
            rates: Dilations of the three ASPP branches, in cells of the input of the ASPP.
            width: Channels of the 3×3 convolutions; 128 needs 20 GFLOP at 640×480.
        """
        super().__init__()
        self.aspp = ASPP(2048, list(rates), 256)
        self.reduce = nn.Sequential(
            nn.Conv2d(256, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(inplace=True)
        )
        self.refine = nn.Sequential(
            nn.Conv2d(256 + 48, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            deep: N×2048×h×w, output of the last stage of the backbone.
            shallow: N×256×H/4×W/4, output of the first stage.

        Returns:
            N×classes×H/4×W/4 logits.
        """
        return self.join(scale_to(self.aspp(deep), shallow), shallow)

    def join(self, context: Tensor, shallow: Tensor) -> Tensor:
        """Maps the outputs of the ASPP and of the first stage, N×256×h×w, to N×classes×h×w."""
        joined = torch.cat([context, self.reduce(shallow)], dim=1)
        return self.score(self.refine(joined))


class DeepLabV3ResNet50(DeepLabV3):
    """DeepLabV3-ResNet50.

    With decoder 'none', the names and shapes of the parameters and the results are those of
    `torchvision.models.segmentation.deeplabv3_resnet50`.
    """

    deep_channels = 2048
    context_channels = 256

    def __init__(
        self, channels: int = 2, decoder: str = 'skip', output_stride: int = 8, aux: bool = False
    ) -> None:
        """Builds the network with random weights.

        Args:
            channels: Output channels: one per class, or a single one for a sigmoid.
            decoder: 'skip' (the ASPP is joined with stride-4 features) or 'none' (as torchvision).
            output_stride: 8 or 16. The weights fit both; only dilations and strides differ.
            aux: Whether an auxiliary head on the third stage is added, for training.
        """
        super().__init__()
        trunk = resnet50(
            weights=None, replace_stride_with_dilation=[False, output_stride == 8, True]
        )
        self.backbone = IntermediateLayerGetter(trunk, STAGES)
        rates = atrous_rates(output_stride)
        self.classifier = (
            SkipDecoder(channels, rates)
            if decoder == 'skip'
            else DeepLabHead(2048, channels, rates)
        )
        self.aux_classifier = FCNHead(1024, channels) if aux else None
        self.decoder = decoder

    @override
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = images.shape[-2:]
        features = self.backbone(images)
        result = {'out': resize_logits(self._logits(features), size)}
        if self.aux_classifier is not None and self.training:
            result['aux'] = resize_logits(self.aux_classifier(features['aux']), size)
        return result

    @override
    def coarse_logits(self, images: Tensor) -> Tensor:
        return self._logits(self.backbone(images))

    def _logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Maps the features of the backbone to N×channels×h×w logits."""
        if self.decoder == 'skip':
            return self.classifier(features['deep'], features['shallow'])
        return self.classifier(features['deep'])

    @override
    def deep(self, images: Tensor) -> Tensor:
        return self.backbone(images)['deep']

    @override
    def context(self, deep: Tensor) -> Tensor:
        return self.classifier.aspp(deep) if self.decoder == 'skip' else self.classifier(deep)

    @override
    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        shallow = images
        for _, layer in takewhile(lambda named: named[0] != 'layer2', self.backbone.items()):
            shallow = layer(shallow)
        return self.classifier.join(context, shallow)

    @override
    def shared_inputs(self) -> dict[str, list[nn.Conv2d]]:
        found = super().shared_inputs()
        for name, module in self.named_modules():
            if isinstance(module, Bottleneck):
                shortcut = [module.downsample[0]] if module.downsample else []
                found[name] = [module.conv1, *shortcut]
        return found


NETWORKS = (
    Network(
        backbone='resnet50',
        title='DeepLabV3-ResNet50',
        make=DeepLabV3ResNet50,
        decoders=('skip', 'none'),
        output_strides=(8, 16),
        pretrained='torchvision',
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
)
