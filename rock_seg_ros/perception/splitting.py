# SPDX-License-Identifier: Apache-2.0
"""Cutting rocks apart that touch, where the network saw a rim between rocks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

RIM_SHARE = 0.01
LEVELS = np.linspace(0.98, 0.1, 16)
FULL_DEPTH = 8.0
SOFTNESS = 2.5
LEAST_RISE = 0.03


def cut_apart(
    rock: NDArray[np.bool_],
    rim: NDArray[np.bool_],
    confidence: NDArray[np.uint8],
    smallest: int,
) -> NDArray[np.bool_]:
    """Cuts the parts of a mask that the network's rims tell to be heaps of rocks.

    In a heap each rock is a hill of confidence and of distance from the heap's edge; the cuts lie
    halfway between the hills' tops (a marker-controlled watershed, Meyer 1994, with the distance to
    the markers as the relief). What has no rims stays as it is.

    Args:
        rock: H×W, where there is rock.
        rim: H×W, where there is the rim between two rocks.
        confidence: H×W, 0 to 255, of the class of each pixel.
        smallest: A hill with fewer pixels is no rock of its own.

    Returns:
        H×W: the rock without the pixels of the cuts; 8-connected parts are rocks.
    """
    if not rim.any():
        return rock
    heaps = _heaps(rock, rim)
    if not heaps.any():
        return rock
    tops = _tops(_relief(heaps > 0, confidence), smallest)
    if not tops.any():
        return rock
    _, nearest = cv2.distanceTransformWithLabels(
        (tops == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    top = tops > 0
    number_of, heap_of = np.zeros((2, int(nearest.max()) + 1), np.float32)
    number_of[nearest[top]], heap_of[nearest[top]] = tops[top], heaps[top]
    # A top of another heap may be nearer than any of the own; it has no say here.
    numbers = np.where((heaps > 0) & (heap_of[nearest] == heaps), number_of[nearest], 0)
    return rock & ~((numbers > 0) & (cv2.dilate(numbers, np.ones((3, 3), np.uint8)) > numbers))


def _heaps(rock: NDArray[np.bool_], rim: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Numbers the rock in connected parts of which a share of `RIM_SHARE` or more is rim.

    Returns:
        H×W, 0 where there is no rock of a heap.
    """
    _, parts = cv2.connectedComponents((rock | rim).view(np.uint8), connectivity=8)
    pixels = np.bincount(parts.ravel())
    crowded = np.bincount(parts[rim], minlength=len(pixels)) >= RIM_SHARE * pixels
    crowded[0] = False
    return np.where(crowded[parts] & rock, parts, 0)


def _relief(heap: NDArray[np.bool_], confidence: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns H×W, 0 to 1: high in the middle of a rock, 0 outside."""
    padded = cv2.copyMakeBorder(heap.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    height = np.minimum(depth, FULL_DEPTH) * (confidence.astype(np.float32) / (255 * FULL_DEPTH))
    return np.where(heap, cv2.GaussianBlur(height, (0, 0), SOFTNESS), np.float32(0))


def _tops(relief: NDArray[np.float32], smallest: int) -> NDArray[np.int32]:
    """Finds the hills of a relief that are large enough and rise enough above the next saddle.

    Returns:
        H×W, 0 or the number of the hill whose top this is.
    """
    tops = np.zeros(relief.shape, np.int32)
    peaks = [0.0]
    for level in LEVELS:
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (relief >= level).astype(np.uint8), connectivity=4
        )
        inside = tops > 0
        pairs = np.unique(np.stack([parts[inside], tops[inside]]), axis=1)
        tops[np.isin(tops, _drowned(pairs, np.array(peaks), level))] = 0
        large = stats[:, cv2.CC_STAT_AREA] >= max(1, smallest)
        large[[0, *pairs[0]]] = False
        number_of = np.zeros(count, np.int32)
        number_of[large] = np.arange(len(peaks), len(peaks) + int(large.sum()))
        peaks += [float(level)] * int(large.sum())
        tops += number_of[parts]
    return tops


def _drowned(
    pairs: NDArray[np.int32], peaks: NDArray[np.float64], level: float
) -> NDArray[np.int32]:
    """Returns the hills that hardly rise above a level at which they join a higher one.

    Args:
        pairs: 2×P: number of a part at this level, and of a hill in it.
        peaks: Height of each hill, by its number.
        level: Height of the saddle.
    """
    parts, hills = pairs
    order = np.lexsort((hills, -peaks[hills], parts))
    highest = np.zeros(len(hills), bool)
    highest[order[np.flatnonzero(np.diff(parts[order], prepend=-1))]] = True
    return hills[~highest & (peaks[hills] * (1 - LEAST_RISE) < level)]
