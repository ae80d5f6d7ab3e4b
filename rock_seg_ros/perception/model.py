# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3-ResNet50 (Chen et al. 2017, arXiv:1706.05587) with and without a skip decoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import ASPP, DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from rock_seg_ros.perception.card import DECODERS, OUTPUT_STRIDES, Card

ATROUS_RATES_AT_STRIDE_8 = (12, 24, 36)


class SkipDecoder(nn.Module):
    """ASPP joined with stride-4 features, refined (after DeepLabV3+, arXiv:1802.02611)."""

    def __init__(self, classes: int, atrous_rates: tuple[int, ...], width: int = 128) -> None:
        """Builds the decoder.

        Args:
            classes: Channels of the result.
            atrous_rates: Dilation of the three ASPP branches, in cells of the ASPP's input.
            width: Channels of the 3×3 refinement; 128 costs 20 GFLOP at 640×480.
        """
        super().__init__()
        self.aspp = ASPP(2048, list(atrous_rates), 256)
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
        """Joins both and scores.

        Args:
            deep: N×2048×h×w, the last stage of the backbone.
            shallow: N×256×H/4×W/4, the first stage.

        Returns:
            N×classes×H/4×W/4 scores.
        """
        context = functional.interpolate(
            self.aspp(deep), size=shallow.shape[-2:], mode='bilinear', align_corners=False
        )
        return self.join(context, shallow)

    def join(self, context: Tensor, shallow: Tensor) -> Tensor:
        """Maps N×256×h×w of the ASPP and of the first stage to N×classes×h×w scores."""
        joined = torch.cat([context, self.reduce(shallow)], dim=1)
        return self.score(self.refine(joined))


class DeepLabV3(nn.Module):
    """DeepLabV3-ResNet50: any H×W picture in, class scores at the same H×W out.

    With decoder 'none' the parameters' names, shapes and arithmetic are those of
    `torchvision.models.segmentation.deeplabv3_resnet50`.
    """

    def __init__(
        self, channels: int = 2, decoder: str = 'skip', output_stride: int = 8, aux: bool = False
    ) -> None:
        """Builds the network with random weights.

        Args:
            channels: Score channels: one a class, or one for a sigmoid.
            decoder: 'skip' (stride-4 features join the ASPP) or 'none' (torchvision's).
            output_stride: 8 or 16. The weights fit both: only dilations and strides differ.
            aux: Whether there is an auxiliary head on the third stage, for training.

        Raises:
            ValueError: decoder or output_stride is not among the legal values.
        """
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be 'skip' or 'none', not {decoder!r}")
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f'output_stride must be 8 or 16, not {output_stride!r}')
        rates = tuple(rate * 8 // output_stride for rate in ATROUS_RATES_AT_STRIDE_8)
        trunk = resnet50(
            weights=None, replace_stride_with_dilation=[False, output_stride == 8, True]
        )
        wanted = {'layer1': 'shallow', 'layer3': 'aux', 'layer4': 'deep'}
        self.backbone = IntermediateLayerGetter(trunk, wanted)
        self.classifier = (
            SkipDecoder(channels, rates)
            if decoder == 'skip'
            else DeepLabHead(2048, channels, rates)
        )
        self.aux_classifier = FCNHead(1024, channels) if aux else None
        self.decoder = decoder

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Scores every pixel.

        Args:
            pictures: N×3×H×W normalised RGB, float.

        Returns:
            'out': N×channels×H×W scores (logits); with an auxiliary head and in training mode
            also 'aux', of the same shape.
        """
        size = pictures.shape[-2:]
        features = self.backbone(pictures)
        if self.decoder == 'skip':
            scores = self.classifier(features['deep'], features['shallow'])
        else:
            scores = self.classifier(features['deep'])
        result = {'out': _resize(scores, size)}
        if self.aux_classifier is not None and self.training:
            result['aux'] = _resize(self.aux_classifier(features['aux']), size)
        return result

    def deep(self, pictures: Tensor) -> Tensor:
        """Maps N×3×H×W to N×2048×h×w of the last stage: the part that can be had tile by tile."""
        return self.backbone(pictures)['deep']

    def context(self, deep: Tensor) -> Tensor:
        """Maps what `deep` gives of whole pictures to N×256×h×w that know all of each.

        Without a decoder it is the scores, N×channels×h×w, of that size.
        """
        return self.classifier.aspp(deep) if self.decoder == 'skip' else self.classifier(deep)

    def decode(self, pictures: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their context, scaled to N×256×H/4×W/4, to scores of that size."""
        shallow = pictures
        for name, layer in self.backbone.items():
            shallow = layer(shallow)
            if name == 'layer1':
                break
        return self.classifier.join(context, shallow)


def _resize(scores: Tensor, size: torch.Size) -> Tensor:
    # On several cores, few channels take several times as long in channels-last memory.
    return functional.interpolate(
        scores.contiguous(), size=size, mode='bilinear', align_corners=False
    )


def build(card: Card, output_stride: int = 0, aux: bool = False) -> DeepLabV3:
    """Builds the network that a card describes, with random weights.

    Args:
        card: The card.
        output_stride: 8 or 16; 0 takes the card's.
        aux: Whether to add the auxiliary head, for training.
    """
    return DeepLabV3(card.channels, card.decoder, output_stride or card.output_stride, aux)


def restore(card: Card, state: Mapping[str, Tensor], output_stride: int = 0) -> DeepLabV3:
    """Builds the network that a card describes, with its weights, on the CPU, for inference.

    Args:
        card: The card.
        state: Parameter name → tensor.
        output_stride: 8 or 16; 0 takes the card's.

    Raises:
        ValueError: The state dict does not fit.
    """
    with torch.device('meta'):  # random values would cost a second
        model = build(card, output_stride)
    model = model.to_empty(device='cpu')
    load_state(model, state)
    return model.eval()


def load_state(model: DeepLabV3, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict; an auxiliary head that only the state has is left out.

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
            f'the weights do not fit DeepLabV3-ResNet50 with decoder {model.decoder!r}: {what}'
            f' ({len(missing)} missing, {len(unknown)} unknown)'
        )
    for name, tensor in kept.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f'the weights do not fit: {name} has shape {tuple(tensor.shape)},'
                f' not {tuple(own[name].shape)}'
            )
    model.load_state_dict(OrderedDict(kept))
