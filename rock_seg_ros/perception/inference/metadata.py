# SPDX-License-Identifier: Apache-2.0
"""The metadata of weights (model card): what a program must know to use them."""

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
MAX_LENGTH = 2**24  # characters of JSON
FLOAT32_MAX = 3.4e38  # the network computes in float32
MIN_STD, MIN_RANGE = 1e-9, 1e-9  # divisors that are smaller make the logits infinite


class MetadataError(ValueError):
    """The metadata is invalid, or has a format that this version does not support."""


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of weights.

    Attributes:
        classes: Class names; the index in the tuple is the class id (0 to 255).
        rock_classes: The names in `classes` that are rock.
        decoder: 'skip', or with ResNet-50 'none' (the same parameter names as in torchvision's
            `deeplabv3_resnet50`).
        activation: 'softmax' (one channel per class) or 'sigmoid' (one channel, that of rock).
        mean: RGB mean that is subtracted from an image, which was scaled to 0..1 before.
        std: RGB standard deviation by which the result is divided.
        training_size: Width and height of the training crops, px; (0, 0) = unknown.
        output_stride: Output stride of the backbone in training: 8, 16 or 32.
        smallest_side: Images whose shorter side is smaller than this are enlarged to it for the
            network, at most twofold, px; 0 = images are never enlarged.
        threshold: Rock probability from which a pixel is rock, 0 to 1.
        metrics: Metrics by name, such as {'marsdata_val_iou': 0.69}.
        data: Description of the training data.
        licence: Licence of the weights.
        activation_ranges: Range of the input of each convolution, by its name, measured on
            images; int8 limits the input to it. Empty = no int8.
        architecture: Name of the network, a key of `networks.NETWORKS`.
        format_version: Version of the metadata format.
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
        """Raises MetadataError if no model can be built from a value."""
        _check_choice('format_version', self.format_version, (FORMAT_VERSION,))
        _check_choice('architecture', self.architecture, tuple(NETWORKS))
        network = NETWORKS[self.architecture]
        _check_choice('decoder', self.decoder, network.decoders)
        _check_choice('activation', self.activation, ACTIVATIONS)
        _check_choice('output_stride', self.output_stride, network.output_strides)
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
            raise MetadataError(
                f'metadata classes must be 2 to 255 different names, not {len(self.classes)}:'
                f' {shorten(self.classes)}'
            )
        unknown = set(self.rock_classes) - set(self.classes)
        if unknown or not self.rock_classes or len(self.rock_classes) == len(self.classes):
            raise MetadataError(
                f'metadata rock_classes must be some, not all, of {shorten(self.classes)},'
                f' not {shorten(self.rock_classes)}'
            )
        if RIM in self.rock_classes or not set(self.classes) - {*self.rock_classes, RIM}:
            raise MetadataError(
                f'metadata rock_classes must not contain {RIM!r}, and classes must have one that is'
                f' neither rock nor {RIM!r}, not {shorten(self.classes)}'
            )
        if self.activation == 'sigmoid' and len(self.classes) != 2:
            raise MetadataError(
                f'metadata classes must be 2 with activation sigmoid, not {len(self.classes)}'
            )

    @property
    def channels(self) -> int:
        """Output channels of the network: one per class, or a single one for a sigmoid."""
        return 1 if self.activation == 'sigmoid' else len(self.classes)

    @property
    def rock_ids(self) -> tuple[int, ...]:
        """Class ids that are rock, ascending."""
        return tuple(i for i, name in enumerate(self.classes) if name in self.rock_classes)

    @property
    def rim_id(self) -> int | None:
        """Class id of the rim between touching rocks; None if there is no rim class."""
        return self.classes.index(RIM) if RIM in self.classes else None

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """Class ids of the pixels that belong to rocks: those of the rock classes and of rim."""
        return self.rock_ids if self.rim_id is None else (*self.rock_ids, self.rim_id)

    def to_json(self) -> str:
        """Returns the metadata as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """Reads metadata from a JSON object; unknown keys are ignored.

        Raises:
            MetadataError: The text is not a JSON object, or a value is invalid.
        """
        return cls.from_values(read_object(text))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ModelMetadata:
        """Creates metadata from the values of a JSON object; unknown keys are ignored.

        Raises:
            MetadataError: A value is invalid, or `format_version` is missing.
        """
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
        return cls(**{'format_version': None, **kept})


def read_object(text: str) -> dict[str, Any]:
    """Reads the JSON object of metadata.

    Raises:
        MetadataError: The text is too long, not a JSON object, or not valid Unicode.
    """
    if len(text) > MAX_LENGTH:
        raise MetadataError(f'the metadata has {len(text)} characters; the maximum is {MAX_LENGTH}')
    try:
        values = json.loads(text)
        json.dumps(values, ensure_ascii=False).encode()
    except RecursionError:
        raise MetadataError('the metadata is not JSON: nested too deep') from None
    except ValueError as error:
        raise MetadataError(f'the metadata is not JSON: {error}') from None
    if not isinstance(values, dict):
        raise MetadataError(f'the metadata must be a JSON object, not a {type(values).__name__}')
    return values


def _check(name: str, value: object, expected: str, valid: bool) -> None:
    if not valid:
        raise MetadataError(f'metadata {name} must be {expected}, not {shorten(value)}')


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    # 1.0 and True equal 1, but are not whole numbers.
    valid = value in choices and not isinstance(value, float | bool)
    _check(name, value, ' or '.join(map(repr, choices)), valid)


def _are(values: Any, is_valid: Callable[[Any], bool], count: int | None = None) -> bool:
    """Returns whether the value is a tuple of valid values, with `count` of them if given."""
    return (
        isinstance(values, tuple)
        and len(values) == (count or len(values))
        and all(map(is_valid, values))
    )


def _is_number(value: object, above: float = -FLOAT32_MAX, below: float = FLOAT32_MAX) -> bool:
    """Returns whether the value is a number between two limits; NaN and Boolean values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < below


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_name(value: object) -> bool:
    return isinstance(value, str)
