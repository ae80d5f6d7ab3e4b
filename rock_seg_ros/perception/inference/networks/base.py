# SPDX-License-Identifier: Apache-2.0
"""What every network has: DeepLabV3 (Chen et al. 2017, arXiv:1706.05587) on some backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import ASPP, ASPPPooling

ATROUS_RATES_AT_STRIDE_8 = (12, 24, 36)


def atrous_rates(output_stride: int) -> tuple[int, ...]:
    """Returns the dilations of the ASPP's branches, in cells, that see as far at any stride."""
    return tuple(rate * 8 // output_stride for rate in ATROUS_RATES_AT_STRIDE_8)


class DeepLabV3(nn.Module, ABC):
    """Any H×W image in, class scores (logits) at the same H×W out.

    The ASPP sees far and pools over the whole image; the rest sees only nearby pixels. So a large
    image can be worked on in tiles: `deep` and `decode` tile by tile, `context` at once.

    Attributes:
        decoder: 'skip' or 'none'.
        deep_channels: Channels of what `deep` gives.
        context_channels: Channels of what `context` gives, with a decoder.
        aux_classifier: Auxiliary head for training; None where there is none.
    """

    classifier: Any  # of another kind with each backbone
    decoder: str
    deep_channels: int
    context_channels: int
    aux_classifier: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Scores every pixel.

        Args:
            images: N×3×H×W normalised RGB, float.

        Returns:
            'out': N×channels×H×W scores (logits); with an auxiliary head and in training mode
            also 'aux', of the same shape.
        """

    @abstractmethod
    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×deep_channels×h×w: the backbone, as far as it sees little around."""

    @abstractmethod
    def context(self, deep: Tensor) -> Tensor:
        """Maps what `deep` gives of whole images to N×context_channels×h×w.

        Without a decoder it is the scores, N×channels×h×w, of that size.
        """

    @abstractmethod
    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their context, scaled to N×context_channels×H/4×W/4, to scores.

        Returns:
            N×channels×H/4×W/4.
        """

    def exact_parts(self) -> list[nn.Module]:
        """Returns the parts, besides the last scores, that lose too much in int8."""
        return [module for module in self.modules() if isinstance(module, ASPPPooling)]

    def shared_inputs(self) -> dict[str, list[nn.Conv2d]]:
        """Returns name of a module → the convolutions in it that read the module's own input.

        int8 rounds such an input once for all its readers.
        """
        return {
            name: [branch[0] for branch in module.convs if not isinstance(branch, ASPPPooling)]
            for name, module in self.named_modules()
            if isinstance(module, ASPP)
        }


@dataclass(frozen=True)
class Network:
    """A network that a card can name.

    Attributes:
        backbone: As a training's configuration names it.
        title: For people.
        make: Builds it with random weights, from channels, decoder, output stride and whether an
            auxiliary head is wanted.
        decoders: The legal ones; the first is the default.
        output_strides: The legal ones, the finest first. The weights fit all of them.
        pretrained: What a training starts from by default: a name of `training.pretrained`.
        mean: Per-channel RGB mean of the images that the backbone was pretrained on, 0 to 1.
        std: Per-channel RGB standard deviation of them.
    """

    backbone: str
    title: str
    make: Callable[[int, str, int, bool], DeepLabV3]
    decoders: tuple[str, ...]
    output_strides: tuple[int, ...]
    pretrained: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def architecture(self) -> str:
        """As a card names it."""
        return f'deeplabv3_{self.backbone}'


def resize_scores(scores: Tensor, size: Size) -> Tensor:
    """Scales N×channels×h×w scores bilinearly to a height and width."""
    # On several cores, few channels take several times as long in channels-last memory.
    return functional.interpolate(
        scores.contiguous(), size=size, mode='bilinear', align_corners=False
    )


def scale_to(maps: Tensor, like: Tensor) -> Tensor:
    """Scales N×C×h×w maps bilinearly to the height and width of others."""
    return functional.interpolate(maps, size=like.shape[-2:], mode='bilinear', align_corners=False)
