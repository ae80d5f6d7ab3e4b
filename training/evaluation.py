# SPDX-License-Identifier: Apache-2.0
"""Evaluates a network on labelled images: library code of the training commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.pipeline import ScoresError
from rock_seg_ros.perception.inference.segmenter import Segmentation, Segmenter
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DataError, Labelled, Sample
from training.metrics import Counts, Window, count_windows, stack, summarize, windows


@dataclass(frozen=True)
class Perturbation:
    """What is done to an image before the network sees it.

    Attributes:
        grey: Turn it grey.
        scale: Scale width and height; what is found is scaled back and judged at the label's size.
        gain: Multiply its values, and clip them at 255.
    """

    grey: bool = False
    scale: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what no image could be made of, with ValueError."""
        for name in ('scale', 'gain'):
            if not 0 < getattr(self, name) <= 16:
                raise ValueError(f'{name} must be above 0, at most 16, not {getattr(self, name)}')

    def __str__(self) -> str:
        """Says what is done, '' if nothing: 'grey, scale 0.5'."""
        changed = [f'{name} {getattr(self, name):g}' for name in ('scale', 'gain')]
        told = ['grey'] * self.grey + [text for text in changed if not text.endswith(' 1')]
        return ', '.join(told)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the image, H×W×3 uint8 RGB, as the network is to see it."""
        if self.grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
        if self.gain != 1:
            image = cv2.convertScaleAbs(image, alpha=self.gain)  # type: ignore[assignment]
        if self.scale != 1:
            height, width = (max(1, round(side * self.scale)) for side in image.shape[:2])
            how = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=how)  # type: ignore[assignment]
        return image


@dataclass(frozen=True)
class ImageResult:
    """An image that was measured on, or a tile of one.

    Attributes:
        sample: The image.
        counts: Of what was found in it.
        mask: H×W bool, where rock was found.
        tile: Rows and columns of the image that were measured; None = all.
        only_recall: Whether its label is incomplete, so that nothing but recall is known.
    """

    sample: Sample
    counts: Counts
    mask: NDArray[np.bool_]
    tile: Window | None = None
    only_recall: bool = False

    @property
    def name(self) -> str:
        """The image's name, and the tile's left and top, px: 'creek 320,0'."""
        if self.tile is None:
            return self.sample.name
        return f'{self.sample.name} {self.tile[1].start},{self.tile[0].start}'

    def read(self) -> Labelled:
        """Reads the image and its labels once more, as far as they were measured.

        Raises:
            DataError: They can no longer be read.
        """
        label = self.sample.read()
        if self.tile is None:
            return label
        instances = None if label.instances is None else label.instances[self.tile]
        return Labelled(label.image[self.tile], label.classes[self.tile], instances)

    @property
    def iou(self) -> float | None:
        """IoU of rock pixels, None where rock is neither true nor found."""
        value, told = self.counts.iou
        return float(value) if told else None

    @property
    def score(self) -> float | None:
        """What the worst images are chosen by, 0 to 1, worst to best; None: nothing to judge.

        IoU of rock pixels, or where the label is incomplete, their recall. In an image without
        true rock the share of pixels that are not called rock, as a single one makes the IoU 0.
        """
        (empty, false_positives), (false_negatives, found) = self.counts.pixels
        if false_negatives + found:
            return float(found / (false_negatives + found)) if self.only_recall else self.iou
        return (
            float(empty / (empty + false_positives))
            if false_positives and not self.only_recall
            else None
        )


@dataclass(frozen=True)
class Result:
    """What a measurement of one network on one set of images gave.

    Attributes:
        name: Of the data and the conditions, for people.
        conditions: Under which it was made.
        images: What was measured on.
        shown: Whether a report may show them.
    """

    name: str
    conditions: Perturbation
    images: list[ImageResult]
    shown: bool = True

    @cached_property
    def counts(self) -> Counts:
        """The counts of all images, P×…."""
        return stack([image_result.counts for image_result in self.images])

    @property
    def only_recall(self) -> bool:
        """Whether the labels are incomplete, so that nothing but recall is known."""
        return any(image_result.only_recall for image_result in self.images)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What `summarize` tells, and the conditions."""
        told = summarize(self.counts, self.only_recall)
        return told | {'conditions': asdict(self.conditions)}


@dataclass(frozen=True)
class NetworkResult:
    """What a network came to.

    Attributes:
        name: Of the network, for people: its weights and preset; may be empty where it is alone.
        card: Of its weights.
        results: On each set of images, at least one.
        milliseconds: From an image of 640×480 to its mask, median; None = not measured.
    """

    name: str
    card: Card
    results: list[Result]
    milliseconds: float | None = None

    def result(self, name: str) -> Result:
        """Returns the result of a name."""
        return next(result for result in self.results if result.name == name)


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    conditions: Perturbation | None = None,
    threshold: float | None = None,
    name: str = '',
    shown: bool = True,
    settings: RockSettings | None = None,
    rims: bool = True,
) -> Result:
    """Measures a network on whole images.

    Args:
        segmenter: The network.
        samples: The labelled images, at least one.
        conditions: What is done to the images; None = nothing.
        threshold: Probability from which a pixel is rock, 0 to 1; None = the card's.
        name: Of the result.
        shown: Whether a report may show the images.
        settings: Which rocks are told; None = as the node does by default.
        rims: Whether rocks may come apart along rims; false: by their shape, as for weights that
            know no rims.

    Raises:
        DataError: There is no image, or a file does not decode or does not fit its image.
        ValueError: The threshold is not legal.
    """
    if not samples:
        raise DataError(f'{name or "data"}: no images to measure on')
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f'threshold must be between 0 and 1, not {threshold:g}')
    conditions = conditions or Perturbation()
    image_result = []
    for sample in tqdm(samples, unit='image', desc='evaluating'):
        label = sample.read()
        try:
            found = segment_perturbed(segmenter, label.image, conditions, threshold)
        except ScoresError as error:
            raise DataError(f'{sample.name}: {error}') from None
        if not rims:
            found.rim_id = None
        image_result += count_image(sample, label, found, settings)
    return Result(name, conditions, image_result, shown)


def count_image(
    sample: Sample,
    label: Labelled,
    found: Segmentation,
    settings: RockSettings | None = None,
    tiles: Sequence[Window] | None = None,
    only_recall: bool = False,
) -> list[ImageResult]:
    """Counts what was found in an image, as a whole or tile by tile.

    Args:
        sample: The image.
        label: What is true of it.
        found: What the network says of it.
        settings: Which rocks are told; None = as the node does by default.
        tiles: Of `windows`, all or some; None = the whole image.
        only_recall: Whether the label is incomplete.
    """
    where = windows(*label.classes.shape) if tiles is None else tiles
    counts = count_windows(label.classes, label.instances, found, where, settings)
    mask = found.mask() > 0
    return [
        ImageResult(sample, own, mask[tile], None if tiles is None else tile, only_recall)
        for tile, own in zip(where, counts, strict=True)
    ]


def segment_perturbed(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    conditions: Perturbation,
    threshold: float | None = None,
) -> Segmentation:
    """Segments an image, H×W×3 uint8 RGB, under conditions; the result has the image's size."""
    found = segmenter.segment(conditions.apply(image), threshold)
    height, width = image.shape[:2]
    if found.class_ids.shape == (height, width):
        return found
    ids, confidence = (
        cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for plane in (found.class_ids, found.confidence)
    )
    return Segmentation(
        ids.astype(np.uint8, copy=False),
        confidence.astype(np.uint8, copy=False),
        found.rock_ids,
        found.rim_id,
    )
