# SPDX-License-Identifier: Apache-2.0
"""Evaluates a network on labelled images; the commands of the training use this module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.pipeline import LogitsError
from rock_seg_ros.perception.inference.segmentation import Pixels, Segmentation
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DataError, Labelled, Sample
from training.flare import add_flare
from training.metrics import Counts, Window, count_windows, stack, summarize, windows
from training.transforms import blur_motion

T = TypeVar('T')


@dataclass(frozen=True)
class Perturbation:
    """A change of an image before the network processes it.

    Attributes:
        grey: Convert the image to grey.
        scale: Factor on width and height; results are scaled back to the size of the label.
        gain: Factor on pixel values, which are clipped at 255.
        flare: Strength of a lens flare of the Sun, 0 to 1; 0 = none.
        motion_blur: Length of a motion blur along the diagonal of the image, px; 1 = none.
    """

    grey: bool = False
    scale: float = 1.0
    gain: float = 1.0
    flare: float = 0.0
    motion_blur: float = 1.0

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an invalid one."""
        for name in ('scale', 'gain'):
            if not 0 < getattr(self, name) <= 16:
                raise ValueError(f'{name} must be above 0, at most 16, not {getattr(self, name)}')
        if not 0 <= self.flare <= 1:
            raise ValueError(f'flare must be 0 to 1, not {self.flare:g}')
        if not 1 <= self.motion_blur <= 1000:
            raise ValueError(f'motion_blur must be 1 to 1000 px, not {self.motion_blur:g}')

    def __str__(self) -> str:
        """Returns a description such as 'grey, scale 0.5'; '' if nothing is changed."""
        changed = {
            name: value for name, value in asdict(self).items() if value != getattr(UNCHANGED, name)
        }
        return ', '.join(
            name if value is True else f'{name} {value:g}' for name, value in changed.items()
        )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the changed image; both are H×W×3 uint8 RGB."""
        if self.grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
        if self.gain != 1:
            image = cv2.convertScaleAbs(image, alpha=self.gain)  # type: ignore[assignment]
        if self.flare:
            image = add_flare(image, self.flare)
        if self.motion_blur > 1:
            image = blur_motion(image, self.motion_blur, math.pi / 4)
        if self.scale != 1:
            height, width = (max(1, round(side * self.scale)) for side in image.shape[:2])
            method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=method)  # type: ignore[assignment]
        return image


UNCHANGED = Perturbation()


@dataclass(frozen=True)
class ImageResult:
    """The result for an image or a tile of an image.

    Attributes:
        sample: The image.
        counts: Counts of correct and wrong predictions.
        mask: H×W bool, the predicted rock pixels.
        tile: Rows and columns of the tile; None = the whole image.
        only_recall: Whether the label is incomplete, so that only recall is known.
    """

    sample: Sample
    counts: Counts
    mask: NDArray[np.bool_]
    tile: Window | None = None
    only_recall: bool = False

    @property
    def name(self) -> str:
        """Name of the image, with left and top of the tile in px, such as 'creek 320,0'."""
        if self.tile is None:
            return self.sample.name
        return f'{self.sample.name} {self.tile[1].start},{self.tile[0].start}'

    def read(self) -> Labelled:
        """Reads the image and its labels again, cropped to the tile.

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
        """IoU of rock pixels; None if there is no true and no predicted rock."""
        value, is_known = self.counts.iou
        return float(value) if is_known else None

    @property
    def score(self) -> float | None:
        """Score that ranks the images, 0 (worst) to 1 (best); None if there is nothing to score.

        It is the IoU of rock pixels, or their recall if the label is incomplete. For an image
        without true rock it is the share of true negative pixels, because a single false positive
        pixel makes the IoU 0.
        """
        (true_negatives, false_positives), (false_negatives, true_positives) = self.counts.pixels
        if positives := false_negatives + true_positives:
            return float(true_positives / positives) if self.only_recall else self.iou
        return (
            float(true_negatives / (true_negatives + false_positives))
            if false_positives and not self.only_recall
            else None
        )


@dataclass(frozen=True)
class Result:
    """The result of one network on one set of images.

    Attributes:
        name: Readable name of the data and the perturbation.
        perturbation: Change of the images.
        images: Results of the images.
        shown: Whether a report may show the images.
    """

    name: str
    perturbation: Perturbation
    images: list[ImageResult]
    shown: bool = True

    @cached_property
    def counts(self) -> Counts:
        """The counts of all P images, with shapes P×…."""
        return stack([image_result.counts for image_result in self.images])

    @property
    def only_recall(self) -> bool:
        """Whether the labels are incomplete, so that only recall is known."""
        return any(image_result.only_recall for image_result in self.images)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The metrics of `summarize`, and the perturbation as `conditions`."""
        summary = summarize(self.counts, self.only_recall)
        return summary | {'conditions': asdict(self.perturbation)}


@dataclass(frozen=True)
class NetworkResult:
    """The results of one network.

    Attributes:
        name: Readable name: weights and preset; may be empty for a single network.
        metadata: Metadata of the weights.
        results: Results per set of images, at least one.
        milliseconds: Median time from an image of 640×480 px to its mask; None = not measured.
    """

    name: str
    metadata: ModelMetadata
    results: list[Result]
    milliseconds: float | None = None

    def result(self, name: str) -> Result:
        """Returns the result with a name."""
        return next(result for result in self.results if result.name == name)


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    perturbation: Perturbation | None = None,
    threshold: float | None = None,
    name: str = '',
    shown: bool = True,
    settings: RockSettings | None = None,
    rims: bool = True,
) -> Result:
    """Evaluates a network on whole images.

    Args:
        segmenter: The network.
        samples: The labelled images, at least one.
        perturbation: Change of the images; None = no change.
        threshold: Probability from which a pixel is rock, 0 to 1; None = threshold of the metadata.
        name: Name of the result.
        shown: Whether a report may show the images.
        settings: Settings of the instances; None = defaults of the node.
        rims: Whether rocks are separated along rims; false = by their shape, as for weights
            without the class rim.

    Raises:
        DataError: There is no image, there are no labels, or a file cannot be decoded or does not
            match its image.
        ValueError: The threshold is invalid.
    """
    if not samples:
        raise DataError(f'{name or "data"}: no images to evaluate on')
    if not any(sample.label_files() for sample in samples):
        raise DataError(f'{name or "data"}: the images have no labels')
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f'threshold must be between 0 and 1, not {threshold:g}')
    perturbation = perturbation or Perturbation()
    results = []
    for sample in tqdm(samples, unit='image', desc='evaluating'):
        label = sample.read()
        try:
            found = segment_perturbed(segmenter, label.image, perturbation, threshold)
        except LogitsError as error:
            raise DataError(f'{sample.name}: {error}') from None
        if not rims:
            ids = np.where(found.class_ids == found.rim_id, found.rock_ids[0], found.class_ids)
            found = Segmentation(ids.astype(np.uint8), found.confidence, found.rock_ids)
        results += count_image(sample, label, found, settings)
    return Result(name, perturbation, results, shown)


def count_image(
    sample: Sample,
    label: Labelled,
    found: Segmentation,
    settings: RockSettings | None = None,
    tiles: Sequence[Window] | None = None,
    only_recall: bool = False,
) -> list[ImageResult]:
    """Compares the predictions for an image with its labels, as a whole or per tile.

    Args:
        sample: The image.
        label: The labels.
        found: The predictions.
        settings: Settings of the instances; None = defaults of the node.
        tiles: All or some of the tiles that `windows` returns; None = the whole image.
        only_recall: Whether the label is incomplete.
    """
    areas = windows(*label.classes.shape) if tiles is None else tiles
    counts = count_windows(label.classes, label.instances, found, areas, settings)
    mask = found.mask() > 0
    return [
        ImageResult(sample, area_counts, mask[area], None if tiles is None else area, only_recall)
        for area, area_counts in zip(areas, counts, strict=True)
    ]


class LatestResult(Generic[T]):
    """Stores what was computed for the latest image, for networks that differ only afterwards."""

    def __init__(self, compute: Callable[[Pixels, Perturbation], T]) -> None:
        """Stores the function.

        Args:
            compute: Its arguments are an image, H×W×3 uint8 RGB, and how the image is changed.
        """
        self._compute = compute
        self._latest: tuple[Pixels, Perturbation, T] | None = None

    def of(self, image: Pixels, perturbation: Perturbation) -> T:
        """Returns the result for an image, which is computed if it is not the latest one."""
        if self._latest is None or self._latest[0] is not image or self._latest[1] != perturbation:
            self._latest = (image, perturbation, self._compute(image, perturbation))
        return self._latest[2]


def segment_perturbed(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    perturbation: Perturbation,
    threshold: float | None = None,
) -> Segmentation:
    """Segments a changed image, H×W×3 uint8 RGB; the result has the size of the original."""
    found = segmenter.segment(perturbation.apply(image), threshold)
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
