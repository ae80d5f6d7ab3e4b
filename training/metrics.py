# SPDX-License-Identifier: Apache-2.0
"""The figures that a segmentation is judged by, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryJaccardIndex, BinaryPrecision, BinaryRecall
from torchmetrics.functional.classification import binary_confusion_matrix

from rock_seg_ros.perception.inference.segmenter import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import IGNORE
from training.matching import SIZES, count_rocks_by_tile, rock_labels, true_labels

BOUNDARY_RATIO = 0.02
CALIBRATION_BINS = 15
LEVELS = 256
RESAMPLES = 1000
CERTAINTY = 0.95

Window = tuple[slice, slice]


def rock_metrics(prefix: str = '') -> MetricCollection:
    """Returns IoU, precision and recall of rock pixels, pooled over all images.

    Its `update` takes int tensors of equal shape: 1 rock, 0 not; in the truth 255 is ignored.
    Recall is 1 where there is no rock to find.
    """
    return MetricCollection(
        {
            'iou': BinaryJaccardIndex(ignore_index=IGNORE),
            'precision': BinaryPrecision(ignore_index=IGNORE),
            'recall': BinaryRecall(ignore_index=IGNORE, zero_division=1),
        },
        prefix=prefix,
    )


@dataclass(frozen=True)
class Counts:
    """What is counted on an image; sums and stacks of it have the same fields.

    Attributes:
        pixels: …×2×2, [truth, found], 1 rock, 0 not, px.
        empty: …×2, `pixels[0]` of images without true rock, 0 of the others.
        boundary: …×2, intersection and union of the boundaries, px.
        iou: …×2, IoU of rock pixels, and 1; both 0 where rock is neither true nor found.
        rocks: …×3×4, as `count_rocks` returns them.
        levels: …×2×256, [truth, probability of rock as 0 to 255], px.
    """

    pixels: NDArray[np.float64]
    empty: NDArray[np.float64]
    boundary: NDArray[np.float64]
    iou: NDArray[np.float64]
    rocks: NDArray[np.float64]
    levels: NDArray[np.float64]


def count(
    classes: NDArray[np.uint8],
    instances: NDArray[np.int32] | None,
    found: Segmentation,
    settings: RockSettings | None = None,
) -> Counts:
    """Counts one image, as `count_windows` does."""
    (counts,) = count_windows(classes, instances, found, windows(*classes.shape), settings)
    return counts


def windows(height: int, width: int, side: int = 0) -> list[Window]:
    """Divides an image of that size into tiles of about side×side px; side 0: it is one tile."""
    rows, columns = (max(1, round(length / side)) if side else 1 for length in (height, width))
    y, x = (
        np.linspace(0, height, rows + 1, dtype=int),
        np.linspace(0, width, columns + 1, dtype=int),
    )
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in pairwise(y.tolist())
        for left, right in pairwise(x.tolist())
    ]


def count_windows(
    classes: NDArray[np.uint8],
    instances: NDArray[np.int32] | None,
    found: Segmentation,
    tiles: Sequence[Window],
    settings: RockSettings | None = None,
) -> list[Counts]:
    """Counts tiles of one image, each as if it were an image of its own.

    Only rocks are matched whole, and count in the tile that has most of their pixels.

    Args:
        classes: H×W true class ids; 255 is ignored.
        instances: H×W true rocks by number, or None, as for `true_labels`.
        found: What the network says.
        tiles: Of `windows`, all or some.
        settings: Which of the found rocks count; None = those that the node tells by default.
    """
    settings = settings or RockSettings()
    counted = classes != IGNORE
    true_rock = np.isin(classes, found.rock_ids) & counted
    found_rock, probability = found.mask() > 0, rock_probability(found)
    place = np.full(classes.shape, len(tiles), np.intp)
    for number, tile in enumerate(tiles):
        place[tile] = number
    rocks = count_rocks_by_tile(
        true_labels(classes, instances, found.rock_ids),
        rock_labels(found, settings),
        counted,
        place,
        len(tiles) + 1,  # the last one is all that is in none
        settings.min_area,
    )
    return [
        _count_pixels(counted[tile], true_rock[tile], found_rock[tile], probability[tile], own)
        for tile, own in zip(tiles, rocks[:-1], strict=True)
    ]


def _count_pixels(
    counted: NDArray[np.bool_],
    true_rock: NDArray[np.bool_],
    found_rock: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    rocks: NDArray[np.float64],
) -> Counts:
    """Counts the pixels of a tile; `rocks` has been counted."""
    truth = np.where(counted, true_rock, IGNORE).astype(np.int64)
    pixels = binary_confusion_matrix(
        torch.from_numpy(found_rock.astype(np.int64)), torch.from_numpy(truth), ignore_index=IGNORE
    ).numpy()
    either = pixels.sum() - pixels[0, 0]
    level = probability.astype(np.int64) + LEVELS * true_rock
    return Counts(
        pixels=pixels.astype(np.float64),
        empty=np.zeros(2) if true_rock.any() else pixels[0].astype(np.float64),
        boundary=boundary_overlap(true_rock, found_rock & counted, counted),
        iou=np.array([pixels[1, 1] / either, 1.0]) if either else np.zeros(2),
        rocks=rocks,
        levels=np.bincount(level[counted], minlength=2 * LEVELS)
        .reshape(2, LEVELS)
        .astype(np.float64),
    )


def rock_probability(found: Segmentation) -> NDArray[np.uint8]:
    """Returns H×W probability of rock, 0 to 255, from the probability of each pixel's class.

    Exact for two classes. With more it is that of the chosen class where the pixel is rock, and
    where it is not, one minus it: too high by what the classes that were not chosen have.
    """
    return np.where(found.mask() > 0, found.confidence, 255 - found.confidence)


def boundary_overlap(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns intersection and union of the boundaries of two H×W masks, px.

    A boundary is what of a mask lies within 2 % of the image's diagonal of its outline, the
    image's edge being outline too (Cheng et al. 2021, arXiv:2103.16562, with their own code's
    rounding and square neighbourhood).
    """
    width = max(1, round(BOUNDARY_RATIO * float(np.hypot(*truth.shape))))
    one, other = (_boundary(mask, width) for mask in (truth, found))
    both, either = one & other & counted, (one | other) & counted
    return np.array([both.sum(), either.sum()], np.float64)


def _boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    framed = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (inner == 0)


def stack(counts: Sequence[Counts]) -> Counts:
    """Puts the counts of P images together, each field P×…."""
    return Counts(*(np.stack([getattr(c, f.name) for c in counts]) for f in fields(Counts)))


def weighted_sum(counts: Counts, weights: NDArray[np.float64]) -> Counts:
    """Sums P×… counts with …×P weights of the images."""
    return Counts(*(np.tensordot(weights, getattr(counts, f.name), 1) for f in fields(Counts)))


def figures(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Turns sums over images into figures, each 0 to 1, NaN where there is nothing to count.

    Args:
        counts: Sums; leading axes are kept.

    Returns:
        iou, precision, recall: Of rock pixels, pooled over the images.
        mean_iou: IoU of rock pixels, averaged over the images that have any, true or found.
        boundary_iou: Of rock pixels, pooled over the images.
        false_rock: Share of the pixels that are no rock which are called rock.
        false_rock_on_empty: The same in the images without any true rock.
        ece: Expected calibration error of the probability of rock, in 15 bins of equal width.
        rocks.precision, rocks.recall: Of whole rocks, matched at IoU 0.5.
        rocks.mean_iou: Of the rocks found.
        rocks.small.…, rocks.medium.…, rocks.large.…: The same for true rocks of that size.
    """
    pixels = counts.pixels
    (_, false_positives), (false_negatives, right) = np.moveaxis(pixels, (-2, -1), (0, 1))
    return {
        'iou': _share(right, right + false_positives + false_negatives),
        'precision': _share(right, right + false_positives),
        'recall': _share(right, right + false_negatives),
        'mean_iou': _share(counts.iou[..., 0], counts.iou[..., 1]),
        'boundary_iou': _share(counts.boundary[..., 0], counts.boundary[..., 1]),
        'false_rock': _share(false_positives, pixels[..., 0, :].sum(axis=-1)),
        'false_rock_on_empty': _share(counts.empty[..., 1], counts.empty.sum(axis=-1)),
        'ece': calibration_error(counts.levels),
        **_rock_figures('rocks', counts.rocks.sum(axis=-2)),
        **{
            name: value
            for place, size in enumerate(SIZES)
            for name, value in _rock_figures(f'rocks.{size}', counts.rocks[..., place, :]).items()
        },
    }


def _rock_figures(name: str, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    true, found, false, iou = np.moveaxis(counts, -1, 0)
    return {
        f'{name}.precision': _share(found, found + false),
        f'{name}.recall': _share(found, true),
        f'{name}.mean_iou': _share(iou, found),
    }


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def calibration_bins(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorts pixels into 15 bins of the probability of rock.

    Args:
        levels: …×2×256 as in `Counts`.

    Returns:
        …×3×15: pixels, sum of their probabilities, pixels of them that are rock.
    """
    whole = levels.sum(axis=-2)
    columns = np.stack([whole, whole * np.linspace(0, 1, LEVELS), levels[..., 1, :]], axis=-2)
    return np.add.reduceat(columns, np.arange(CALIBRATION_BINS) * (LEVELS // CALIBRATION_BINS), -1)


def calibration_error(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the expected calibration error (Guo et al. 2017, arXiv:1706.04599), 0 to 1.

    It is torchmetrics' `BinaryCalibrationError(n_bins=15, norm='l1')`, which keeps every pixel and
    tells no bins: too much for a bootstrap.
    """
    pixels, chance, rock = np.moveaxis(calibration_bins(levels), -2, 0)
    return _share(np.abs(rock - chance).sum(axis=-1), pixels.sum(axis=-1))


def bootstrap(
    counts: Counts, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Draws the images anew, with repetition, and returns the figures of each draw.

    Percentile bootstrap (Efron 1979); the seed makes it the same each time.

    Args:
        counts: P×… of the images.
        resamples: Number of draws.
        seed: Of the draws.

    Returns:
        Figure name → array of `resamples` values.
    """
    images = len(counts.pixels)
    chance = np.random.default_rng(seed)
    weights = chance.multinomial(images, np.full(images, 1 / images), resamples)
    return figures(weighted_sum(counts, weights.astype(np.float64)))


def summarize(counts: Counts, only_recall: bool = False) -> dict[str, Any]:
    """Returns the figures of P images with their 95 % intervals, as `--json` prints them.

    Args:
        counts: P×… of the images.
        only_recall: The labels are incomplete: all other figures are None.

    Returns:
        images: P.
        The figures of `figures`, 'rocks.small.recall' being ['rocks']['small']['recall'], None for
        one that cannot be told; `rocks` has also the numbers of rocks, `true` and `found`.
        intervals: The same names with [low, high] each, None for fewer than two images.
    """
    images = len(counts.pixels)
    total = weighted_sum(counts, np.ones(images))
    values = {name: _plain(value) for name, value in figures(total).items()}
    draws = bootstrap(counts)
    intervals = {name: _interval(draws[name]) if images > 1 else None for name in values}
    for name in values:
        if only_recall and not name.endswith('recall'):
            values[name] = intervals[name] = None
    told = {'images': images, **_nested(values)}
    for name, (true, matched, false, _) in zip(
        ('', *SIZES), (total.rocks.sum(axis=0), *total.rocks), strict=True
    ):
        own = told['rocks'][name] if name else told['rocks']
        own |= {'true': int(true), 'found': None if only_recall else int(matched + false)}
    return told | {'intervals': _nested(intervals)}


def compare(ours: Counts, theirs: Counts, only_recall: bool = False) -> dict[str, Any]:
    """Returns by how much figures differ between two networks on the same P images.

    Paired bootstrap: each draw takes the same images for both.

    Args:
        ours: P×… of the one network.
        theirs: P×… of the other, of the same images in the same order.
        only_recall: As for `summarize`.

    Returns:
        The names of `figures`, nested as in `summarize`, each with: difference (ours − theirs),
        interval ([low, high] of 95 %) and excludes_zero, whether 0 lies outside of the interval.
        Difference and interval are None where they cannot be known.

    Raises:
        ValueError: The numbers of images differ.
    """
    sides = ours, theirs
    images = [len(side.pixels) for side in sides]
    if images[0] != images[1]:
        raise ValueError(f'cannot compare networks on {images[0]} and {images[1]} images')
    one, other = (figures(weighted_sum(side, np.ones(images[0]))) for side in sides)
    draws, other_draws = (bootstrap(side) for side in sides)
    differences = {}
    for name in one:
        known = name.endswith('recall') or not only_recall
        value = _plain(one[name] - other[name]) if known else None
        paired = known and value is not None and images[0] > 1
        bounds = _interval(draws[name] - other_draws[name]) if paired else None
        clear = bounds is not None and not bounds[0] <= 0 <= bounds[1]
        differences[name] = {'difference': value, 'interval': bounds, 'excludes_zero': clear}
    return _nested(differences)


def _plain(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(draws: NDArray[np.float64]) -> list[float] | None:
    known = draws[~np.isnan(draws)]
    if not known.size:
        return None
    tail = (1 - CERTAINTY) / 2
    return [float(bound) for bound in np.quantile(known, [tail, 1 - tail])]


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Turns {'a.b': 1} into {'a': {'b': 1}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *folders, leaf = name.split('.')
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return tree
