# SPDX-License-Identifier: Apache-2.0
"""Separation of touching rocks, along the rims that the network finds or by their shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CELLS = 400  # approximate number on the shorter side of the image; more cells find smaller stones
MIN_CELL = 2  # px
LEVELS = np.linspace(0.9, 0.1, 8)
NECK = 2.5  # minimum ratio of a hill to the saddle that separates it; levels change it up to STEP
STEP = 1.25  # ratio of one level to the next
LOWEST = 0.8  # minimum height of a hill, cells
# Weight of each confidence; it decreases steeply below 255.
CERTAINTY = (np.linspace(0, 1, 256) ** 8).astype(np.float32)


@dataclass(frozen=True)
class RimSeparation:
    """Settings of the separation along rims, which `training.tune` compares.

    Attributes:
        cells: Approximate number of cells on the shorter side of the image; more cells find smaller
            stones.
        rim_share: Minimum share of rim in a part of the mask whose rocks are separated, 0 to 1; a
            tenth of it would cut boulders at single pixels of rim.
        full_depth: Distance from the edge beyond which a hill does not rise further, cells. With a
            higher value, more rocks are separated at narrow places without a rim.
        softness: Standard deviation of the smoothing of the hills, cells. A higher value separates
            fewer rocks.
    """

    cells: float = CELLS
    rim_share: float = 0.012
    full_depth: float = 4.0
    softness: float = 0.9

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an invalid one."""
        for name, value in vars(self).items():
            if not 0 < value < float('inf'):
                raise ValueError(f'{name} must be above 0, not {value:g}')


def split_by_rims(
    rock: NDArray[np.uint8],
    rim: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    smallest: int,
    settings: RimSeparation | None = None,
) -> NDArray[np.uint8]:
    """Separates the rocks in the parts of a mask that contain rims.

    In such a heap, each rock is a hill of confidence and of distance from the edge of the heap. The
    cuts are halfway between the tops of the hills: a marker-controlled watershed (Meyer 1994) with
    the distance to the markers as the relief. Parts without rims are not changed. The hills are
    found on a grid of cells of a few pixels; the cuts are one pixel wide.

    Args:
        rock: H×W, 255 where there is rock, else 0.
        rim: H×W, 255 where there is the rim between two rocks, else 0.
        confidence: H×W, 0 to 255, the confidence of each pixel.
        smallest: Minimum number of pixels of a hill that is a separate rock.
        settings: How hills are found; None = the defaults.

    Returns:
        H×W: the rock without the pixels of the cuts; its 8-connected parts are the rocks.
    """
    settings = settings or RimSeparation()
    side = max(MIN_CELL, round(min(rock.shape) / settings.cells))
    share = _shrink(rock, side)
    heaps = _heaps(share, _shrink(rim, side), settings.rim_share)
    relief = _relief((heaps > 0) & (share > 127), _shrink(confidence, side), settings)
    tops = _tops(relief, smallest / side**2)
    if not tops.any():
        return rock
    return _cut_between(_territories(tops, heaps), rock, side)


def split_by_shape(rock: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Separates rocks where the mask is narrow, or the confidence is low, between them.

    It is used for networks without a rim class: a marker-controlled watershed (Meyer 1994) on the
    confidence. The relief is the distance from the edge of the rock times the confidence. The
    markers are the hills that are much higher than the saddle to any higher hill (the dynamics of
    Grimaud 1992, as a ratio). Long or bent rocks stay whole, because their ridge has no saddle.

    Args:
        rock: H×W, 255 where there is rock, else 0.
        confidence: H×W, 0 to 255, the confidence of each pixel.

    Returns:
        H×W: the rock without the pixels of the cuts, which are one pixel wide; its 8-connected
        parts are the rocks.
    """
    side = max(MIN_CELL, round(min(rock.shape) / CELLS))
    body: NDArray[Any] = cv2.inRange(_shrink(rock, side), 128, 255)
    shrunk = _shrink(confidence, side)
    depth = np.minimum(_depth(body), len(body))  # infinite if there is no edge
    cores = _cores(depth * CERTAINTY[shrunk])
    outside = int(cores.max()) + 1
    if outside <= 2:
        return rock
    cores[body == 0] = outside
    cv2.watershed(cv2.merge([shrunk] * 3), cores)
    cores[(cores < 0) | (cores == outside)] = 0
    parts: NDArray[Any] = cv2.connectedComponents(body, connectivity=8)[1]
    return _cut_between(_territories(cores.astype(np.uint16), parts), rock, side)


def _cut_between(
    cells: NDArray[np.uint16], rock: NDArray[np.uint8], side: int
) -> NDArray[np.uint8]:
    """Removes the pixels of rock that touch a cell with a higher number."""
    height, width = rock.shape
    numbers = cv2.copyTo(_grow(cells, side)[:height, :width], rock)
    higher = cv2.dilate(numbers, np.ones((3, 3), np.uint8))
    others = cv2.compare(higher, numbers, cv2.CMP_GT)
    cuts = cv2.bitwise_and(others, cv2.inRange(numbers, 1, 65535))
    return cv2.subtract(rock, cuts)  # type: ignore[return-value]


def _shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Returns the mean of each cell of side×side pixels."""
    below, right = (-length % side for length in pixels.shape)
    if below or right:
        pixels = np.pad(pixels, ((0, below), (0, right)), 'edge')
    size = pixels.shape[1] // side, pixels.shape[0] // side
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _grow(cells: NDArray[Any], side: int) -> NDArray[Any]:
    """Returns side×side pixels of each cell's value."""
    size = cells.shape[1] * side, cells.shape[0] * side
    return cv2.resize(cells, size, interpolation=cv2.INTER_NEAREST)


def _heaps(rock: NDArray[np.uint8], rim: NDArray[np.uint8], rim_share: float) -> NDArray[np.int32]:
    """Numbers the connected parts of rock and rim with a minimum share of rim.

    Args:
        rock: H×W, 0 to 255, the share of rock in each cell.
        rim: H×W, 0 to 255, the share of rim.
        rim_share: The minimum share of rim, 0 to 1.

    Returns:
        H×W, 0 where there is no heap.
    """
    _, parts = cv2.connectedComponents(cv2.bitwise_or(rock, rim), connectivity=8)
    flat = parts.ravel()
    rims, rocks = (np.bincount(flat, share.ravel()) for share in (rim, rock))
    crowded = rims >= rim_share * (rims + rocks)
    crowded[0] = False
    return np.where(crowded[parts], parts, 0)


def _relief(
    heap: NDArray[np.bool_], confidence: NDArray[np.uint8], settings: RimSeparation
) -> NDArray[np.float32]:
    """Returns H×W, 0 to 1: high in the middle of a rock, 0 outside of rocks."""
    height = np.minimum(_depth(heap.view(np.uint8)), settings.full_depth) * (
        confidence.astype(np.float32) / (255 * settings.full_depth)
    )
    return np.where(heap, cv2.GaussianBlur(height, (0, 0), settings.softness), np.float32(0))


def _depth(body: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns H×W, the distance to the background, in cells; the image border is not an edge."""
    padded = cv2.copyMakeBorder(body, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]  # type: ignore


def _tops(relief: NDArray[np.float32], smallest: float) -> NDArray[np.uint16]:
    """Finds the hills of a relief: its highest parts that are large enough.

    Args:
        relief: H×W, 0 to 1.
        smallest: Minimum number of cells of a hill.

    Returns:
        H×W: 0, or the number of the hill whose top contains the cell.
    """
    tops = np.zeros(relief.size, np.uint16)
    seeds = np.zeros(0, np.intp)  # one cell of each top
    for level in LEVELS:
        _, labels = cv2.connectedComponents((relief >= level).view(np.uint8), connectivity=4)
        parts = labels.ravel().astype(np.intp)
        large = np.bincount(parts) >= max(1, smallest)
        large[0] = False
        large[parts[seeds]] = False
        cells = np.flatnonzero(large[parts])
        tops[cells] = (len(seeds) + np.cumsum(large))[parts[cells]]
        seed_of = np.zeros(len(large), np.intp)
        seed_of[parts[cells]] = cells
        seeds = np.append(seeds, seed_of[large])
    return tops.reshape(relief.shape)


def _cores(relief: NDArray[np.float32]) -> NDArray[np.int32]:
    """Finds the hills that are `NECK` times as high as the saddle to any higher hill.

    Args:
        relief: H×W, 0 or more.

    Returns:
        H×W: 0, or the number of the hill, down to the level where it meets another hill.
    """
    cores = np.zeros(relief.size, np.int32)
    cells = np.flatnonzero(relief >= LOWEST)
    heights = relief.ravel()[cells]
    seeds = np.zeros(0, np.intp)  # one cell of each hill
    for level in _levels(float(relief.max())):
        count, labels = cv2.connectedComponents((relief >= level).view(np.uint8), connectivity=4)
        flat = labels.ravel()
        parts = flat[cells]
        owners = np.bincount(flat[seeds], minlength=count)
        new = np.bincount(parts[heights >= NECK * level], minlength=count) > 0
        new &= owners == 0
        seed_of = np.zeros(count, np.intp)
        seed_of[parts] = cells
        seeds = np.append(seeds, seed_of[new])
        numbers = np.zeros(count, np.int32)
        numbers[flat[seeds]] = np.arange(1, len(seeds) + 1)
        numbers[owners > 1] = 0
        cores[cells] = np.where(numbers[parts], numbers[parts], cores[cells])
    return cores.reshape(relief.shape)


def _levels(top: float) -> NDArray[np.float64]:
    """Returns the levels at which hills are searched, from high to low."""
    return np.array(top) / STEP ** np.arange(1, np.log(max(1, top / LOWEST)) // np.log(STEP) + 1)


def _territories(tops: NDArray[np.uint16], heaps: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Returns H×W: in heaps the number of the nearest top; 0 if that is in another heap."""
    _, nearest = cv2.distanceTransformWithLabels(
        (tops == 0).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    top = tops > 0
    numbers = np.zeros(int(nearest.max()) + 1, np.uint16)
    heap_of = np.zeros(len(numbers), np.int32)
    numbers[nearest[top]], heap_of[nearest[top]] = tops[top], heaps[top]
    return np.where((heaps > 0) & (heap_of[nearest] == heaps), numbers[nearest], np.uint16(0))
