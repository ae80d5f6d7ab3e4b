# SPDX-License-Identifier: Apache-2.0
"""The interface of the networks: DeepLabV3 (Chen et al. 2017, arXiv:1706.05587) on a backbone."""

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
    """Returns the dilations of the ASPP in cells; the receptive field is the same at any stride."""
    return tuple(rate * 8 // output_stride for rate in ATROUS_RATES_AT_STRIDE_8)


class DeepLabV3(nn.Module, ABC):
    """Computes the logits of the classes in the size of the image.

    The ASPP has a large receptive field and pools over the whole image; the other parts have a
    small one. Large images can therefore be processed in tiles: `deep` and `decode` run tile by
    tile, `context` on the whole image.

    Attributes:
        decoder: 'skip' or 'none'.
        deep_channels: Output channels of `deep`.
        context_channels: Output channels of `context` with a decoder.
        aux_classifier: Auxiliary head for training, or None.
    """

    classifier: Any  # its class depends on the backbone
    decoder: str
    deep_channels: int
    context_channels: int
    aux_classifier: nn.Module | None

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the logits of every pixel.

        Args:
            images: N×3×H×W normalised RGB, float.

        Returns:
            'out': N×channels×H×W logits. In training mode, a network with an auxiliary
            head also returns 'aux' of the same shape.
        """

    @abstractmethod
    def coarse_logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×channels×h×w logits, before they are scaled to the image's size."""

    @abstractmethod
    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×deep_channels×h×w, by the part with a small receptive field."""

    @abstractmethod
    def context(self, deep: Tensor) -> Tensor:
        """Maps the output of `deep` for whole images to N×context_channels×h×w.

        Without a decoder, it returns the logits, N×channels×h×w.
        """

    @abstractmethod
    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their context, scaled to N×context_channels×H/4×W/4, to logits.

        Returns:
            N×channels×H/4×W/4.
        """

    def exact_parts(self) -> list[nn.Module]:
        """Returns the parts that would lose too much accuracy in int8, without the last layer."""
        return [module for module in self.modules() if isinstance(module, ASPPPooling)]

    def shared_inputs(self) -> dict[str, list[nn.Conv2d]]:
        """Returns the name of a module → the convolutions in it that read the module's input.

        With int8, such an input is rounded once for all these convolutions.
        """
        return {
            name: [branch[0] for branch in module.convs if not isinstance(branch, ASPPPooling)]
            for name, module in self.named_modules()
            if isinstance(module, ASPP)
        }


@dataclass(frozen=True)
class Network:
    """A network with its options.

    Attributes:
        backbone: Name of the backbone, as in the configuration of a training.
        title: Name of the network in messages.
        make: Builds the network with random weights. Its arguments are the channels, the decoder,
            the output stride and whether an auxiliary head is added.
        decoders: The valid decoders; the first is the default.
        output_strides: The valid output strides, finest first. The weights fit all of them.
        pretrained: Default weights that a training starts from, a name of `training.pretrained`.
        mean: RGB mean of the images that the backbone was pretrained on, 0 to 1.
        std: RGB standard deviation of these images.
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
        """Name of the architecture, as in the metadata of weights."""
        return f'deeplabv3_{self.backbone}'


def resize_logits(logits: Tensor, size: Size) -> Tensor:
    """Scales N×channels×h×w logits bilinearly to a height and width."""
    # On several cores, few channels take several times longer in channels-last memory.
    return functional.interpolate(
        logits.contiguous(), size=size, mode='bilinear', align_corners=False
    )


def scale_to(maps: Tensor, like: Tensor) -> Tensor:
    """Scales N×C×h×w maps bilinearly to the height and width of the maps `like`."""
    return functional.interpolate(maps, size=like.shape[-2:], mode='bilinear', align_corners=False)
