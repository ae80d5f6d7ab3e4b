# SPDX-License-Identifier: Apache-2.0
"""Class ids → rocks: instances, polygons, measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation, class_mask
from rock_seg_ros.perception.instances.splitting import split_by_rims, split_by_shape

REACH = 3  # px; about a rim's width
SQUARE = np.ones((3, 3), np.uint8)


def _row_bounds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tells from the steps to and from a contour's pixel whether its row ends there, and starts.

    A contour has the rock on its left: what it sweeps on its right between two steps is none.

    Returns:
        Two tables of 0 and 1, each 81: 9 times the step there, and the step from there; a step is
        4 + dx + 3·dy, 4 for that of a lone pixel.
    """
    steps = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]  # clockwise
    codes = [4 + x + 3 * y for x, y in steps]
    tables = np.zeros((2, 81))
    for (to, there), (away, back) in product(enumerate(codes), repeat=2):
        swept = (to + 4 - away) % 8 or 8
        for table, side in zip(tables, (0, 4), strict=True):  # beyond the pixel, before it
            table[9 * there + back] = 0 < (to + 4 - side) % 8 < swept
    tables[:, 40] = 1
    return tables[0], tables[1]


ROW_ENDS, ROW_STARTS = _row_bounds()


@dataclass(frozen=True)
class Rock:
    """One rock in one image.

    Pixel coordinates have x to the right, y down, and whole numbers at pixel centres.

    Attributes:
        id: Number of the rock.
        class_id: Its class.
        score: Mean confidence of its pixels, 0 to 1.
        area: Pixels.
        box: x, y of the first pixel, width and height, px.
        centroid: Mean x and y of its pixels, px.
        polygon: V×2 float32 outer contour, V at least 3, clockwise as seen.
        mask: Of the box's height and width, not 0 where the rock is.
    """

    id: int
    class_id: int
    score: float
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    polygon: NDArray[np.float32]
    mask: NDArray[np.uint8] = field(repr=False, compare=False)


@dataclass(frozen=True)
class RockSettings:
    """Which rocks are told, and how finely.

    Attributes:
        min_area: Smaller ones are left out, px.
        max_rocks: Only the largest so many are told.
        polygon_tolerance: Largest distance of a contour point from its polygon, px.
        split_touching: Whether rocks that touch are cut apart: along the rims that the network saw,
            by their shape where it knows no rims. Of rims and cuts each rock gets what is near it.
    """

    min_area: int = 50
    max_rocks: int = 200
    polygon_tolerance: float = 1.0
    split_touching: bool = True


def find_rocks(segmentation: Segmentation, settings: RockSettings) -> list[Rock]:
    """Finds the 8-connected components of each rock class, cut apart where wanted, largest first.

    Returns:
        At most `max_rocks` rocks, numbered from 1 in that order.
    """
    rims: NDArray[np.uint8] | None = None
    if settings.split_touching and segmentation.rim_id is not None:
        rims = class_mask(segmentation.class_ids, segmentation.rim_id)
    if settings.split_touching and (rims is None or cv2.countNonZero(rims)):
        found = _cut_rocks(segmentation, rims, settings)
        sure = segmentation.confidence  # a rim that was given to a rock has its own, too
    else:
        found, sure = [], segmentation.rock_confidence
        for class_id in segmentation.rock_ids:
            rock = class_mask(segmentation.class_ids, class_id)
            found.extend(_components(rock, class_id, settings))
    found.sort(key=lambda component: -component.area)
    return [
        _measure(number, component, sure, settings.polygon_tolerance)
        for number, component in enumerate(found[: settings.max_rocks], start=1)
    ]


def draw_instances(rocks: Sequence[Rock], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Numbers the pixels of each rock.

    Args:
        rocks: At most 65535.
        shape: Height and width of the image, px.

    Returns:
        H×W: 0, or the rock's place in the sequence counted from 1.
    """
    numbers = np.zeros(shape, np.uint16)
    for number, rock in enumerate(rocks, start=1):
        x, y, width, height = rock.box
        numbers[y : y + height, x : x + width][rock.mask > 0] = number
    return numbers


def _cut_rocks(
    segmentation: Segmentation, rims: NDArray[np.uint8] | None, settings: RockSettings
) -> list[Component]:
    """Finds the rocks of all classes, cut apart, each with its share of the seams.

    Args:
        segmentation: In which they are.
        rims: H×W, 255 where there is a rim, else 0; None = the network knows none.
        settings: Which rocks are told.
    """
    found: list[Component] = []
    free: NDArray[Any] = np.zeros_like(segmentation.class_ids) if rims is None else rims.copy()
    for class_id in segmentation.rock_ids:
        rock = class_mask(segmentation.class_ids, class_id)
        if not cv2.countNonZero(rock):
            continue
        if rims is None:
            cut = split_by_shape(rock, segmentation.confidence)
        else:
            cut = split_by_rims(rock, rims, segmentation.confidence, settings.min_area)
        seams: NDArray[Any] = cv2.bitwise_or(free, cv2.subtract(rock, cut))
        found.extend(_with_seams(_components(cut, class_id, settings), seams, settings))
        cv2.bitwise_and(free, seams, free)
    return found


@dataclass(frozen=True)
class Component:
    """One 8-connected component of a mask.

    Attributes:
        class_id: Its class.
        area: Pixels.
        centroid: Mean x and y of its pixels, px.
        mask: H×W, the mask that it is part of: 0 or 255.
        contours: Its outer contour and those of its holes, V×2 int32, all through its own pixels,
            where they bend.
    """

    class_id: int
    area: int
    centroid: tuple[float, float]
    mask: NDArray[np.uint8]
    contours: list[NDArray[np.int32]]

    def cut_out(self) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
        """Returns its box (x, y, width, height) and a mask of the box's size, 255 where it is."""
        x, y, width, height = cv2.boundingRect(self.contours[0])
        own = self.mask[y : y + height, x : x + width]
        if cv2.countNonZero(own) != self.area:  # others reach into the box
            own = np.zeros((height, width), np.uint8)
            cv2.fillPoly(own, self.contours, 255, offset=(-x, -y))
        return (x, y, width, height), own


def _components(mask: NDArray[np.uint8], class_id: int, settings: RockSettings) -> list[Component]:
    """Finds the components of a mask that are large enough, the largest `max_rocks` of them."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    return _sorted_out(contours, tree[0, :, 3].astype(np.intp), mask, class_id, settings)


def _with_seams(
    components: list[Component], seams: NDArray[np.uint8], settings: RockSettings
) -> list[Component]:
    """Gives each rock in turn the pixels of seams that are at most `REACH` steps from it.

    Args:
        components: Of one class and mask, the largest first.
        seams: H×W, 255 where there is a rim or a cut, else 0; what is given away becomes 0.
        settings: Which rocks are told.
    """
    if not components:
        return []
    whole: NDArray[Any] = cv2.bitwise_or(components[0].mask, seams)
    others: list[Component] = []
    contours: list[Any] = []
    parents: list[NDArray[np.intp]] = []
    for component in components:
        (x, y, width, height), own = component.cut_out()
        left, top = max(0, x - REACH), max(0, y - REACH)
        free = seams[top : y + height + REACH, left : x + width + REACH]
        if not cv2.countNonZero(free):
            others.append(component)
            continue
        grown = np.zeros(free.shape, np.uint8)
        grown[y - top : y - top + height, x - left : x - left + width] = own
        for _ in range(REACH):
            cv2.bitwise_or(grown, cv2.bitwise_and(cv2.dilate(grown, SQUARE), free), grown)
        cv2.subtract(free, grown, free)
        own_contours, tree = cv2.findContours(
            grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top)
        )
        parents.append(np.where(tree[0, :, 3] < 0, -1, tree[0, :, 3] + len(contours)))
        contours.extend(own_contours)
    if not contours:
        return others
    class_id = components[0].class_id
    return others + _sorted_out(contours, np.concatenate(parents), whole, class_id, settings)


def _sorted_out(
    contours: Sequence[Any],
    parents: NDArray[np.intp],
    mask: NDArray[np.uint8],
    class_id: int,
    settings: RockSettings,
) -> list[Component]:
    """Makes components of contours, the largest first.

    Args:
        contours: N, of V×1×2 int32 from cv2.findContours without approximation.
        parents: N, of a hole the number of its outer contour, of an outer one below 0.
        mask: H×W, the mask in which they are.
        class_id: Of the mask.
        settings: Which rocks are told.
    """
    sums, corners = _follow(contours)
    holes = np.flatnonzero(parents >= 0)
    if len(holes):
        np.add.at(sums, parents[holes], sums[holes])
        sums[holes] = 0
    order = np.argsort(-sums[:, 0], kind='stable')
    kept = order[sums[order, 0] >= max(1, settings.min_area)][: settings.max_rocks].tolist()
    members = {number: [corners[number]] for number in kept}
    for number, parent in zip(holes.tolist(), parents[holes].tolist(), strict=True):
        if parent in members:
            members[parent].append(corners[number])
    return [
        Component(class_id, int(area), (x / area, y / area), mask, members[number])
        for number, (area, x, y) in zip(kept, sums[kept].tolist(), strict=True)
    ]


def _follow(contours: Sequence[Any]) -> tuple[NDArray[np.float64], list[NDArray[np.int32]]]:
    """Follows contours step by step, all at once.

    Pixels are summed by the discrete theorem of Green (Yang and Albregtsen 1996): each row of
    pixels from where it ends to where it starts, in whole numbers all the way.

    Args:
        contours: N, of V×1×2 int32 from cv2.findContours without approximation.

    Returns:
        N×3, the number of the pixels enclosed and the sums of their x and y, of a hole those that
        it takes away, below 0; N contours V×2 of no pixels but their first and where they bend.
    """
    lengths = np.array([len(contour) for contour in contours])
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    points = np.concatenate(contours)[:, 0]
    places = points[:, 0] + 3 * points[:, 1]
    steps, before = np.empty_like(places), np.empty_like(places)
    np.subtract(places[1:], places[:-1], out=steps[:-1])
    steps[last] = places[first] - places[last]
    before[1:] = steps[:-1]
    before[first] = steps[last]
    x, y = points.T.astype(np.float64)
    ends, starts = (table.take(9 * before + steps + 40) for table in (ROW_ENDS, ROW_STARTS))
    pixels = x * (ends - starts) + starts
    columns = (pixels, x * (pixels + ends) / 2, y * pixels)
    sums = np.stack([np.add.reduceat(column, first) for column in columns], axis=1)
    bends = steps != before
    bends[first] = True
    numbers = np.flatnonzero(bends)
    bounds = np.searchsorted(numbers, [*first, len(points)]).tolist()
    corners = points.take(numbers, axis=0)
    return sums, [corners[start:end] for start, end in pairwise(bounds)]


def _measure(number: int, component: Component, sure: NDArray[np.uint8], tolerance: float) -> Rock:
    box, own = component.cut_out()
    x, y, width, height = box
    # With what else is there at 0, the sum of all is several times as quick as a mean with a mask.
    within = cv2.bitwise_and(sure[y : y + height, x : x + width], own)
    return Rock(
        id=number,
        class_id=component.class_id,
        score=cv2.sumElems(within)[0] / (255 * component.area),
        area=component.area,
        box=box,
        centroid=component.centroid,
        polygon=simplify_contour(component.contours[0], tolerance),
        mask=own,
    )


def simplify_contour(contour: NDArray[np.int32], tolerance: float) -> NDArray[np.float32]:
    """Returns the polygon of a contour with fewer vertices (Douglas and Peucker 1973).

    Args:
        contour: V×2 or V×1×2, every pixel where the contour bends, in order, px.
        tolerance: Largest distance of a contour point from the polygon, px.

    Returns:
        V×2 float32, V at least 3, clockwise as seen; a straight line gives a box around it, 1 px
        wide, a bent one its line there and back.
    """
    polygon: NDArray[Any] = cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0]
    if len(polygon) < 3:
        polygon = _thin_box(*polygon[[0, -1]].astype(np.float32))
    if cv2.contourArea(polygon, oriented=True) < 0:
        polygon = polygon[::-1]
    return np.ascontiguousarray(polygon, np.float32)


def _thin_box(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the 4×2 corners of the box half a pixel around a line."""
    length = float(np.hypot(*(end - start)))
    along = (end - start) / (2 * length) if length else np.array([0.5, 0], np.float32)
    across = np.array([-along[1], along[0]], np.float32)
    corners = [start - along, end + along]
    return np.array([*(c - across for c in corners), *(c + across for c in corners[::-1])])
