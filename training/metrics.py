# SPDX-License-Identifier: Apache-2.0
"""The metrics of a segmentation, and their confidence intervals."""

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

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import IGNORE
from training.matching import SIZES, count_rocks_by_tile, rock_labels, true_labels

BOUNDARY_RATIO = 0.02
CALIBRATION_BINS = 15
LEVELS = 256
RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95

Window = tuple[slice, slice]


def rock_metrics(prefix: str = '') -> MetricCollection:
    """Returns IoU, precision and recall of rock pixels, pooled over all images.

    Its `update` takes predictions and labels as int tensors of equal shape: 1 is rock, 0 is not,
    and 255 in labels is ignored. Recall is 1 if there is no true rock.
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
    """The counts of an image; sums and stacks of counts have the same fields.

    Attributes:
        pixels: …×2×2 confusion matrix [label, prediction] with 1 = rock, px.
        empty: …×2, `pixels[0]` of images without true rock, 0 for other images.
        boundary: …×2, intersection and union of the boundaries, px.
        iou: …×2, IoU of rock pixels and 1; both are 0 if there is no true and no predicted rock.
        rocks: …×3×4, see `count_rocks`.
        levels: …×2×256, number of pixels by [label, probability of rock as 0 to 255].
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
    """Counts one image; see `count_windows`."""
    (counts,) = count_windows(classes, instances, found, windows(*classes.shape), settings)
    return counts


def windows(height: int, width: int, side: int = 0) -> list[Window]:
    """Divides an image size into tiles of about side×side px; with side 0 there is one tile."""
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
    """Counts tiles of one image, each like an image.

    Rocks are matched as a whole; each is counted in the tile with most of its pixels.

    Args:
        classes: H×W class ids of the label; 255 is ignored.
        instances: H×W instance ids of the label, or None; see `true_labels`.
        found: The predictions.
        tiles: All or some of the tiles that `windows` returns.
        settings: Settings of the predicted instances; None = defaults of the node.
    """
    settings = settings or RockSettings()
    valid = classes != IGNORE
    true_rock = np.isin(classes, found.rock_ids) & valid
    found_rock, probability = found.mask() > 0, rock_probability(found)
    tile_of_pixel = np.full(classes.shape, len(tiles), np.intp)
    for index, tile in enumerate(tiles):
        tile_of_pixel[tile] = index
    rocks = count_rocks_by_tile(
        true_labels(classes, instances, found.rock_ids),
        rock_labels(found, settings),
        valid,
        tile_of_pixel,
        len(tiles) + 1,  # the last one has the pixels outside all tiles
        settings.min_area,
    )
    return [
        _count_pixels(valid[tile], true_rock[tile], found_rock[tile], probability[tile], counts)
        for tile, counts in zip(tiles, rocks[:-1], strict=True)
    ]


def _count_pixels(
    valid: NDArray[np.bool_],
    true_rock: NDArray[np.bool_],
    found_rock: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    rocks: NDArray[np.float64],
) -> Counts:
    """Counts the pixels of a tile; `rocks` are its counts of rocks."""
    truth = np.where(valid, true_rock, IGNORE).astype(np.int64)
    pixels = binary_confusion_matrix(
        torch.from_numpy(found_rock.astype(np.int64)), torch.from_numpy(truth), ignore_index=IGNORE
    ).numpy()
    union = pixels.sum() - pixels[0, 0]
    level = probability.astype(np.int64) + LEVELS * true_rock
    return Counts(
        pixels=pixels.astype(np.float64),
        empty=np.zeros(2) if true_rock.any() else pixels[0].astype(np.float64),
        boundary=boundary_overlap(true_rock, found_rock & valid, valid),
        iou=np.array([pixels[1, 1] / union, 1.0]) if union else np.zeros(2),
        rocks=rocks,
        levels=np.bincount(level[valid], minlength=2 * LEVELS)
        .reshape(2, LEVELS)
        .astype(np.float64),
    )


def rock_probability(found: Segmentation) -> NDArray[np.uint8]:
    """Returns the H×W probability of rock, 0 to 255, computed from the confidence.

    It is exact for two classes. With more classes it is the confidence for rock pixels, and one
    minus the confidence for other pixels, which is too high by the probabilities of other classes
    that are not rock.
    """
    return np.where(found.mask() > 0, found.confidence, 255 - found.confidence)


def boundary_overlap(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Returns intersection and union of the boundaries of two H×W masks, px.

    The boundary of a mask are its pixels within a distance of 2 % of the image diagonal from its
    contour or the image border (Cheng et al. 2021, arXiv:2103.16562; rounding and the square
    neighbourhood are those of their code).
    """
    width = max(1, round(BOUNDARY_RATIO * float(np.hypot(*truth.shape))))
    one, other = (_boundary(mask, width) for mask in (truth, found))
    intersection, union = one & other & valid, (one | other) & valid
    return np.array([intersection.sum(), union.sum()], np.float64)


def _boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (inner == 0)


def stack(counts: Sequence[Counts]) -> Counts:
    """Stacks the counts of P images; each field gets the shape P×…."""
    return Counts(*(np.stack([getattr(c, f.name) for c in counts]) for f in fields(Counts)))


def weighted_sum(counts: Counts, weights: NDArray[np.float64]) -> Counts:
    """Returns the weighted sum of P×… counts, with …×P weights of the images."""
    return Counts(*(np.tensordot(weights, getattr(counts, f.name), 1) for f in fields(Counts)))


def figures(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Computes metrics from summed counts, each 0 to 1; NaN if a metric is undefined.

    Args:
        counts: Sums over images; leading axes are kept.

    Returns:
        iou, precision, recall: Metrics of rock pixels, pooled over the images.
        mean_iou: IoU of rock pixels, averaged over the images with true or predicted rock.
        boundary_iou: Boundary IoU of rock, pooled over the images.
        false_rock: False positive rate: share of the other pixels that are predicted as rock.
        false_rock_on_empty: The same for the images without true rock.
        ece: Expected calibration error of the probability of rock, in 15 bins of equal width.
        rocks.precision, rocks.recall: Metrics of instances, matched at an IoU of 0.5.
        rocks.mean_iou: Mean IoU of the matched instances.
        rocks.small.…, rocks.medium.…, rocks.large.…: The same for true rocks of that size.
    """
    pixels = counts.pixels
    (_, false_positives), (false_negatives, true_positives) = np.moveaxis(pixels, (-2, -1), (0, 1))
    return {
        'iou': _share(true_positives, true_positives + false_positives + false_negatives),
        'precision': _share(true_positives, true_positives + false_positives),
        'recall': _share(true_positives, true_positives + false_negatives),
        'mean_iou': _share(counts.iou[..., 0], counts.iou[..., 1]),
        'boundary_iou': _share(counts.boundary[..., 0], counts.boundary[..., 1]),
        'false_rock': _share(false_positives, pixels[..., 0, :].sum(axis=-1)),
        'false_rock_on_empty': _share(counts.empty[..., 1], counts.empty.sum(axis=-1)),
        'ece': calibration_error(counts.levels),
        **_rock_figures('rocks', counts.rocks.sum(axis=-2)),
        **{
            name: value
            for index, size in enumerate(SIZES)
            for name, value in _rock_figures(f'rocks.{size}', counts.rocks[..., index, :]).items()
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
    """Sums pixels in 15 bins of the probability of rock.

    Args:
        levels: …×2×256, see `Counts`.

    Returns:
        …×3×15: number of pixels, sum of their probabilities, and number of true rock pixels.
    """
    pixels = levels.sum(axis=-2)
    columns = np.stack([pixels, pixels * np.linspace(0, 1, LEVELS), levels[..., 1, :]], axis=-2)
    return np.add.reduceat(columns, np.arange(CALIBRATION_BINS) * (LEVELS // CALIBRATION_BINS), -1)


def calibration_error(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the expected calibration error (Guo et al. 2017, arXiv:1706.04599), 0 to 1.

    It equals torchmetrics' `BinaryCalibrationError(n_bins=15, norm='l1')`, which stores every pixel
    and is therefore too slow for a bootstrap.
    """
    pixels, probability, rock = np.moveaxis(calibration_bins(levels), -2, 0)
    return _share(np.abs(rock - probability).sum(axis=-1), pixels.sum(axis=-1))


def bootstrap(
    counts: Counts, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Returns the metrics of resampled images (bootstrap, Efron 1979).

    Args:
        counts: P×… counts of the images.
        resamples: Number of resamples, each of P images with replacement.
        seed: Seed of the random draws.

    Returns:
        Name of a metric → array of `resamples` values.
    """
    images = len(counts.pixels)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(images, np.full(images, 1 / images), resamples)
    return figures(weighted_sum(counts, weights.astype(np.float64)))


def summarize(counts: Counts, only_recall: bool = False) -> dict[str, Any]:
    """Returns the metrics of P images with their 95 % intervals, as `--json` prints them.

    Args:
        counts: P×… counts of the images.
        only_recall: Whether the labels are incomplete; all metrics except recall are then None.

    Returns:
        images: P.
        All metrics of `figures` as nested dicts: 'rocks.small.recall' is
        ['rocks']['small']['recall']. Undefined metrics are None. `rocks` also has the numbers of
        rocks, `true` and `found`.
        intervals: The same names with [low, high]; None for fewer than two images.
    """
    images = len(counts.pixels)
    total = weighted_sum(counts, np.ones(images))
    values = {name: _none_if_nan(value) for name, value in figures(total).items()}
    draws = bootstrap(counts)
    intervals = {name: _interval(draws[name]) if images > 1 else None for name in values}
    for name in values:
        if only_recall and not name.endswith('recall'):
            values[name] = intervals[name] = None
    summary = {'images': images, **_nested(values)}
    for name, (true, matched, false, _) in zip(
        ('', *SIZES), (total.rocks.sum(axis=0), *total.rocks), strict=True
    ):
        rocks = summary['rocks'][name] if name else summary['rocks']
        rocks |= {'true': int(true), 'found': None if only_recall else int(matched + false)}
    return summary | {'intervals': _nested(intervals)}


def compare(ours: Counts, theirs: Counts, only_recall: bool = False) -> dict[str, Any]:
    """Returns the differences of the metrics of two networks on the same P images.

    The bootstrap is paired: each resample has the same images for both networks.

    Args:
        ours: P×… counts of the first network.
        theirs: P×… counts of the second network, for the same images in the same order.
        only_recall: See `summarize`.

    Returns:
        The names of `figures`, nested as in `summarize`, each with: difference (ours − theirs),
        interval ([low, high] of 95 %), and excludes_zero, whether the interval excludes 0.
        Difference and interval are None if they are undefined.

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
        value = _none_if_nan(one[name] - other[name]) if known else None
        paired = known and value is not None and images[0] > 1
        bounds = _interval(draws[name] - other_draws[name]) if paired else None
        excludes_zero = bounds is not None and not bounds[0] <= 0 <= bounds[1]
        differences[name] = {
            'difference': value,
            'interval': bounds,
            'excludes_zero': excludes_zero,
        }
    return _nested(differences)


def _none_if_nan(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(draws: NDArray[np.float64]) -> list[float] | None:
    known = draws[~np.isnan(draws)]
    if not known.size:
        return None
    tail = (1 - CONFIDENCE_LEVEL) / 2
    return [float(bound) for bound in np.quantile(known, [tail, 1 - tail])]


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Converts {'a.b': 1} to {'a': {'b': 1}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *parents, leaf = name.split('.')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
