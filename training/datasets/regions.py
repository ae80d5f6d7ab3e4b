# SPDX-License-Identifier: Apache-2.0
"""Converts polygons and run lengths to class ids and instance ids."""

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

MAX_DISTANCE = 10  # image sides; a point farther away is an error and would need much memory

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Region:
    """A labelled part of an image.

    Attributes:
        name: Name in messages, such as 'annotation 12'.
        class_id: Class of its pixels, 255 = ignored.
        instance_id: Instance id, 0 = none.
        polygons: V×2 float64 polygons with V at least 3, px, where (0, 0) is the corner of the
            image; one per part of the region.
        runs: Used instead of polygons: lengths of alternating runs outside and inside the region,
            along the columns (COCO's uncompressed RLE), for an area of `size`.
        size: Width and height of the area of `runs`, px.
        corner: Left and top of the area of `runs`, px; None = the area is the whole image.
    """

    name: str
    class_id: int
    instance_id: int
    polygons: tuple[NDArray[np.float64], ...] = ()
    runs: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    corner: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class RegionSample(Sample):
    """An image with labelled regions.

    Attributes:
        labels: The label file.
        unlabelled: Class id of the pixels that no region covers.
        size: Width and height of the image in the label file, px; None if it has none.
        regions: The regions in the order of the file.
    """

    labels: Path
    unlabelled: int
    size: tuple[int, int] | None = None
    regions: tuple[Region, ...] = field(default=(), repr=False, compare=False)

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Draws the regions; smaller ones cover larger ones, as rocks cover the belt below them."""
        if self.size not in (None, (width, height)):
            size = '×'.join(map(str, self.size or ()))
            raise DataError(
                f'{self.labels}: {self.name} has the size {size}, but its image {width}×{height}'
            )
        drawn, faults = [], []
        for region in self.regions:
            try:
                window, inside = rasterize(region, height, width)
            except DataError as error:
                faults.append(f'{region.name} {error}')
            else:
                drawn.append((np.count_nonzero(inside), window, inside, region))
        if faults:
            raise DataError(f'{self.labels}: {join_first(faults, "; ")}')
        classes = np.full((height, width), self.unlabelled, np.uint8)
        instances = np.zeros((height, width), np.int32)
        for _, window, inside, region in sorted(drawn, key=lambda entry: -entry[0]):
            classes[window][inside] = region.class_id
            instances[window][inside] = region.instance_id
        return classes, instances

    def label_files(self) -> tuple[Path, ...]:
        """Returns the label file."""
        return (self.labels,)


def rasterize(region: Region, height: int, width: int) -> tuple[Window, NDArray[np.bool_]]:
    """Converts a region to a mask.

    Args:
        region: The region.
        height: Height of the image, px.
        width: Width of the image, px.

    Returns:
        A window of the image, and a bool mask of the window.

    Raises:
        DataError: The region is for another image size, outside the image, or has no area.
    """
    if region.runs:
        if region.corner is None and region.size != (width, height):
            size = '×'.join(map(str, region.size))
            raise DataError(f'has the size {size}, but its image {width}×{height}')
        inside = _decode_runs(region.runs, region.size[1])
        if not inside.any():
            raise DataError('has no area')
        if region.corner is not None:
            return _clip(inside, region.corner, height, width)
        return (slice(None), slice(None)), inside
    points = np.concatenate(region.polygons)
    if np.abs(points).max() > MAX_DISTANCE * max(height, width):
        raise DataError(f'extends to {np.abs(points).max():.3g} px; its image is {width}×{height}')
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int), (width, height))
    if not np.ptp(points, axis=0).all():
        raise DataError('has no area')
    _check_inside(left, top, right, bottom, height, width)
    # Only the window is drawn; drawing a whole large image per rock would take ten times as long.
    shifted: list[Any] = [(polygon - (left, top)).ravel().tolist() for polygon in region.polygons]
    parts = coco_mask.frPyObjects(shifted, int(bottom - top), int(right - left))
    runs = decompress(coco_mask.merge(parts)['counts'].decode())
    return (slice(top, bottom), slice(left, right)), _decode_runs(runs, int(bottom - top))


def _clip(
    inside: NDArray[np.bool_], corner: tuple[int, int], height: int, width: int
) -> tuple[Window, NDArray[np.bool_]]:
    """Returns window and mask of a part of the image, clipped to the image."""
    x, y = corner
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + inside.shape[1], width), min(y + inside.shape[0], height)
    _check_inside(left, top, right, bottom, height, width)
    return (slice(top, bottom), slice(left, right)), inside[
        top - y : bottom - y, left - x : right - x
    ]


def _check_inside(left: int, top: int, right: int, bottom: int, height: int, width: int) -> None:
    if left >= right or top >= bottom:
        raise DataError(f'is outside its image, which is {width}×{height}')


def encode_runs(inside: NDArray[np.bool_]) -> tuple[int, ...]:
    """Converts an H×W bool mask to the `runs` of a region."""
    return tuple(
        decompress(coco_mask.encode(np.asfortranarray(inside, np.uint8))['counts'].decode())
    )


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Returns the image size in a label file as width and height; None if it is missing.

    Raises:
        DataError: A value is not a number.
    """
    if width is None or height is None:
        return None
    if not all(isinstance(side, int | float) for side in (width, height)):
        raise DataError(f'has the width {width!r} and the height {height!r}; both must be numbers')
    return width, height


def decompress(counts: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    The decoder of pycocotools reads past the end of a truncated text, and warns with NumPy 2.
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


def _decode_runs(runs: Sequence[int], height: int) -> NDArray[np.bool_]:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(-1, height).T


def polygon(points: Sequence[Any]) -> NDArray[np.float64]:
    """Converts a list of coordinates to a polygon.

    Args:
        points: x and y of each point, px, as a flat list or as pairs.

    Returns:
        V×2 float64.

    Raises:
        DataError: A coordinate is not a number, or there are fewer than three points.
    """
    try:
        array = np.asarray(points, np.float64)
    except (OverflowError, TypeError, ValueError):
        raise DataError('has a polygon with a coordinate that is not a number') from None
    if array.size and array.shape[1:] not in ((), (2,)):
        raise DataError('has a polygon with a point that is not a pair of x and y')
    numbers = array.ravel()
    if numbers.size % 2:
        raise DataError(f'has a polygon of {numbers.size} numbers; it must be pairs of x and y')
    if numbers.size < 6:
        raise DataError(f'has a polygon of {numbers.size // 2} points; the minimum is 3')
    if not np.isfinite(numbers).all():
        raise DataError('has a polygon with a number that is not finite')
    return numbers.reshape(-1, 2)
