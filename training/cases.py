# SPDX-License-Identifier: Apache-2.0
"""Cases: the sets of labelled images that weights are benchmarked and tuned on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol

from tqdm import tqdm

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Pixels, Segmentation
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DatasetConfig, Labelled, MissingDataError, Sample, find_samples
from training.datasets.splits import halve
from training.evaluation import ImageResult, Perturbation, count_image, segment_perturbed
from training.metrics import Window, windows

HALF_CHOICES = ('report', 'tune', 'both')
# The limit of the node, 200 rocks by default, does not apply in an evaluation.
ALL_ROCKS = RockSettings(max_rocks=65535)


@dataclass
class Case:
    """One set of labelled images, with the way they are evaluated.

    Attributes:
        source: The labelled images.
        split: 'train', 'val' or 'all'.
        conditions: Perturbation of the images.
        shown: Whether the report may show these images; false for data that must not be
            redistributed.
        only: Patterns of image names, such as 'moon_*'; only matching images are used. Empty = all.
        without: Patterns of image names that are not used.
        tiles: Side of the tiles that large images are divided into for intervals and halves, px.
            The network still processes the whole image. 0 = images are not divided.
        only_recall: Whether the labels are incomplete, so that only recall is reported.
        held_out: Whether the case is never used to choose settings: it is not divided into halves,
            and always reported as a whole.
        weight: Weight in the mean IoU that `training.tune` maximizes; 0 = not used.
        most_false_rock: Maximum false positive rate of pixels that `training.tune` allows, 0 to 1;
            None = no limit.
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
        """Checks the values; raises ValueError for an invalid one."""
        if self.tiles and self.tiles < 32:
            raise ValueError(f'tiles must be 0 or at least 32 px, not {self.tiles}')
        if self.weight < 0:
            raise ValueError(f'weight must be 0 or more, not {self.weight:g}')
        if self.most_false_rock is not None and not 0 <= self.most_false_rock <= 1:
            raise ValueError(f'most_false_rock must be 0 to 1, not {self.most_false_rock:g}')

    def includes(self, name: str) -> bool:
        """Returns whether the image with this name is used."""
        included = not self.only or any(fnmatchcase(name, pattern) for pattern in self.only)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.without)


class Part(NamedTuple):
    """An image of a case.

    Attributes:
        case: Name of the case.
        sample: The image.
        tiles: The tiles that are evaluated; None = the whole image.
    """

    case: str
    sample: Sample
    tiles: list[Window] | None


class Network(Protocol):
    """A network that is evaluated."""

    @property
    def metadata(self) -> ModelMetadata:
        """Metadata of its weights."""

    @property
    def rocks(self) -> RockSettings:
        """How its rocks are found."""

    def segment(self, image: Pixels, perturbation: Perturbation) -> Segmentation:
        """Segments a changed image, H×W×3 uint8 RGB; the result has the size of the original."""


def available_cases(
    cases: Mapping[str, Case], only: list[str], classes: tuple[str, ...], half: str
) -> tuple[dict[str, Case], dict[str, str]]:
    """Selects the cases whose images exist.

    Args:
        cases: The cases by name.
        only: Names of the cases to use, whose images must exist; empty = all with images.
        classes: Class names; the index is the class id.
        half: 'tune', 'report' or 'both'.

    Returns:
        The cases with images, and the reasons why others are missing, by name.

    Raises:
        MissingDataError: A case in `only`, or every case, has no images.
        DataError: The data of a case are invalid.
        ValueError: A name in `only` is unknown.
    """
    unknown = sorted(set(only) - set(cases))
    if unknown:
        raise ValueError(f'unknown case {unknown[0]!r}; expected: {", ".join(cases)}')
    available, missing = {}, {}
    for name, case in cases.items():
        if only and name not in only:
            continue
        try:
            parts_of(name, case, classes, half)
            available[name] = case
        except MissingDataError as error:
            if only:
                raise
            missing[name] = str(error)
    if not available:
        raise MissingDataError(f'no case has images: {"; ".join(missing.values())}')
    return available, missing


def parts_of(name: str, case: Case, classes: tuple[str, ...], half: str) -> list[Part]:
    """Lists the images of a case.

    Args:
        name: Name of the case.
        case: The case.
        classes: Class names; the index is the class id.
        half: 'tune', 'report' or 'both'.

    Raises:
        MissingDataError: There are no images.
        DataError: The data are invalid; see `find_samples`.
    """
    samples = [s for s in find_samples(case.source, case.split, classes) if case.includes(s.name)]
    if not samples:
        raise MissingDataError(f'{case.source.path}: no image name matches only and without')
    units = [(sample, tile) for sample in samples for tile in _tiles(sample, case.tiles)]
    if not case.held_out:
        groups = [f'{sample.group} {tile}' if tile else sample.group for sample, tile in units]
        halves = halve(groups)
        units = [u for u, of in zip(units, halves, strict=True) if half in ('both', of)]
    elif half == 'tune':
        units = []
    if not units:
        raise MissingDataError(
            f'{case.source.path}: no image in the half {half!r}; it needs 2 images or more'
        )
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
    """Evaluates networks on cases; each image is read once, and segmented once per network.

    Args:
        networks: The networks by name.
        cases: The cases by name, all with images.
        half: 'tune', 'report' or 'both'.

    Yields:
        Name of the network, name of the case, and the result of an image. The images of a case have
        the same order for all networks.

    Raises:
        DataError: A file cannot be decoded or does not match its image.
    """
    plans = {
        classes: _by_image(cases, classes, half)
        for classes in {network.metadata.classes for network in networks.values()}
    }
    for image in tqdm(next(iter(plans.values())), unit='image', desc='evaluating'):
        parts = {classes: plan[image] for classes, plan in plans.items()}
        yield from _evaluate_image(networks, cases, parts)


def _by_image(
    cases: Mapping[str, Case], classes: tuple[str, ...], half: str
) -> dict[Path, list[Part]]:
    parts: dict[Path, list[Part]] = {}
    for name, case in cases.items():
        for part in parts_of(name, case, classes, half):
            parts.setdefault(part.sample.image, []).append(part)
    return parts


def _evaluate_image(
    networks: Mapping[str, Network],
    cases: Mapping[str, Case],
    parts: Mapping[tuple[str, ...], list[Part]],
) -> Iterator[tuple[str, str, ImageResult]]:
    """Evaluates all parts of one image, which are grouped by the class names of the networks."""
    image: Pixels | None = None
    labels: dict[tuple[tuple[str, ...], int], Labelled] = {}
    for classes, members in parts.items():
        for index, part in enumerate(members):
            labels[classes, index] = part.sample.read(image)
            image = labels[classes, index].image
    assert image is not None
    for perturbation in dict.fromkeys(cases[part.case].conditions for part in members):
        for name, network in networks.items():
            found = network.segment(image, perturbation)
            for index, part in enumerate(parts[network.metadata.classes]):
                case = cases[part.case]
                if case.conditions == perturbation:
                    label = labels[network.metadata.classes, index]
                    for result in count_image(
                        part.sample, label, found, network.rocks, part.tiles, case.only_recall
                    ):
                        yield name, part.case, result


@dataclass(frozen=True)
class SegmenterNetwork:
    """A network with the inference code of the node and the threshold of its metadata.

    Attributes:
        segmenter: The network on its device.
        rocks: How its rocks are found.
    """

    segmenter: Segmenter
    rocks: RockSettings = ALL_ROCKS

    @property
    def metadata(self) -> ModelMetadata:
        """Metadata of its weights."""
        return self.segmenter.metadata

    def segment(self, image: Pixels, perturbation: Perturbation) -> Segmentation:
        """Segments a changed image, H×W×3 uint8 RGB; the result has the size of the original."""
        return segment_perturbed(self.segmenter, image, perturbation)
