# SPDX-License-Identifier: Apache-2.0
"""The card: everything that a program must know about a set of weights to use them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from reprlib import repr as shorten
from typing import Any

from rock_seg_ros.perception.inference.networks import NETWORKS

FORMAT_VERSION = 1
ARCHITECTURE = 'deeplabv3_resnet50'
ACTIVATIONS = ('softmax', 'sigmoid')
RIM = 'rim'
MAX_CARD_LENGTH = 2**24  # characters of a card
FLOAT32_MAX = 3.4e38  # what is larger is infinite to the network
MIN_STD, MIN_RANGE = 1e-9, 1e-9  # what is smaller makes numbers that are not finite


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
        mean: Per-channel RGB mean that is taken off an image scaled to 0..1.
        std: Per-channel RGB standard deviation that it is then divided by.
        training_size: Width and height of the training crops, in px; (0, 0) when unknown.
        output_stride: Output stride of the backbone in training: 8, 16 or 32.
        smallest_side: An image whose shorter side has fewer px is enlarged to it for the network,
            at most twofold; 0 = never.
        threshold: Rock probability, 0 to 1, from which a pixel is rock.
        metrics: Measured figures by name, such as {'marsdata_val_iou': 0.69}.
        data: What the weights were trained on, in words.
        licence: Licence of the weights.
        activation_ranges: Name of a convolution → lowest and highest value of its input that int8
            tells apart, measured on real images; empty = not calibrated for int8.
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
        if not _is_whole(self.format_version) or self.format_version != FORMAT_VERSION:
            raise CardError(
                f'card format_version is {shorten(self.format_version)}; this version reads'
                f' {FORMAT_VERSION}'
            )
        _one_of('architecture', self.architecture, tuple(NETWORKS))
        network = NETWORKS[self.architecture]
        _one_of('decoder', self.decoder, network.decoders)
        _one_of('activation', self.activation, ACTIVATIONS)
        _one_of('output_stride', self.output_stride, network.output_strides)
        self._check_classes()
        _check('smallest_side', self.smallest_side, '0 or more', _is_whole(self.smallest_side))
        _check('threshold', self.threshold, 'between 0 and 1', _is_number(self.threshold, 0, 1))
        means = _are(self.mean, _is_number, 3)
        _check('mean', self.mean, 'three numbers', means)
        stds = _are(self.std, lambda n: _is_number(n, MIN_STD), 3)
        _check('std', self.std, 'three numbers above 0', stds)
        sizes = _are(self.training_size, _is_whole, 2)
        _check('training_size', self.training_size, 'width and height', sizes)
        for name in ('data', 'licence'):
            _check(name, getattr(self, name), 'text', isinstance(getattr(self, name), str))
        for name in ('metrics', 'activation_ranges'):
            _check(name, getattr(self, name), 'an object', isinstance(getattr(self, name), dict))
        for name, value in self.metrics.items():
            _check(f'metrics of {name}', value, 'a number', _is_number(value))
        for name, pair in self.activation_ranges.items():
            ordered = _are(pair, _is_number, 2) and pair[1] - pair[0] >= MIN_RANGE
            _check(f'activation_ranges of {name}', pair, '[low, high]', ordered)

    def _check_classes(self) -> None:
        for name in ('classes', 'rock_classes'):
            given = getattr(self, name)
            _check(name, given, 'a list of names', _are(given, _is_name))
        if not 2 <= len(self.classes) <= 255 or len(set(self.classes)) != len(self.classes):
            raise CardError(
                f'card classes must be 2 to 255 different names, not {len(self.classes)}:'
                f' {shorten(self.classes)}'
            )
        strangers = set(self.rock_classes) - set(self.classes)
        if strangers or not self.rock_classes or len(self.rock_classes) == len(self.classes):
            raise CardError(
                f'card rock_classes must be some, not all, of {shorten(self.classes)},'
                f' not {shorten(self.rock_classes)}'
            )
        if self.activation == 'sigmoid' and len(self.classes) != 2:
            raise CardError(f'a sigmoid card has two classes, not {len(self.classes)}')

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
        return cls.from_values(read_object(text))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Card:
        """Makes a card of a JSON object's values; keys that are not known are left out.

        Raises:
            CardError: A value is not legal.
        """
        version = values.get('format_version')
        if version != FORMAT_VERSION:
            raise CardError(
                f'card format_version is {shorten(version)}; this version reads {FORMAT_VERSION}'
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
        return cls(**kept)


def read_object(text: str) -> dict[str, Any]:
    """Reads the JSON object of a card.

    Raises:
        CardError: The text is too long, or no JSON object, or holds what is no Unicode.
    """
    if len(text) > MAX_CARD_LENGTH:
        raise CardError(f'the card has {len(text)} characters; {MAX_CARD_LENGTH} are the most')
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise CardError('the card is not JSON: nested too deep') from None
    except ValueError as error:
        raise CardError(f'the card is not JSON: {error}') from None
    if not isinstance(values, dict):
        raise CardError(f'the card is a JSON {type(values).__name__}, not an object')
    return values


def _check(name: str, value: object, wanted: str, holds: bool) -> None:
    if not holds:
        raise CardError(f'card {name} must be {wanted}, not {shorten(value)}')


def _one_of(name: str, value: object, legal: tuple[object, ...]) -> None:
    if value not in legal or isinstance(value, float):
        raise CardError(
            f'card {name} is {shorten(value)}; legal is {" or ".join(map(repr, legal))}'
        )


def _are(values: Any, kind: Callable[[Any], bool], count: int | None = None) -> bool:
    """Returns whether it is a tuple of one kind, of so many."""
    return (
        isinstance(values, tuple)
        and len(values) == (count or len(values))
        and all(map(kind, values))
    )


def _is_number(value: object, above: float = -FLOAT32_MAX, below: float = FLOAT32_MAX) -> bool:
    """Returns whether it is a number between two; NaN, infinities and truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < below


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_name(value: object) -> bool:
    return isinstance(value, str)
