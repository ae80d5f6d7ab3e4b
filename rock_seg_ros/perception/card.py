# SPDX-License-Identifier: Apache-2.0
"""The card: everything that a program must know about a set of weights to use them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any

from rock_seg_ros.perception.networks import NETWORKS

FORMAT_VERSION = 1
ARCHITECTURE = 'deeplabv3_resnet50'
ACTIVATIONS = ('softmax', 'sigmoid')
RIM = 'rim'


class CardError(ValueError):
    """A card that is missing, malformed, or of a format that this version does not read."""


@dataclass(frozen=True)
class Card:
    """What a weights file says of itself.

    Attributes:
        classes: Class names; the place in the tuple is the class id (0 to 255).
        rock_classes: The names among `classes` that are rock.
        decoder: 'skip', or with ResNet-50 'none' (torchvision's `deeplabv3_resnet50`, key for key).
        activation: 'softmax' (one channel a class) or 'sigmoid' (one channel, the rock's).
        mean: Per-channel RGB mean that is taken off a picture scaled to 0..1.
        std: Per-channel RGB standard deviation that it is then divided by.
        training_size: Width and height of the training crops, in px; (0, 0) when unknown.
        output_stride: Output stride of the backbone in training: 8, 16 or 32.
        smallest_side: A picture whose shorter side has fewer px is enlarged to it for the network,
            at most twofold; 0 = never.
        threshold: Rock probability, 0 to 1, from which a pixel is rock.
        metrics: Measured figures by name, such as {'marsdata_val_iou': 0.69}.
        data: What the weights were trained on, in words.
        licence: Licence of the weights.
        activation_ranges: Name of a convolution → lowest and highest value of its input that int8
            tells apart, measured on real pictures; empty = not calibrated for int8.
        architecture: The network, a key of `networks.NETWORKS`.
        format_version: Of the card.
    """

    classes: tuple[str, ...] = ('background', 'rock')
    rock_classes: tuple[str, ...] = ('rock',)
    decoder: str = 'skip'
    activation: str = 'softmax'
    mean: tuple[float, float, float] = NETWORKS[ARCHITECTURE].mean
    std: tuple[float, float, float] = NETWORKS[ARCHITECTURE].std
    training_size: tuple[int, int] = (0, 0)
    output_stride: int = 8
    smallest_side: int = 0
    threshold: float = 0.5
    metrics: dict[str, float] = field(default_factory=dict)
    data: str = ''
    licence: str = ''
    activation_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    architecture: str = ARCHITECTURE
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuses values that no model could be built from, with CardError."""
        if self.format_version != FORMAT_VERSION:
            raise CardError(
                f'card format_version is {self.format_version}; this version reads {FORMAT_VERSION}'
            )
        _one_of('architecture', self.architecture, tuple(NETWORKS))
        network = NETWORKS[self.architecture]
        _one_of('decoder', self.decoder, network.decoders)
        _one_of('activation', self.activation, ACTIVATIONS)
        _one_of('output_stride', self.output_stride, network.output_strides)
        for name in ('classes', 'rock_classes'):
            names = getattr(self, name)
            if not isinstance(names, tuple) or not all(isinstance(n, str) for n in names):
                raise CardError(f'card {name} must be a list of names, not {names!r}')
        if not 2 <= len(self.classes) <= 255 or len(set(self.classes)) != len(self.classes):
            raise CardError(f'card classes must be 2 to 255 different names, not {self.classes!r}')
        strangers = set(self.rock_classes) - set(self.classes)
        if strangers or not self.rock_classes or len(self.rock_classes) == len(self.classes):
            raise CardError(
                f'card rock_classes must be some, not all, of {self.classes!r},'
                f' not {self.rock_classes!r}'
            )
        if self.activation == 'sigmoid' and len(self.classes) != 2:
            raise CardError(f'a sigmoid card has two classes, not {len(self.classes)}')
        if not isinstance(self.smallest_side, int) or self.smallest_side < 0:
            raise CardError(f'card smallest_side must be 0 or more, not {self.smallest_side!r}')
        if not 0.0 < self.threshold < 1.0:
            raise CardError(f'card threshold must be between 0 and 1, not {self.threshold}')
        numbers = all(isinstance(n, int | float) for n in (*self.mean, *self.std))
        if not numbers or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise CardError(
                f'card mean and std must be three numbers, std above 0, not {self.mean}, {self.std}'
            )
        _check_ranges(self.activation_ranges)

    @property
    def channels(self) -> int:
        """Output channels of the network: one a class, or one in all for a sigmoid."""
        return 1 if self.activation == 'sigmoid' else len(self.classes)

    @property
    def rock_ids(self) -> tuple[int, ...]:
        """Class ids that are rock, ascending."""
        return tuple(i for i, name in enumerate(self.classes) if name in self.rock_classes)

    @property
    def rim_id(self) -> int | None:
        """Id of the class 'rim' between touching rocks; None where there is none."""
        return self.classes.index(RIM) if RIM in self.classes else None

    def to_json(self) -> str:
        """Returns the card as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Reads a card from JSON; keys that this version does not know are left out.

        Raises:
            CardError: The text is no JSON object, or a value is not legal.
        """
        try:
            values: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise CardError(f'the card is not JSON: {error}') from None
        if not isinstance(values, dict):
            raise CardError(f'the card is a JSON {type(values).__name__}, not an object')
        version = values.get('format_version')
        if version != FORMAT_VERSION:
            raise CardError(
                f'card format_version is {version!r}; this version reads {FORMAT_VERSION}'
            )
        known = {f.name for f in fields(cls)}
        kept: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known
        }
        ranges = kept.get('activation_ranges')
        if isinstance(ranges, dict):
            kept['activation_ranges'] = {
                name: tuple(pair) if isinstance(pair, list) else pair
                for name, pair in ranges.items()
            }
        try:
            return cls(**kept)
        except TypeError as error:
            raise CardError(f'a value of the card has the wrong type: {error}') from None


def _one_of(name: str, value: object, legal: tuple[object, ...]) -> None:
    if value not in legal:
        raise CardError(f'card {name} is {value!r}; legal is {" or ".join(map(repr, legal))}')


def _check_ranges(ranges: object) -> None:
    if not isinstance(ranges, dict):
        raise CardError(f'card activation_ranges must be an object, not {ranges!r}')
    for name, pair in ranges.items():
        numbers = isinstance(pair, tuple) and all(isinstance(n, int | float) for n in pair)
        if not numbers or len(pair) != 2 or not -inf < pair[0] < pair[1] < inf:
            raise CardError(f'card activation_ranges of {name} must be [low, high], not {pair!r}')
