# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3 on EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946), for CPUs."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPP
from typing_extensions import override

from rock_seg_ros.perception.networks.base import (
    DeepLabV3,
    Network,
    atrous_rates,
    resize_scores,
    scale_to,
)

OUTPUT_STRIDE = 32
STRIDES = ('4', '8', '16')  # of the skips
WIDTH = 128
STAGE_ENDS = (1, 2, 4)  # the blocks whose results have strides 4, 8 and 16
BATCH_NORM_EPSILON = 1e-3  # of the pretrained weights


class Refinement(nn.Module):
    """Joins coarse features with the skip of a finer stride, and refines them."""

    def __init__(self, skip_channels: int, width: int) -> None:
        """Builds it for a skip of so many channels."""
        super().__init__()
        self.lateral = _convolution(skip_channels, width, 1)
        self.refine = nn.Sequential(
            *_convolution(width, width, 3, groups=width), nn.ReLU(inplace=True),
            *_convolution(width, width, 1), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Maps N×width×h×w, of the skip's size, and N×skip_channels×h×w to N×width×h×w."""
        return self.refine(functional.relu(coarse + self.lateral(skip)))


class PyramidDecoder(nn.Module):
    """ASPP joined with the features of strides 16, 8 and 4, one after the other."""

    def __init__(self, classes: int, skip_channels: list[int], deep_channels: int) -> None:
        """Builds the decoder.

        Args:
            classes: Channels of the result.
            skip_channels: Of the features at strides 4, 8 and 16.
            deep_channels: Of the last stage.
        """
        super().__init__()
        self.aspp = ASPP(deep_channels, list(atrous_rates(OUTPUT_STRIDE)), WIDTH)
        by_stride = dict(zip(STRIDES, skip_channels, strict=True))
        self.join = nn.ModuleDict(
            {stride: Refinement(by_stride[stride], WIDTH) for stride in reversed(STRIDES)}
        )
        self.score = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, context: Tensor, skips: list[Tensor]) -> Tensor:
        """Maps N×128×h×w of the ASPP and the skips at strides 4, 8, 16 to N×classes×H/4×W/4."""
        for refinement, skip in zip(self.join.values(), reversed(skips), strict=True):
            context = refinement(scale_to(context, skip), skip)
        return self.score(context)


class DeepLabV3EfficientNetLite(DeepLabV3):
    """DeepLabV3 with an ASPP on stride 32 and skips at strides 16, 8 and 4.

    The backbone is timm's, with symmetric padding, so that tiles of an image see what the whole
    image does.
    """

    backbone: Any  # timm's network, which has no types
    context_channels = WIDTH
    decoder = 'skip'
    aux_classifier = None

    def __init__(
        self,
        size: int,
        channels: int = 2,
        decoder: str = 'skip',
        output_stride: int = OUTPUT_STRIDE,
        aux: bool = False,
    ) -> None:
        """Builds the network with random weights.

        Args:
            size: 0 to 2, for Lite0 to Lite2.
            channels: Score channels: one a class, or one for a sigmoid.
            decoder: 'skip'.
            output_stride: 32.
            aux: Has no effect: there is no auxiliary head.
        """
        super().__init__()
        import timm  # takes a second, which a ResNet-50 need not wait for

        self.backbone = timm.create_model(
            f'efficientnet_lite{size}', features_only=True, bn_eps=BATCH_NORM_EPSILON
        )
        _, *skips, self.deep_channels = self.backbone.feature_info.channels()
        self.classifier = PyramidDecoder(channels, skips, self.deep_channels)

    @override
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        _, *skips, deep = self.backbone(images)
        scores = self.classifier(self.context(deep), skips)
        return {'out': resize_scores(scores, images.shape[-2:])}

    @override
    def deep(self, images: Tensor) -> Tensor:
        return self.backbone(images)[-1]

    @override
    def context(self, deep: Tensor) -> Tensor:
        return self.classifier.aspp(deep)

    @override
    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        maps = self.backbone.bn1(self.backbone.conv_stem(images))
        skips = []
        for number, stage in enumerate(self.backbone.blocks[: STAGE_ENDS[-1] + 1]):
            maps = stage(maps)
            if number in STAGE_ENDS:
                skips.append(maps)
        return self.classifier(context, skips)

    @override
    def shared_inputs(self) -> dict[str, list[nn.Conv2d]]:
        found = super().shared_inputs()
        for name, module in self.backbone.named_modules(prefix='backbone'):
            if hasattr(module, 'conv_pwl'):  # an inverted residual block, whose input is added
                found[name] = [module.conv_pw]
        return found


def _convolution(into: int, out: int, side: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, side, padding=side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    )


NETWORKS = tuple(
    Network(
        backbone=f'efficientnet_lite{size}',
        title=f'DeepLabV3-EfficientNet-Lite{size}',
        make=partial(DeepLabV3EfficientNetLite, size),
        decoders=('skip',),
        output_strides=(OUTPUT_STRIDE,),
        context_cell=16,
        pretrained='imagenet',
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    for size in range(3)
)
