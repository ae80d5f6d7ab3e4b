# SPDX-License-Identifier: Apache-2.0
"""Which rock is which: the same id in each image, while the camera moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.view import PosedView, motion_between
from rock_seg_ros.perception.instances.rocks import Rock, draw_instances

GREY_SIDE = 320  # longer side of the images that the motion is found in, px
DRAWN_SIDE = 480  # longer side of the drawings that rocks are compared in, px
MIN_IOU = 0.1  # a rock half hidden, or cut in four, is still the same
FLAT = 1.0  # standard deviation of an image in which no motion can be seen, grey values
SURE = 0.9  # correlation of aligned images from which the flow is trusted at once
CUT = 0.5  # below it they show different scenes
MIN_SIDE = 16  # of an image that motion can be found in, px
MAX_MISSED_ROCKS = 1000
REACH = 2  # lengths of the image; what is farther out of view is forgotten


@dataclass(frozen=True)
class _Known:
    """Rocks that are followed, as the pixels that they cover.

    Attributes:
        ids: K, one a rock.
        missed: K, when each was first missed, s; infinite for those seen in the last image.
        points: 2×N float32, x and y of pixels in the drawing, also outside of it.
        rows: N, the row in `ids` of the rock that each is of.
    """

    ids: NDArray[np.int64]
    missed: NDArray[np.float64]
    points: NDArray[np.float32]
    rows: NDArray[np.int64]


NOBODY = _Known(
    np.zeros(0, np.int64), np.zeros(0), np.zeros((2, 0), np.float32), np.zeros(0, np.int64)
)


class Tracker:
    """Gives rocks ids that last from image to image.

    The pixels of known rocks are carried along by dense optical flow (Kroeger et al. 2016,
    arXiv:1603.03590), outside of the image by the homography that fits it. Rocks of most overlap
    are the same; of a rock's parts, the one of most overlap keeps the id. What is missed is
    carried along for a while, and to the next image at least.

    Example:
        >>> tracker = Tracker()
        >>> tracker.update(np.zeros((480, 640, 3), np.uint8), [], time=0.0)
        []
    """

    def __init__(self, memory: float = 1.0) -> None:
        """Starts with no rocks and id 1.

        Args:
            memory: How long a rock that is out of sight is remembered, s; 0 = not at all.
        """
        self._memory = memory
        self._next = 1
        self.reset()

    def reset(self) -> None:
        """Forgets all rocks; ids go on counting."""
        self._known = NOBODY
        self._shape: tuple[int, ...] = ()
        self._time = -math.inf
        self._grey: NDArray[np.uint8] | None = None
        self._sight: PosedView | None = None

    def update(
        self,
        image: NDArray[np.uint8],
        rocks: Sequence[Rock],
        time: float,
        sight: PosedView | None = None,
        instances: NDArray[np.uint16] | None = None,
    ) -> list[Rock]:
        """Finds out which of the rocks were there before.

        An image of another size, of an earlier time or of another scene than the last starts anew.
        One without any contrast tells nothing and is passed over, its rocks are new.

        Args:
            image: H×W×3 RGB.
            rocks: What was found in it, at most 65535.
            time: Of the image, s.
            sight: Its depth and the camera's pose, where known: they tell where to look for the
                motion, should the images alone not do.
            instances: H×W, the rocks as `draw_instances` draws them; None = drawn here.

        Returns:
            The same rocks in the same order, with ids from 1; what is new has an id that no rock
            had before.
        """
        if image.shape != self._shape or time < self._time:
            self.reset()
        self._shape, self._time = image.shape, time
        grey = _grey(image)
        if float(grey.std()) < FLAT:
            return _renamed(rocks, self._ids(NOBODY, np.full(len(rocks), -1)))
        drawn = _drawn(draw_instances(rocks, image.shape[:2]) if instances is None else instances)
        known = self._carried(grey, drawn.shape, sight)
        partners = _partners(known, drawn, len(rocks))
        ids = self._ids(known, partners)
        self._known = _together(_seen(drawn, ids), self._missed(known, partners))
        self._grey, self._sight = grey, sight
        return _renamed(rocks, ids)

    def _carried(
        self, grey: NDArray[np.uint8], shape: tuple[int, ...], sight: PosedView | None
    ) -> _Known:
        """Returns what is known where it is in a new image, nothing if that is of elsewhere."""
        if self._grey is None:
            return NOBODY
        flow = estimate_motion(
            self._grey, grey, lambda: _told_motion(self._sight, sight, grey.shape)
        )
        if flow is None:
            return NOBODY
        points = move_points(self._known.points, flow, shape[1] / grey.shape[1])
        near = (np.abs(points) < REACH * max(shape)).all(axis=0)
        if near.all():  # as nearly always, and picking them out would cost more than all the rest
            return replace(self._known, points=points)
        return replace(self._known, points=points[:, near], rows=self._known.rows[near])

    def _ids(self, known: _Known, partners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns each rock's id, a new one where it has no partner."""
        ids = np.append(known.ids, 0)[partners]
        new = ids == 0
        first, self._next = self._next, self._next + int(new.sum())
        ids[new] = np.arange(first, self._next)
        return ids

    def _missed(self, known: _Known, partners: NDArray[np.int64]) -> _Known:
        """Returns the known rocks that are not in the image and are still remembered."""
        missed = np.minimum(known.missed, self._time)
        keep = self._time - missed < self._memory
        keep[partners[partners >= 0]] = False
        keep[np.flatnonzero(keep)[MAX_MISSED_ROCKS:]] = False
        rows = np.cumsum(keep) - 1
        of = keep[known.rows]
        return _Known(known.ids[keep], missed[keep], known.points[:, of], rows[known.rows[of]])


Start = Callable[[], NDArray[np.float32] | None]


def estimate_motion(
    old: NDArray[np.uint8], new: NDArray[np.uint8], told: Start = lambda: None
) -> NDArray[np.float32] | None:
    """Finds where each pixel of an image went in the next.

    Dense inverse search starts from the motion that is told, if any, then from none: alone it is
    quick and loses motions of a tenth of the image. Where it did, it starts again from the
    homography of ORB features (Rublee et al. 2011).

    Args:
        old: H×W grey.
        new: H×W grey.
        told: Gives H×W×2, what is known of the motion otherwise, or None.

    Returns:
        H×W×2, x and y to be added, px; None where the images do not show the same scene.
    """
    if min(old.shape) < MIN_SIDE:
        return _no_motion(old)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow, agreement = None, -1.0
    starts: tuple[Start, ...] = (told, lambda: _no_motion(old), lambda: _far_motion(old, new))
    for start_from in starts:
        start = start_from() if agreement < SURE else None
        if start is not None:
            found: Any = search.calc(old, new, start)
            better = _agreement(old, new, found)
            if better > agreement:
                flow, agreement = found, better
    return flow if agreement >= CUT else None


def _agreement(old: NDArray[np.uint8], new: NDArray[np.uint8], flow: NDArray[np.float32]) -> float:
    """Returns the correlation of an image with the next, carried back; -1 to 1."""
    way = _grid(*old.shape) + flow
    back = cv2.remap(new, way, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    half = (old.shape[1] // 2, old.shape[0] // 2)
    one, other = (cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (old, back))
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if other.std() else 0.0


def _no_motion(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns H×W×2 zeros for an H×W image."""
    return np.zeros((*grey.shape, 2), np.float32)


def _told_motion(
    old: PosedView | None, new: PosedView | None, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """Returns H×W×2: the motion that depth and poses tell, px of an image of this shape."""
    if old is None or new is None or old.view.depth is None:
        return None
    motion: Any = motion_between(old, new)
    if motion is None:
        return None
    scale = shape[1] / old.view.depth.shape[1]
    return cv2.resize(motion, shape[1::-1]) * np.float32(scale)


def _far_motion(old: NDArray[np.uint8], new: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Returns H×W×2: the flow of the homography that most features agree on, if there is one."""
    orb = cv2.ORB.create(200, nlevels=4, fastThreshold=5)
    (points, marks), (new_points, new_marks) = (
        orb.detectAndCompute(grey, None) for grey in (old, new)
    )
    if marks is None or new_marks is None:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(marks, new_marks)
    here = np.array([points[pair.queryIdx].pt for pair in pairs], np.float32).reshape(-1, 2)
    there = np.array([new_points[pair.trainIdx].pt for pair in pairs], np.float32).reshape(-1, 2)
    plane = _homography(here, there, 5.0)
    if plane is None:
        return None
    grid = _grid(*old.shape)
    return _through(plane, grid.reshape(-1, 2)).reshape(grid.shape) - grid


def move_points(
    points: NDArray[np.float32], flow: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """Returns the points where they went: by the flow, outside of it by the homography that fits.

    Args:
        points: 2×N, x and y, px.
        flow: H×W×2, px.
        scale: How many pixels of the points are one of the flow.
    """
    height, width = flow.shape[:2]
    points = points / np.float32(scale)
    inside, pixels = _pixels(points, width, height)
    moved = points + np.stack([flow[..., axis].ravel().take(pixels) for axis in (0, 1)])
    if not inside.all():
        some = (slice(4, None, 8), slice(4, None, 8))
        here = _grid(height, width)[some].reshape(-1, 2)
        plane = _homography(here, here + flow[some].reshape(-1, 2), 2.0)
        outside = np.flatnonzero(~inside)
        there = points[:, outside]
        moved[:, outside] = there if plane is None else _through(plane, there.T).T
    return moved * np.float32(scale)


def _homography(
    here: NDArray[np.float32], there: NDArray[np.float32], tolerance: float
) -> NDArray[np.float64] | None:
    """Returns the 3×3 homography that most of the N×2 points agree on within a tolerance (px)."""
    if len(here) < 4:
        return None
    found: Any = cv2.findHomography(here, there, cv2.RANSAC, tolerance, maxIters=500)[0]
    return found


def _through(plane: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    moved: Any = cv2.perspectiveTransform(points[None], plane)
    return moved[0]


@lru_cache(maxsize=16)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """Returns H×W×2, x and y of each pixel; not to be written to."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


def _pixels(
    points: NDArray[np.float32], width: int, height: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Returns which of 2×N points lie in an image, and the nearest pixel's place in it if flat."""
    x, y = points
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    column, row = (
        np.clip(part + np.float32(0.5), 0, length - 1).astype(np.int32)
        for part, length in ((x, width), (y, height))
    )
    return inside, row * np.int32(width) + column


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Returns width and height of an image made so small that its longer side is a given one."""
    height, width = shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = _fitted(image.shape, GREY_SIDE)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def _drawn(instances: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Returns the drawing in the size in which rocks are compared."""
    size = _fitted(instances.shape, DRAWN_SIDE)
    return cv2.resize(instances, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]


def _partners(known: _Known, drawn: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Matches rocks with known ones, the best overlaps first, each at most once.

    Args:
        known: Where they must be.
        drawn: H×W, 0 or the number of a rock.
        count: Of the rocks.

    Returns:
        count: the row among the known ones, -1 for none.
    """
    inside, pixels = _pixels(known.points, *drawn.shape[::-1])
    columns = count + 1
    pairs = (known.rows * columns + drawn.ravel().take(pixels))[inside]
    both = np.bincount(pairs, minlength=len(known.ids) * columns).reshape(-1, columns)
    old, new = np.nonzero(both)
    old, new = old[new > 0], new[new > 0]
    shared = both[old, new]
    whole = both.sum(axis=1)[old] + np.bincount(drawn.ravel(), minlength=columns)[new]
    iou = shared / (whole - shared)
    partners = np.full(count, -1)
    taken = np.zeros(len(known.ids), bool)
    for best in np.argsort(-iou, kind='stable')[: np.count_nonzero(iou >= MIN_IOU)].tolist():
        row, number = old[best], new[best] - 1
        if partners[number] < 0 and not taken[row]:
            partners[number] = row
            taken[row] = True
    return partners


def _seen(drawn: NDArray[np.uint16], ids: NDArray[np.int64]) -> _Known:
    """Returns the rocks of a drawing."""
    found: Any = cv2.findNonZero(drawn)
    if found is None:
        return NOBODY
    x, y = found.reshape(-1, 2).T
    rows = drawn[y, x].astype(np.int64) - 1
    return _Known(ids, np.full(len(ids), math.inf), np.stack([x, y]).astype(np.float32), rows)


def _together(some: _Known, others: _Known) -> _Known:
    return _Known(
        np.concatenate([some.ids, others.ids]),
        np.concatenate([some.missed, others.missed]),
        np.concatenate([some.points, others.points], axis=1),
        np.concatenate([some.rows, others.rows + len(some.ids)]),
    )


def _renamed(rocks: Sequence[Rock], ids: NDArray[np.int64]) -> list[Rock]:
    return [replace(rock, id=number) for rock, number in zip(rocks, ids.tolist(), strict=True)]
