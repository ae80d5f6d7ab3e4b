# SPDX-License-Identifier: Apache-2.0
"""Matches predicted instances to true ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings, draw_instances, find_rocks

SIZES = ('small', 'medium', 'large')
SIZE_LIMITS = (32**2, 96**2)  # px², as in COCO: small is below the first, large from the second
MATCH_IOU = 0.5
ALL_COMPONENTS = RockSettings(min_area=1, max_rocks=65535, split_touching=False)


def rock_labels(segmentation: Segmentation, settings: RockSettings) -> NDArray[np.int32]:
    """Labels the pixels of each rock that `find_rocks` returns.

    Returns:
        H×W instance ids, 0 = none; 1 is the largest rock.
    """
    rocks = find_rocks(segmentation, settings)
    return draw_instances(rocks, segmentation.class_ids.shape).astype(np.int32)


def true_labels(
    classes: NDArray[np.uint8], instances: NDArray[np.int32] | None, rock_ids: tuple[int, ...]
) -> NDArray[np.int32]:
    """Labels the pixels of each true rock.

    Args:
        classes: H×W class ids of a label.
        instances: H×W instance ids of the label, 0 = none. None = the label has no instances; the
            rocks are then the 8-connected components, as in the predictions.
        rock_ids: The class ids that are rock.

    Returns:
        H×W instance ids, 0 = no rock.
    """
    if instances is not None:
        return np.where(np.isin(classes, rock_ids), instances, 0).astype(np.int32)
    return rock_labels(Segmentation(classes, np.zeros_like(classes), rock_ids), ALL_COMPONENTS)


def count_rocks(
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
    valid: NDArray[np.bool_],
    min_area: int = RockSettings.min_area,
) -> NDArray[np.float64]:
    """Matches the rocks of a whole image; see `count_rocks_by_tile`.

    Returns:
        3×4: small, medium, large × number of true rocks, true positives, false positives, and sum
        of the IoU of the true positives. The size of a false positive is its own; for the others,
        it is that of the true rock.
    """
    tiles = np.zeros(truth.shape, np.intp)
    return count_rocks_by_tile(truth, found, valid, tiles, 1, min_area)[0]


def count_rocks_by_tile(
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
    valid: NDArray[np.bool_],
    tiles: NDArray[np.intp],
    tile_count: int,
    min_area: int = RockSettings.min_area,
) -> NDArray[np.float64]:
    """Matches predicted rocks to true ones at an IoU of 0.5 or more, the best pairs first.

    Rocks are matched as a whole, across the borders of tiles, and each is counted in the tile with
    most of its pixels. IoU and area use valid pixels only (like void in Kirillov et al. 2019,
    arXiv:1801.00868). Not counted are true rocks below `min_area` with their matches, and unmatched
    predicted rocks with more than half of their pixels on ignored pixels.

    Args:
        truth: H×W instance ids of true rocks, 0 = none.
        found: H×W instance ids of predicted rocks, 0 = none.
        valid: H×W, false for ignored pixels.
        tiles: H×W index of the tile of each pixel.
        tile_count: Number of tiles.
        min_area: Minimum area of a true rock, px.

    Returns:
        tile_count×3×4, the result of `count_rocks` per tile.
    """
    pairs, full_area = _overlaps(truth, found, valid)
    true_area, found_area = pairs[1:].sum(axis=1), pairs[:, 1:].sum(axis=0)
    intersection = pairs[1:, 1:]
    union = true_area[:, None] + found_area[None, :] - intersection
    iou = intersection / np.maximum(1, union)
    partner = _best_partners(iou)
    matched = partner >= 0
    large_enough = true_area >= min_area
    true_positive = large_enough & matched
    false_positive = 2 * found_area >= full_area[1:]
    false_positive[partner[matched]] = False
    true_size, found_size = (np.digitize(area, SIZE_LIMITS) for area in (true_area, found_area))
    true_tile, found_tile = (
        _main_tiles(labels, tiles, tile_count) for labels in (np.where(valid, truth, 0), found)
    )
    counts = np.zeros((tile_count, 3, 4))
    np.add.at(counts[..., 0], (true_tile[large_enough], true_size[large_enough]), 1)
    np.add.at(counts[..., 1], (true_tile[true_positive], true_size[true_positive]), 1)
    np.add.at(counts[..., 2], (found_tile[false_positive], found_size[false_positive]), 1)
    ious = iou[np.flatnonzero(true_positive), partner[true_positive]]
    np.add.at(counts[..., 3], (true_tile[true_positive], true_size[true_positive]), ious)
    return counts


def _main_tiles(
    labels: NDArray[np.int32], tiles: NDArray[np.intp], tile_count: int
) -> NDArray[np.intp]:
    """Returns the tile with most of the pixels of each rock, in the order of instance ids."""
    highest = int(labels.max(initial=0))
    cells = labels.astype(np.intp) * tile_count + tiles
    pixels = np.bincount(cells.ravel(), minlength=(highest + 1) * tile_count)
    pixels = pixels.reshape(-1, tile_count)
    return pixels[1:][pixels[1:].any(axis=1)].argmax(axis=1)


def _overlaps(
    truth: NDArray[np.int32], found: NDArray[np.int32], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts the pixels of pairs of rocks.

    Returns:
        Number of valid pixels by true and predicted rock, where row and column 0 are no rock; and
        number of all pixels per predicted rock.
    """
    ids = [np.union1d([0], labels) for labels in (truth[valid], found)]
    rows = np.searchsorted(ids[0], truth[valid])
    columns = np.searchsorted(ids[1], found)
    shape = (len(ids[0]), len(ids[1]))
    pairs = np.bincount(rows * shape[1] + columns[valid], minlength=shape[0] * shape[1])
    return pairs.reshape(shape), np.bincount(columns.ravel(), minlength=shape[1])


def _best_partners(iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the matched column of each row, -1 for none; each column is used at most once."""
    partner = np.full(iou.shape[0], -1)
    rows, columns = np.nonzero(iou >= MATCH_IOU)
    for best in np.argsort(-iou[rows, columns], kind='stable'):
        row, column = rows[best], columns[best]
        if partner[row] < 0 and column not in partner:
            partner[row] = column
    return partner
