# SPDX-License-Identifier: Apache-2.0
"""What weights are measured and tuned on: cases, each a set of labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol

from tqdm import tqdm

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.pipeline import Pixels
from rock_seg_ros.perception.inference.segmenter import Segmentation, Segmenter
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DatasetConfig, Labelled, MissingDataError, Sample, find_samples
from training.datasets.splits import halve
from training.evaluation import ImageResult, Perturbation, count_image, segment_perturbed
from training.metrics import Window, windows

HALF_CHOICES = ('report', 'tune', 'both')
# A node reports the 200 largest rocks by default; what is measured is which are found at all.
EVERY_ROCK = RockSettings(max_rocks=65535)


@dataclass
class Case:
    """One thing that is measured.

    Attributes:
        source: The labelled images.
        split: 'train', 'val' or 'all'.
        conditions: What is done to the images first.
        shown: Whether the report may show images of it; false for data that may not be passed on.
        only: Patterns of image names such as 'moon_*'; images that match none are left out.
            Empty: all are taken.
        without: Patterns of image names that are left out.
        tiles: Side of the tiles that large images are divided into for intervals and halves, px;
            the network sees the whole image all the same. 0 = each image is one.
        only_recall: Whether the labels are incomplete, so that nothing but recall is reported.
        held_out: Whether nothing is ever chosen by it: it is in no half, and always reported whole.
        weight: In the mean IoU by which `training.tune` chooses; 0 = none.
        most_false_rock: Share of the pixels that are no rock which `training.tune` lets be called
            rock at most, 0 to 1; None = any.
    """

    source: DatasetConfig
    split: str = 'val'
    conditions: Perturbation = field(default_factory=Perturbation)
    shown: bool = False
    only: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    tiles: int = 0
    only_recall: bool = False
    held_out: bool = False
    weight: float = 1.0
    most_false_rock: float | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be, with ValueError."""
        if self.tiles and self.tiles < 32:
            raise ValueError(f'tiles must be 0 or at least 32 px, not {self.tiles}')
        if self.weight < 0:
            raise ValueError(f'weight must be 0 or more, not {self.weight:g}')
        if self.most_false_rock is not None and not 0 <= self.most_false_rock <= 1:
            raise ValueError(f'most_false_rock must be 0 to 1, not {self.most_false_rock:g}')

    def takes(self, name: str) -> bool:
        """Whether an image of that name belongs to it."""
        wanted = not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.without)


class Part(NamedTuple):
    """An image of a case.

    Attributes:
        case: Name of the case.
        sample: The image.
        tiles: Those of it that are measured; None = all of it.
    """

    case: str
    sample: Sample
    tiles: list[Window] | None


class Network(Protocol):
    """What is measured."""

    @property
    def card(self) -> Card:
        """The card of its weights."""

    def segment(self, image: Pixels, conditions: Perturbation) -> Segmentation:
        """Segments H×W×3 uint8 RGB under conditions; the result has the image's size."""


def choose_cases(
    cases: Mapping[str, Case], only: list[str], classes: tuple[str, ...], half: str
) -> tuple[dict[str, Case], dict[str, str]]:
    """Leaves out the cases of which there is no image.

    Args:
        cases: By name.
        only: Names of those that are wanted, and must be there; empty = all that are there.
        classes: Class names; the place is the class id.
        half: 'tune', 'report' or 'both'.

    Returns:
        The cases that are there, and why the others are not, by name.

    Raises:
        MissingDataError: One that is named in `only`, or every one, is not there.
        DataError: One is there, and damaged.
        ValueError: There is no case of a name in `only`.
    """
    strangers = sorted(set(only) - set(cases))
    if strangers:
        raise ValueError(f'there is no case {strangers[0]!r}; legal is {", ".join(cases)}')
    there, missing = {}, {}
    for name, case in cases.items():
        if only and name not in only:
            continue
        try:
            parts_of(name, case, classes, half)
            there[name] = case
        except MissingDataError as error:
            if only:
                raise
            missing[name] = str(error)
    if not there:
        raise MissingDataError(f'no case has images: {"; ".join(missing.values())}')
    return there, missing


def parts_of(name: str, case: Case, classes: tuple[str, ...], half: str) -> list[Part]:
    """Finds the images of a case.

    Args:
        name: Of the case.
        case: What is measured.
        classes: Class names; the place is the class id.
        half: 'tune', 'report' or 'both'.

    Raises:
        MissingDataError: There are none.
        DataError: As for `find_samples`.
    """
    samples = [s for s in find_samples(case.source, case.split, classes) if case.takes(s.name)]
    if not samples:
        raise MissingDataError(f'{case.source.path}: no image of the names that are asked for')
    units = [(sample, tile) for sample in samples for tile in _tiles(sample, case.tiles)]
    if not case.held_out:
        groups = [f'{sample.group} {tile}' if tile else sample.group for sample, tile in units]
        halves = halve(groups)
        units = [u for u, own in zip(units, halves, strict=True) if half in ('both', own)]
    elif half == 'tune':
        units = []
    if not units:
        raise MissingDataError(f'{case.source.path}: no image in the half {half!r}')
    tiles: dict[str, list[Window]] = {}
    for sample, tile in units:
        tiles.setdefault(sample.name, []).extend([tile] if tile else [])
    return [Part(name, s, tiles[s.name] or None) for s in samples if s.name in tiles]


def _tiles(sample: Sample, side: int) -> list[Window] | list[None]:
    if not side:
        return [None]
    height, width = sample.read().classes.shape
    return windows(height, width, side)


def measure(
    networks: Mapping[str, Network], cases: Mapping[str, Case], half: str
) -> Iterator[tuple[str, str, ImageResult]]:
    """Measures networks on cases; an image is read once, and segmented once by each network.

    Args:
        networks: By name.
        cases: By name, those that are there.
        half: 'tune', 'report' or 'both'.

    Yields:
        Name of the network, name of the case, and what was counted; of a case always the same
        images in the same order.

    Raises:
        DataError: A file does not decode or does not fit its image.
    """
    plans = {
        classes: _by_image(cases, classes, half)
        for classes in {network.card.classes for network in networks.values()}
    }
    for image in tqdm(next(iter(plans.values())), unit='image', desc='measuring'):
        parts = {classes: plan[image] for classes, plan in plans.items()}
        yield from _measure_image(networks, cases, parts)


def _by_image(
    cases: Mapping[str, Case], classes: tuple[str, ...], half: str
) -> dict[Path, list[Part]]:
    found: dict[Path, list[Part]] = {}
    for name, case in cases.items():
        for part in parts_of(name, case, classes, half):
            found.setdefault(part.sample.image, []).append(part)
    return found


def _measure_image(
    networks: Mapping[str, Network],
    cases: Mapping[str, Case],
    parts: Mapping[tuple[str, ...], list[Part]],
) -> Iterator[tuple[str, str, ImageResult]]:
    """Measures all that is asked of one image; `parts` is by the class names of the networks."""
    image: Pixels | None = None
    labels: dict[tuple[tuple[str, ...], int], Labelled] = {}
    for classes, own in parts.items():
        for place, part in enumerate(own):
            labels[classes, place] = part.sample.read(image)
            image = labels[classes, place].image
    assert image is not None
    for conditions in dict.fromkeys(cases[part.case].conditions for part in own):
        for name, network in networks.items():
            found = network.segment(image, conditions)
            for place, part in enumerate(parts[network.card.classes]):
                case = cases[part.case]
                if case.conditions == conditions:
                    label = labels[network.card.classes, place]
                    for image_result in count_image(
                        part.sample, label, found, EVERY_ROCK, part.tiles, case.only_recall
                    ):
                        yield name, part.case, image_result


@dataclass(frozen=True)
class SegmenterNetwork:
    """A network as the node runs it, at the threshold of its card.

    Attributes:
        segmenter: The network on its device.
    """

    segmenter: Segmenter

    @property
    def card(self) -> Card:
        """The card of its weights."""
        return self.segmenter.card

    def segment(self, image: Pixels, conditions: Perturbation) -> Segmentation:
        """Segments H×W×3 uint8 RGB under conditions; the result has the image's size."""
        return segment_perturbed(self.segmenter, image, conditions)
