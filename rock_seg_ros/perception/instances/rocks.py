# SPDX-License-Identifier: Apache-2.0
"""Extraction of rocks from class ids: instances, polygons and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation, class_mask
from rock_seg_ros.perception.instances.splitting import (
    RimSeparation,
    split_by_rims,
    split_by_shape,
)

MOST_ROCKS = 2**16 - 1  # their numbers are uint16
MAX_SEAM_DISTANCE = 3  # px; about the width of a rim
SQUARE = np.ones((3, 3), np.uint8)


def _row_bounds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns tables of whether a row of pixels ends, or starts, at a pixel of a contour.

    They are indexed by the steps to the pixel and from it. A contour has the rock on its left, so
    the neighbours on its right between the two steps are not rock.

    Returns:
        Two tables with 81 entries of 0 or 1. The index is 9 × the step to the pixel + the step from
        it; a step is 4 + dx + 3·dy, and 4 for a contour of one pixel.
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

    Pixel coordinates have x to the right and y down; whole numbers are pixel centres.

    Attributes:
        id: Id of the rock.
        class_id: Class id of the rock.
        score: Mean confidence of its pixels, 0 to 1.
        area: Number of its pixels.
        box: x and y of the first pixel, width and height, px.
        centroid: Mean x and y of its pixels, px.
        polygon: V×2 float32, its outer contour, clockwise as seen, px; V is at least 3.
        mask: uint8 of the height and width of the box, not 0 for the pixels of the rock.
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
    """Which rocks are reported, and how.

    Attributes:
        min_area: Minimum area of a reported rock, px.
        max_rocks: Maximum number of reported rocks, largest first, 0 to 65535.
        polygon_tolerance: Maximum distance between a contour and its polygon, px.
        split_touching: Whether rocks that touch are separated: along the rims that the network
            finds, or by their shape if the network has no rim class. Pixels of rims and cuts are
            then assigned to the rocks next to them.
        separation: Settings of the separation along rims.
    """

    min_area: int = 50
    max_rocks: int = 200
    polygon_tolerance: float = 1.0
    split_touching: bool = True
    separation: RimSeparation = field(default_factory=RimSeparation)

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an invalid one."""
        for name, highest in (('min_area', np.inf), ('max_rocks', MOST_ROCKS)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and 0 <= value <= highest):
                limit = f' to {highest}' if highest < np.inf else ' or more'
                raise ValueError(f'{name} must be a whole number of 0{limit}, not {value!r}')
        if not 0 <= self.polygon_tolerance < np.inf:
            raise ValueError(
                f'polygon_tolerance must be 0 or more and finite, not {self.polygon_tolerance!r}'
            )


def find_rocks(segmentation: Segmentation, settings: RockSettings) -> list[Rock]:
    """Finds the rocks in a segmentation.

    A rock is an 8-connected component of one rock class, with the rim at it, after touching rocks
    were separated.

    Returns:
        At most `max_rocks` rocks, largest first, with ids from 1.
    """
    rims: NDArray[np.uint8] | None = None
    if segmentation.rim_id is not None:
        rims = class_mask(segmentation.class_ids, segmentation.rim_id)
    has_rims = rims is not None and cv2.countNonZero(rims) > 0
    if settings.split_touching and (rims is None or has_rims):
        found = _split_rocks(segmentation, rims, settings)
        confidence = segmentation.confidence  # pixels of rims that belong to a rock count, too
    else:
        found = _whole_rocks(segmentation, rims if has_rims else None, settings)
        confidence = segmentation.rock_confidence
    found.sort(key=lambda component: -component.area)
    return [
        _make_rock(number, component, confidence, settings.polygon_tolerance)
        for number, component in enumerate(found[: settings.max_rocks], start=1)
    ]


def draw_instances(rocks: Sequence[Rock], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Draws the rocks into a label image.

    Args:
        rocks: At most 65535 rocks.
        shape: Height and width of the image, px.

    Returns:
        H×W uint16: 0, or the index of the rock in the sequence, counted from 1.
    """
    numbers = np.zeros(shape, np.uint16)
    for number, rock in enumerate(rocks, start=1):
        x, y, width, height = rock.box
        numbers[y : y + height, x : x + width][rock.mask > 0] = number
    return numbers


def _whole_rocks(
    segmentation: Segmentation, rims: NDArray[np.uint8] | None, settings: RockSettings
) -> list[Component]:
    """Finds the components of each rock class, together with the rim that touches them.

    Args:
        segmentation: The segmentation of the image.
        rims: H×W, 255 where there is a rim, else 0; None = there is none.
        settings: Which rocks are reported.
    """
    found: list[Component] = []
    for class_id in segmentation.rock_ids:
        rock = class_mask(segmentation.class_ids, class_id)
        if rims is not None:
            _, parts = cv2.connectedComponents(cv2.bitwise_or(rock, rims), connectivity=8)
            has_rock = np.bincount(parts.ravel(), rock.ravel()) > 0
            rock = has_rock[parts].view(np.uint8) * np.uint8(255)
            rims = cv2.subtract(rims, rock)  # type: ignore[assignment]
        found.extend(_components(rock, class_id, settings))
    return found


def _split_rocks(
    segmentation: Segmentation, rims: NDArray[np.uint8] | None, settings: RockSettings
) -> list[Component]:
    """Finds the rocks of all classes, separates them, and assigns the seams to them.

    Args:
        segmentation: The segmentation of the image.
        rims: H×W, 255 where there is a rim, else 0; None = the network has no rim class.
        settings: Which rocks are reported.
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
            cut = split_by_rims(
                rock, rims, segmentation.confidence, settings.min_area, settings.separation
            )
        seams: NDArray[Any] = cv2.bitwise_or(free, cv2.subtract(rock, cut))
        found.extend(_with_seams(_components(cut, class_id, settings), seams, settings))
        cv2.bitwise_and(free, seams, free)
    return found


@dataclass(frozen=True)
class Component:
    """One 8-connected component of a mask.

    Attributes:
        class_id: Class id.
        area: Number of its pixels.
        centroid: Mean x and y of its pixels, px.
        mask: H×W, 0 or 255, the mask that contains the component.
        contours: V×2 int32, its outer contour and those of its holes, which pass through its own
            pixels; only the pixels where a contour changes its direction.
    """

    class_id: int
    area: int
    centroid: tuple[float, float]
    mask: NDArray[np.uint8]
    contours: list[NDArray[np.int32]]

    def cut_out(self) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
        """Returns the box (x, y, width, height), and a mask of that size, 255 in the component."""
        x, y, width, height = cv2.boundingRect(self.contours[0])
        own = self.mask[y : y + height, x : x + width]
        if cv2.countNonZero(own) != self.area:  # the box contains pixels of other components
            own = np.zeros((height, width), np.uint8)
            cv2.fillPoly(own, self.contours, 255, offset=(-x, -y))
        return (x, y, width, height), own


def _components(mask: NDArray[np.uint8], class_id: int, settings: RockSettings) -> list[Component]:
    """Finds the components of a mask that are large enough, the largest `max_rocks` of them."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    return _make_components(contours, tree[0, :, 3].astype(np.intp), mask, class_id, settings)


def _with_seams(
    components: list[Component], seams: NDArray[np.uint8], settings: RockSettings
) -> list[Component]:
    """Assigns to each rock in turn the seam pixels within `MAX_SEAM_DISTANCE` of it.

    Args:
        components: Components of one class and mask, largest first.
        seams: H×W, 255 where there is a rim or a cut, else 0; pixels that are assigned become 0.
        settings: Which rocks are reported.
    """
    if not components:
        return []
    whole: NDArray[Any] = cv2.bitwise_or(components[0].mask, seams)
    others: list[Component] = []
    contours: list[Any] = []
    parents: list[NDArray[np.intp]] = []
    for component in components:
        (x, y, width, height), own = component.cut_out()
        left, top = max(0, x - MAX_SEAM_DISTANCE), max(0, y - MAX_SEAM_DISTANCE)
        free = seams[top : y + height + MAX_SEAM_DISTANCE, left : x + width + MAX_SEAM_DISTANCE]
        if not cv2.countNonZero(free):
            others.append(component)
            continue
        grown = np.zeros(free.shape, np.uint8)
        grown[y - top : y - top + height, x - left : x - left + width] = own
        for _ in range(MAX_SEAM_DISTANCE):
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
    return others + _make_components(contours, np.concatenate(parents), whole, class_id, settings)


def _make_components(
    contours: Sequence[Any],
    parents: NDArray[np.intp],
    mask: NDArray[np.uint8],
    class_id: int,
    settings: RockSettings,
) -> list[Component]:
    """Returns the components of contours that are large enough, largest first.

    Args:
        contours: N contours, V×1×2 int32, from cv2.findContours without approximation.
        parents: N numbers: for a hole that of its outer contour, otherwise a negative number.
        mask: H×W, the mask that contains the components.
        class_id: Class id of the mask.
        settings: Which rocks are reported.
    """
    sums, corners = _sum_pixels(contours)
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


def _sum_pixels(contours: Sequence[Any]) -> tuple[NDArray[np.float64], list[NDArray[np.int32]]]:
    """Sums the pixels that contours enclose, for all contours at once.

    The sums follow the discrete theorem of Green (Yang and Albregtsen 1996): each row of pixels
    contributes with its end and its start. All numbers are whole.

    Args:
        contours: N contours, V×1×2 int32, from cv2.findContours without approximation.

    Returns:
        N×3, the number of enclosed pixels and the sums of their x and y, negative for holes; and
        the N contours, V×2, reduced to their first pixel and those where the direction changes.
    """
    lengths = np.array([len(contour) for contour in contours])
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    points = np.concatenate(contours)[:, 0]
    codes = points[:, 0] + 3 * points[:, 1]
    steps, before = np.empty_like(codes), np.empty_like(codes)
    np.subtract(codes[1:], codes[:-1], out=steps[:-1])
    steps[last] = codes[first] - codes[last]
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


def _make_rock(
    number: int, component: Component, confidence: NDArray[np.uint8], tolerance: float
) -> Rock:
    box, own = component.cut_out()
    x, y, width, height = box
    # Masking and summing is several times as fast as a mean with a mask.
    within = cv2.bitwise_and(confidence[y : y + height, x : x + width], own)
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
    """Simplifies a contour to a polygon (Douglas and Peucker 1973).

    Args:
        contour: V×2 or V×1×2, the pixels where the contour changes its direction, in order, px.
        tolerance: Maximum distance between the contour and the polygon, px.

    Returns:
        V×2 float32, clockwise as seen; V is at least 3. A straight line becomes a box around it, 1
        px wide; a bent line of 1 px becomes a polygon without area.
    """
    polygon: NDArray[Any] = cv2.approxPolyDP(contour, tolerance, closed=True)[:, 0]
    if len(polygon) < 3:
        polygon = _thin_box(*polygon[[0, -1]].astype(np.float32))
    if cv2.contourArea(polygon, oriented=True) < 0:
        polygon = polygon[::-1]
    return np.ascontiguousarray(polygon, np.float32)


def _thin_box(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the 4×2 corners of the box that is half a pixel larger than a line on each side."""
    length = float(np.hypot(*(end - start)))
    along = (end - start) / (2 * length) if length else np.array([0.5, 0], np.float32)
    across = np.array([-along[1], along[0]], np.float32)
    corners = [start - along, end + along]
    return np.array([*(c - across for c in corners), *(c + across for c in corners[::-1])])
