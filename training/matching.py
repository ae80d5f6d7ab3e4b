# SPDX-License-Identifier: Apache-2.0
"""Rock by rock: which true rock was found, and which found rock is none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmenter import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings, draw_instances, find_rocks

SIZES = ('small', 'medium', 'large')
SIZE_LIMITS = (32**2, 96**2)  # COCO's: small below the first, large from the second on, px
MATCH_IOU = 0.5
EVERY_ROCK = RockSettings(min_area=1, max_rocks=65535, split_touching=False)


def rock_labels(segmentation: Segmentation, settings: RockSettings) -> NDArray[np.int32]:
    """Numbers the pixels of each rock that `find_rocks` tells.

    Returns:
        H×W, 0 where there is none of these rocks, else its number, 1 the largest.
    """
    rocks = find_rocks(segmentation, settings)
    return draw_instances(rocks, segmentation.class_ids.shape).astype(np.int32)


def true_labels(
    classes: NDArray[np.uint8], instances: NDArray[np.int32] | None, rock_ids: tuple[int, ...]
) -> NDArray[np.int32]:
    """Numbers the pixels of each true rock.

    Args:
        classes: H×W class ids of a label.
        instances: H×W, 0 or the number of the rock; None where the label does not tell rocks
            apart: then 8-connected components are the rocks, as in what is found.
        rock_ids: The class ids that are rock.

    Returns:
        H×W, 0 where there is no rock.
    """
    if instances is not None:
        return np.where(np.isin(classes, rock_ids), instances, 0).astype(np.int32)
    return rock_labels(Segmentation(classes, np.zeros_like(classes), rock_ids), EVERY_ROCK)


def count_rocks(
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
    counted: NDArray[np.bool_],
    min_area: int = RockSettings.min_area,
) -> NDArray[np.float64]:
    """Matches the rocks of a whole image, as `count_rocks_by_tile` does.

    Returns:
        3×4: small, medium, large × true rocks, those of them that were found, false rocks, sum of
        the found ones' IoU. A false rock is sorted by its own size, the others by the true rock's.
    """
    tiles = np.zeros(truth.shape, np.intp)
    return count_rocks_by_tile(truth, found, counted, tiles, 1, min_area)[0]


def count_rocks_by_tile(
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
    counted: NDArray[np.bool_],
    tiles: NDArray[np.intp],
    number: int,
    min_area: int = RockSettings.min_area,
) -> NDArray[np.float64]:
    """Matches found rocks to true ones at an IoU of 0.5 or more, the best pairs first.

    Rocks are matched whole, across the borders of tiles, and each counts in the tile that has most
    of its pixels. IoU and area are over the counted pixels only (as void is in Kirillov et al.
    2019, arXiv:1801.00868). Left out are true rocks below `min_area` with what matches them, and
    found rocks that match none and lie to more than half on pixels that are not counted.

    Args:
        truth: H×W, 0 or the number of a true rock.
        found: H×W, 0 or the number of a found rock.
        counted: H×W, false where the label is to be ignored.
        tiles: H×W, the number of each pixel's tile, from 0.
        number: Of tiles.
        min_area: Smallest true rock that is asked for, px.

    Returns:
        number×3×4, for each tile what `count_rocks` returns.
    """
    pairs, whole = _overlaps(truth, found, counted)
    true_area, found_area = pairs[1:].sum(axis=1), pairs[:, 1:].sum(axis=0)
    both = pairs[1:, 1:]
    iou = both / np.maximum(1, true_area[:, None] + found_area[None, :] - both)
    partner = _best_partners(iou)
    matched = partner >= 0
    asked = true_area >= min_area
    hit = asked & matched
    false = 2 * found_area >= whole[1:]
    false[partner[matched]] = False
    true_size, found_size = (np.digitize(area, SIZE_LIMITS) for area in (true_area, found_area))
    true_tile, found_tile = (
        _homes(labels, tiles, number) for labels in (np.where(counted, truth, 0), found)
    )
    counts = np.zeros((number, 3, 4))
    np.add.at(counts[..., 0], (true_tile[asked], true_size[asked]), 1)
    np.add.at(counts[..., 1], (true_tile[hit], true_size[hit]), 1)
    np.add.at(counts[..., 2], (found_tile[false], found_size[false]), 1)
    ious = iou[np.flatnonzero(hit), partner[hit]]
    np.add.at(counts[..., 3], (true_tile[hit], true_size[hit]), ious)
    return counts


def _homes(labels: NDArray[np.int32], tiles: NDArray[np.intp], number: int) -> NDArray[np.intp]:
    """Returns the tile that has most of the pixels of each rock, in the order of their numbers."""
    highest = int(labels.max(initial=0))
    cells = labels.astype(np.intp) * number + tiles
    pixels = np.bincount(cells.ravel(), minlength=(highest + 1) * number).reshape(-1, number)
    return pixels[1:][pixels[1:].any(axis=1)].argmax(axis=1)


def _overlaps(
    truth: NDArray[np.int32], found: NDArray[np.int32], counted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns counted pixels of each pair, none (0) among both, and all pixels of each found."""
    numbers = [np.union1d([0], labels) for labels in (truth[counted], found)]
    rows = np.searchsorted(numbers[0], truth[counted])
    columns = np.searchsorted(numbers[1], found)
    shape = (len(numbers[0]), len(numbers[1]))
    pairs = np.bincount(rows * shape[1] + columns[counted], minlength=shape[0] * shape[1])
    return pairs.reshape(shape), np.bincount(columns.ravel(), minlength=shape[1])


def _best_partners(iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the column that each row is matched with, -1 for none; no column twice."""
    partner = np.full(iou.shape[0], -1)
    rows, columns = np.nonzero(iou >= MATCH_IOU)
    for best in np.argsort(-iou[rows, columns], kind='stable'):
        row, column = rows[best], columns[best]
        if partner[row] < 0 and column not in partner:
            partner[row] = column
    return partner
