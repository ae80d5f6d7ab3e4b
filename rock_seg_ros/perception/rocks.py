# SPDX-License-Identifier: Apache-2.0
"""Class ids → rocks: instances, polygons, measures."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    id: int
    class_id: int
    score: float
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    polygon: NDArray[np.float32]


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
    found: list[Rock] = []
    for class_id in segmentation.rock_ids:
        mask = rock_pixels(segmentation, class_id, settings).view(np.uint8)
        found.extend(_components(mask, class_id, segmentation.confidence, settings))
    found.sort(key=lambda rock: -rock.area)
    return [
        Rock(number, r.class_id, r.score, r.area, r.box, r.centroid, r.polygon)
        for number, r in enumerate(found[: settings.max_rocks], start=1)
    ]


def rock_pixels(
    segmentation: Segmentation, class_id: int, settings: RockSettings
) -> NDArray[np.bool_]:
    """Returns H×W, where a rock class is; without the cuts between rocks where they are wanted."""
    rock = segmentation.class_ids == class_id
    if not settings.split_touching or segmentation.rim_id is None:
        return rock
    rim = segmentation.class_ids == segmentation.rim_id
    return cut_apart(rock, rim, segmentation.confidence, settings.min_area)


def _components(
    mask: NDArray[np.uint8], class_id: int, confidence: NDArray[np.uint8], settings: RockSettings
) -> list[Rock]:
    _, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= max(1, settings.min_area)) + 1
    kept = kept[np.argsort(-stats[kept, cv2.CC_STAT_AREA], kind='stable')][: settings.max_rocks]
    rocks = []
    for label in kept:
        x, y, width, height, area = (int(value) for value in stats[label])
        own = labels[y : y + height, x : x + width] == label
        score = float(confidence[y : y + height, x : x + width][own].mean()) / 255
        u, v = centroids[label]
        polygon = outer_polygon(own.astype(np.uint8), (x, y), settings.polygon_tolerance)
        rocks.append(
            Rock(0, class_id, score, area, (x, y, width, height), (float(u), float(v)), polygon)
        )
    return rocks


def outer_polygon(
    component: NDArray[np.uint8], offset: tuple[int, int], tolerance: float
) -> NDArray[np.float32]:
    """Returns the simplified outer contour of one component (Douglas and Peucker 1973).

    Args:
        component: H×W, not 0 where the component is; one component only.
        offset: x and y that are added to the result, px.
        tolerance: Largest distance of a contour point from the polygon, px.

    Returns:
        V×2 float32, V at least 3, clockwise as seen; a straight line gives a box around it, 1 px
        wide, a bent one its line there and back.
    """
    contours, _ = cv2.findContours(component, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    simple = cv2.approxPolyDP(contours[0], tolerance, closed=True)
    polygon = simple.reshape(-1, 2).astype(np.float32)
    if len(polygon) < 3:
        polygon = _thin_box(polygon[0], polygon[-1])
    if cv2.contourArea(polygon, oriented=True) < 0:
        polygon = polygon[::-1]
    return np.ascontiguousarray(polygon + np.asarray(offset, np.float32))


def _thin_box(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the 4×2 corners of the box half a pixel around a line."""
    length = float(np.hypot(*(end - start)))
    along = (end - start) / (2 * length) if length else np.array([0.5, 0], np.float32)
    across = np.array([-along[1], along[0]], np.float32)
    corners = [start - along, end + along]
    return np.array([*(c - across for c in corners), *(c + across for c in corners[::-1])])
