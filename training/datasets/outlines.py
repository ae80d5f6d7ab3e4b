# SPDX-License-Identifier: Apache-2.0
"""Outlines and run lengths → class ids and instance numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.datasets.sample import DataError, Sample
from training.datasets.selection import join_first

FAR = 10  # image sides; a point farther out is a mistake, and would cost memory without end

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Region:
    """A labelled part of an image.

    Attributes:
        what: Its name in messages, such as 'annotation 12'.
        class_id: Class of its pixels, 255 = ignored.
        number: Instance number, 0 = none.
        polygons: V×2 float64 outlines, V at least 3, in px, (0, 0) being the image's corner; a
            region of several parts has several.
        runs: Instead of polygons: lengths of the runs outside, inside, outside, … down the
            columns (COCO's uncompressed RLE), for an image of `size`.
        size: Width and height that `runs` are for, px.
        corner: Left and top of the part of the image that `runs` are for, px; None = the whole.
    """

    what: str
    class_id: int
    number: int
    polygons: tuple[NDArray[np.float64], ...] = ()
    runs: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    corner: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class OutlinedSample(Sample):
    """An image with regions.

    Attributes:
        labels: The file that the regions are from.
        unlabelled: Class id of what no region covers.
        size: Width and height that the label file tells, px; None if it does not.
        regions: In the file's order.
    """

    labels: Path
    unlabelled: int
    size: tuple[int, int] | None = None
    regions: tuple[Region, ...] = field(default=(), repr=False, compare=False)

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Fills the regions, small over large, so that a belt never hides what lies on it."""
        if self.size not in (None, (width, height)):
            told = '×'.join(map(str, self.size or ()))
            raise DataError(f'{self.labels}: {self.name} is {told}, its image {width}×{height}')
        filled, faults = [], []
        for region in self.regions:
            try:
                window, inside = fill(region, height, width)
            except DataError as error:
                faults.append(f'{region.what} {error}')
            else:
                filled.append((np.count_nonzero(inside), window, inside, region))
        if faults:
            raise DataError(f'{self.labels}: {join_first(faults, "; ")}')
        classes = np.full((height, width), self.unlabelled, np.uint8)
        instances = np.zeros((height, width), np.int32)
        for _, window, inside, region in sorted(filled, key=lambda entry: -entry[0]):
            classes[window][inside] = region.class_id
            instances[window][inside] = region.number
        return classes, instances

    def label_files(self) -> tuple[Path, ...]:
        """Returns the one label file."""
        return (self.labels,)


def fill(region: Region, height: int, width: int) -> tuple[Window, NDArray[np.bool_]]:
    """Tells which pixels of an image a region covers.

    Returns:
        A window of the image, and which of the window's pixels are inside.

    Raises:
        DataError: The region is of another size, outside the image, or without any area.
    """
    if region.runs and region.corner is not None:
        return _cut(_unrolled(region.runs, region.size[1]), region.corner, height, width)
    if region.runs:
        if region.size != (width, height):
            told = '×'.join(map(str, region.size))
            raise DataError(f'is {told}, its image {width}×{height}')
        return (slice(None), slice(None)), _unrolled(region.runs, height)
    points = np.concatenate(region.polygons)
    if np.abs(points).max() > FAR * max(height, width):
        raise DataError(f'reaches {np.abs(points).max():.3g} px; its image is {width}×{height}')
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int), (width, height))
    if not np.ptp(points, axis=0).all():
        raise DataError('has no area')
    _check_inside(left, top, right, bottom, height, width)
    # Only the window is filled: a whole large image a rock would cost ten times as much.
    moved: list[Any] = [(polygon - (left, top)).ravel().tolist() for polygon in region.polygons]
    parts = coco_mask.frPyObjects(moved, int(bottom - top), int(right - left))
    runs = decompress(coco_mask.merge(parts)['counts'].decode())
    return (slice(top, bottom), slice(left, right)), _unrolled(runs, int(bottom - top))


def _cut(
    inside: NDArray[np.bool_], corner: tuple[int, int], height: int, width: int
) -> tuple[Window, NDArray[np.bool_]]:
    """Returns the window of a part of the image, without what lies outside the image."""
    x, y = corner
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + inside.shape[1], width), min(y + inside.shape[0], height)
    _check_inside(left, top, right, bottom, height, width)
    return (slice(top, bottom), slice(left, right)), inside[
        top - y : bottom - y, left - x : right - x
    ]


def _check_inside(left: int, top: int, right: int, bottom: int, height: int, width: int) -> None:
    if left >= right or top >= bottom:
        raise DataError(f'lies outside its image, which is {width}×{height}')


def run_lengths(inside: NDArray[np.bool_]) -> tuple[int, ...]:
    """Returns H×W bool as a region's `runs`."""
    return tuple(
        decompress(coco_mask.encode(np.asfortranarray(inside, np.uint8))['counts'].decode())
    )


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Returns an image's size as a label file tells it; None if it does not.

    Raises:
        DataError: It tells something else than numbers.
    """
    if width is None or height is None:
        return None
    if not all(isinstance(side, int | float) for side in (width, height)):
        raise DataError(f'has the width {width!r} and the height {height!r}, which are no numbers')
    return width, height


def decompress(counts: str) -> list[int]:
    """Reads COCO's compressed run lengths.

    pycocotools' own reader runs past the end of a text that is cut off, and warns with NumPy 2.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _unrolled(runs: Sequence[int], height: int) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(-1, height).T


def polygon(points: Sequence[Any]) -> NDArray[np.float64]:
    """Reads an outline.

    Args:
        points: x and y of each point, px; flat or in pairs.

    Returns:
        V×2 float64.

    Raises:
        DataError: They are no numbers, or fewer than three points.
    """
    try:
        numbers = np.asarray(points, np.float64).ravel()
    except (TypeError, ValueError):
        raise DataError('has a polygon of something that is no number') from None
    if numbers.size % 2:
        raise DataError(f'has a polygon of {numbers.size} numbers; x and y come in pairs')
    if numbers.size < 6:
        raise DataError(f'has a polygon of {numbers.size // 2} points; 3 are the least')
    if not np.isfinite(numbers).all():
        raise DataError('has a polygon with a number that is not finite')
    return numbers.reshape(-1, 2)
