# SPDX-License-Identifier: Apache-2.0
"""Class ids → rocks: instances, polygons, measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.segmenter import Segmentation
from rock_seg_ros.perception.splitting import cut_apart


@dataclass(frozen=True)
class Rock:
    """One rock in one picture.

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
        split_touching: Whether rocks that touch are cut apart, where the network saw rims.
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
    found: list[Component] = []
    for class_id in segmentation.rock_ids:
        mask = rock_pixels(segmentation, class_id, settings)
        found.extend(_components(mask, class_id, settings))
    found.sort(key=lambda component: -component.area)
    return [
        _measure(number, component, segmentation.confidence, settings.polygon_tolerance)
        for number, component in enumerate(found[: settings.max_rocks], start=1)
    ]


def draw_instances(rocks: Sequence[Rock], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Numbers the pixels of each rock.

    Args:
        rocks: At most 65535.
        shape: Height and width of the picture, px.

    Returns:
        H×W: 0, or the rock's place in the sequence counted from 1.
    """
    numbers = np.zeros(shape, np.uint16)
    for number, rock in enumerate(rocks, start=1):
        x, y, width, height = rock.box
        numbers[y : y + height, x : x + width][rock.mask > 0] = number
    return numbers


def rock_pixels(
    segmentation: Segmentation, class_id: int, settings: RockSettings
) -> NDArray[np.uint8]:
    """Returns H×W, not 0 where a rock class is, without the cuts between rocks if wanted."""
    rock = _pixels_of(segmentation, class_id)
    if not settings.split_touching or segmentation.rim_id is None:
        return rock
    rim = _pixels_of(segmentation, segmentation.rim_id)
    if not cv2.countNonZero(rim):
        return rock
    cut = cut_apart(rock > 0, rim > 0, segmentation.confidence, settings.min_area)
    return cut.view(np.uint8)


def _pixels_of(segmentation: Segmentation, class_id: int) -> NDArray[np.uint8]:
    """Returns H×W, 255 where a class is; several times as fast as NumPy's comparison."""
    return cv2.inRange(segmentation.class_ids, class_id, class_id)  # type: ignore


@dataclass(frozen=True)
class Component:
    """One 8-connected component of a mask.

    Attributes:
        class_id: Its class.
        area: Pixels.
        mask: H×W, the mask that it is part of; all its pixels have one value above 0.
        contours: Its outer contour and those of its holes, V×1×2 int32, all through its own pixels.
    """

    class_id: int
    area: int
    mask: NDArray[np.uint8]
    contours: list[NDArray[np.int32]]

    def cut_out(self) -> tuple[tuple[int, int, int, int], NDArray[np.uint8]]:
        """Returns its box (x, y, width, height) and a mask of the box's size, 1 where it is."""
        x, y, width, height = cv2.boundingRect(self.contours[0])
        own = self.mask[y : y + height, x : x + width]
        if cv2.countNonZero(own) != self.area:  # others reach into the box
            own = np.zeros((height, width), np.uint8)
            cv2.fillPoly(own, self.contours, 1, offset=(-x, -y))
        return (x, y, width, height), own


def _components(mask: NDArray[np.uint8], class_id: int, settings: RockSettings) -> list[Component]:
    """Finds the components of a mask that are large enough, the largest `max_rocks` of them."""
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    parents = tree[0, :, 3].astype(np.intp)
    outer = parents < 0
    # Pick's theorem: the pixels on and within a contour, of a hole those within.
    enclosed = np.array([cv2.contourArea(contour) for contour in contours])
    steps = np.array([len(contour) if len(contour) > 1 else 0 for contour in contours])
    areas = np.where(outer, enclosed + steps / 2 + 1, 0)
    np.subtract.at(areas, parents[~outer], (enclosed - steps / 2 + 1)[~outer])
    order = np.argsort(-areas, kind='stable')
    kept = order[areas[order] >= max(1, settings.min_area)][: settings.max_rocks].tolist()
    members = {number: [contours[number]] for number in kept}
    for number in np.flatnonzero(np.isin(parents, kept)).tolist():
        members[int(parents[number])].append(contours[number])
    return [Component(class_id, int(areas[n]), mask, members[n]) for n in kept]


def _measure(
    number: int, component: Component, confidence: NDArray[np.uint8], tolerance: float
) -> Rock:
    box, own = component.cut_out()
    x, y, width, height = box
    moments = cv2.moments(own)  # its values are all the same: as for a binary image, and quicker
    return Rock(
        id=number,
        class_id=component.class_id,
        score=cv2.mean(confidence[y : y + height, x : x + width], own)[0] / 255,
        area=component.area,
        box=box,
        centroid=(x + moments['m10'] / moments['m00'], y + moments['m01'] / moments['m00']),
        polygon=simplified(component.contours[0], tolerance),
        mask=own,
    )


def simplified(contour: NDArray[np.int32], tolerance: float) -> NDArray[np.float32]:
    """Returns the polygon of a contour with fewer vertices (Douglas and Peucker 1973).

    Args:
        contour: V×1×2, every pixel of the contour in order, px.
        tolerance: Largest distance of a contour point from the polygon, px.

    Returns:
        V×2 float32, V at least 3, clockwise as seen; a straight line gives a box around it, 1 px
        wide, a bent one its line there and back.
    """
    polygon = cv2.approxPolyDP(contour, tolerance, closed=True).reshape(-1, 2).astype(np.float32)
    if len(polygon) < 3:
        polygon = _thin_box(polygon[0], polygon[-1])
    if cv2.contourArea(polygon, oriented=True) < 0:
        polygon = polygon[::-1]
    return np.ascontiguousarray(polygon)


def _thin_box(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the 4×2 corners of the box half a pixel around a line."""
    length = float(np.hypot(*(end - start)))
    along = (end - start) / (2 * length) if length else np.array([0.5, 0], np.float32)
    across = np.array([-along[1], along[0]], np.float32)
    corners = [start - along, end + along]
    return np.array([*(c - across for c in corners), *(c + across for c in corners[::-1])])
