# SPDX-License-Identifier: Apache-2.0
"""Tracking: a rock keeps its id from image to image while the camera moves."""

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
MIN_IOU = 0.1  # so low that a rock that is half hidden, or split in four, is still matched
MIN_CONTRAST = 1.0  # standard deviation of an image in which motion can be found, grey values
TRUSTED_CORRELATION = 0.9  # of aligned images, from which the flow is accepted at once
MIN_CORRELATION = 0.5  # of aligned images; below it they show different scenes
MIN_SIDE = 32  # of an image that motion can be found in, px; with less, OpenCV's search crashes
MAX_MISSED_ROCKS = 1000
MAX_DISTANCE = 2  # image lengths; rocks that are farther out of view are discarded


@dataclass(frozen=True)
class _Tracks:
    """The tracked rocks, as the pixels that they cover.

    Attributes:
        ids: K, the id of each rock.
        missed: K, the time at which each rock was first missed, s; infinite if it is in the last
            image.
        points: 2×N float32, x and y of the pixels in the label image; they may be outside of it.
        rows: N, for each pixel the index of its rock in `ids`.
    """

    ids: NDArray[np.int64]
    missed: NDArray[np.float64]
    points: NDArray[np.float32]
    rows: NDArray[np.int64]


NO_TRACKS = _Tracks(
    np.zeros(0, np.int64), np.zeros(0), np.zeros((2, 0), np.float32), np.zeros(0, np.int64)
)


class Tracker:
    """Gives rocks ids that stay the same from image to image.

    The pixels of the tracked rocks are moved by dense optical flow (Kroeger et al. 2016,
    arXiv:1603.03590), and outside of the image by the homography that fits it. Rocks with the
    largest overlap are matched; if a rock splits, the part with the largest overlap keeps the id. A
    rock that is not found is kept for a while, at least until the next image.

    Example:
        >>> tracker = Tracker()
        >>> tracker.update(np.zeros((480, 640, 3), np.uint8), [], time=0.0)
        []
    """

    def __init__(self, memory: float = 1.0) -> None:
        """Starts without rocks; the first id is 1.

        Args:
            memory: Time that a rock which is not found is kept, s; 0 = it is discarded at once.
        """
        self._memory = memory
        self._next = 1
        self.reset()

    def reset(self) -> None:
        """Discards all rocks. Ids continue to count up."""
        self._known = NO_TRACKS
        self._shape: tuple[int, ...] = ()
        self._time = -math.inf
        self._grey: NDArray[np.uint8] | None = None
        self._posed_view: PosedView | None = None

    def update(
        self,
        image: NDArray[np.uint8],
        rocks: Sequence[Rock],
        time: float,
        posed_view: PosedView | None = None,
        instances: NDArray[np.uint16] | None = None,
    ) -> list[Rock]:
        """Assigns ids to the rocks of the next image.

        All rocks get new ids if the image has another size, an earlier time or another scene than
        the image before. An image without contrast is skipped; its rocks get new ids.

        Args:
            image: H×W×3 RGB.
            rocks: The rocks in the image, at most 65535.
            time: Time of the image, s.
            posed_view: Depth and pose of the image, if known. They give a first estimate of the
                motion.
            instances: H×W, the rocks as `draw_instances` draws them; None = they are drawn here.

        Returns:
            The same rocks in the same order, with ids from 1. A new rock gets an id that was not
            used before.
        """
        if image.shape != self._shape or time < self._time:
            self.reset()
        self._shape, self._time = image.shape, time
        grey = _grey(image)
        if float(grey.std()) < MIN_CONTRAST:
            return _with_ids(rocks, self._ids(NO_TRACKS, np.full(len(rocks), -1)))
        drawn = _drawn(draw_instances(rocks, image.shape[:2]) if instances is None else instances)
        known = self._propagate(grey, drawn.shape, posed_view)
        partners = _match(known, drawn, len(rocks))
        ids = self._ids(known, partners)
        self._known = _concatenate(_tracks_of(drawn, ids), self._missed(known, partners))
        self._grey, self._posed_view = grey, posed_view
        return _with_ids(rocks, ids)

    def _propagate(
        self, grey: NDArray[np.uint8], shape: tuple[int, ...], posed_view: PosedView | None
    ) -> _Tracks:
        """Returns the tracks at their positions in a new image; none if the scene differs."""
        if self._grey is None:
            return NO_TRACKS
        flow = estimate_motion(
            self._grey, grey, lambda: _motion_from_depth(self._posed_view, posed_view, grey.shape)
        )
        if flow is None:
            return NO_TRACKS
        points = move_points(self._known.points, flow, shape[1] / grey.shape[1])
        near = (np.abs(points) < MAX_DISTANCE * max(shape)).all(axis=0)
        if near.all():  # the usual case, in which the arrays need not be copied
            return replace(self._known, points=points)
        return replace(self._known, points=points[:, near], rows=self._known.rows[near])

    def _ids(self, known: _Tracks, partners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the id of each rock; a rock without a track gets a new one."""
        ids = np.append(known.ids, 0)[partners]
        new = ids == 0
        first, self._next = self._next, self._next + int(new.sum())
        ids[new] = np.arange(first, self._next)
        return ids

    def _missed(self, known: _Tracks, partners: NDArray[np.int64]) -> _Tracks:
        """Returns the tracks that are not found in the image and not discarded yet."""
        missed = np.minimum(known.missed, self._time)
        keep = self._time - missed < self._memory
        keep[partners[partners >= 0]] = False
        keep[np.flatnonzero(keep)[MAX_MISSED_ROCKS:]] = False
        rows = np.cumsum(keep) - 1
        of = keep[known.rows]
        return _Tracks(known.ids[keep], missed[keep], known.points[:, of], rows[known.rows[of]])


Start = Callable[[], NDArray[np.float32] | None]


def estimate_motion(
    old: NDArray[np.uint8], new: NDArray[np.uint8], prior: Start = lambda: None
) -> NDArray[np.float32] | None:
    """Estimates the motion of each pixel from one image to the next.

    Dense inverse search starts from the prior motion, if there is one, and then from no motion. It
    is fast, but misses motions of more than a tenth of the image. In that case it starts again
    from the homography of ORB features (Rublee et al. 2011).

    Args:
        old: H×W grey.
        new: H×W grey.
        prior: Returns H×W×2, the motion that is known from other sources, px, or None.

    Returns:
        H×W×2, the motion in x and y, px; None if the images do not show the same scene.
    """
    if min(old.shape) < MIN_SIDE:
        return _no_motion(old)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow, correlation = None, -1.0
    starts: tuple[Start, ...] = (
        prior,
        lambda: _no_motion(old),
        lambda: _motion_from_features(old, new),
    )
    for start_from in starts:
        start = start_from() if correlation < TRUSTED_CORRELATION else None
        if start is not None:
            found: Any = search.calc(old, new, start)
            better = _correlation(old, new, found)
            if better > correlation:
                flow, correlation = found, better
    return flow if correlation >= MIN_CORRELATION else None


def _correlation(
    old: NDArray[np.uint8], new: NDArray[np.uint8], flow: NDArray[np.float32]
) -> float:
    """Returns the correlation of an image with the next one after undoing the motion, -1 to 1."""
    coordinates = _grid(*old.shape) + flow
    restored = cv2.remap(new, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    half = (old.shape[1] // 2, old.shape[0] // 2)
    one, other = (cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in (old, restored))
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) if other.std() else 0.0


def _no_motion(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns H×W×2 zeros for an H×W image."""
    return np.zeros((*grey.shape, 2), np.float32)


def _motion_from_depth(
    old: PosedView | None, new: PosedView | None, shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    """Returns H×W×2, the motion according to depth and poses, in px of an image of this shape."""
    if old is None or new is None or old.view.depth is None:
        return None
    motion: Any = motion_between(old, new)
    if motion is None:
        return None
    scale = shape[1] / old.view.depth.shape[1]
    return cv2.resize(motion, shape[1::-1]) * np.float32(scale)


def _motion_from_features(
    old: NDArray[np.uint8], new: NDArray[np.uint8]
) -> NDArray[np.float32] | None:
    """Returns H×W×2, the motion of the homography that fits most features, or None."""
    orb = cv2.ORB.create(200, nlevels=4, fastThreshold=5)
    (points, descriptors), (new_points, new_descriptors) = (
        orb.detectAndCompute(grey, None) for grey in (old, new)
    )
    if descriptors is None or new_descriptors is None:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(descriptors, new_descriptors)
    here = np.array([points[pair.queryIdx].pt for pair in pairs], np.float32).reshape(-1, 2)
    there = np.array([new_points[pair.trainIdx].pt for pair in pairs], np.float32).reshape(-1, 2)
    plane = _homography(here, there, 5.0)
    if plane is None:
        return None
    grid = _grid(*old.shape)
    return _transform(plane, grid.reshape(-1, 2)).reshape(grid.shape) - grid


def move_points(
    points: NDArray[np.float32], flow: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """Moves points by the flow, and points outside of the image by the homography that fits it.

    Args:
        points: 2×N, x and y, px.
        flow: H×W×2, px.
        scale: Size of a pixel of the flow in pixels of the points.
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
        moved[:, outside] = there if plane is None else _transform(plane, there.T).T
    return moved * np.float32(scale)


def _homography(
    here: NDArray[np.float32], there: NDArray[np.float32], tolerance: float
) -> NDArray[np.float64] | None:
    """Returns the 3×3 homography that fits most of the N×2 points within a tolerance (px)."""
    if len(here) < 4:
        return None
    found: Any = cv2.findHomography(here, there, cv2.RANSAC, tolerance, maxIters=500)[0]
    return found


def _transform(plane: NDArray[np.float64], points: NDArray[np.float32]) -> NDArray[np.float32]:
    moved: Any = cv2.perspectiveTransform(points[None], plane)
    return moved[0]


@lru_cache(maxsize=16)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """Returns H×W×2, x and y of each pixel. The array is shared: do not modify it."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


def _pixels(
    points: NDArray[np.float32], width: int, height: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Returns which of 2×N points are in an image, and the flat index of the nearest pixel."""
    x, y = points
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    column, row = (
        np.clip(part + np.float32(0.5), 0, length - 1).astype(np.int32)
        for part, length in ((x, width), (y, height))
    )
    return inside, row * np.int32(width) + column


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Returns width and height of an image after its longer side was reduced to a length (px)."""
    height, width = shape[:2]
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = _fitted(image.shape, GREY_SIDE)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def _drawn(instances: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Returns the label image in the size in which rocks are compared."""
    size = _fitted(instances.shape, DRAWN_SIDE)
    return cv2.resize(instances, size, interpolation=cv2.INTER_NEAREST)  # type: ignore[return-value]


def _match(known: _Tracks, drawn: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Matches rocks with tracks, best overlap first; each is matched at most once.

    Args:
        known: The tracks at their expected positions.
        drawn: H×W, 0 or the number of a rock.
        count: Number of rocks.

    Returns:
        For each rock the index of its track, -1 for none.
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


def _tracks_of(drawn: NDArray[np.uint16], ids: NDArray[np.int64]) -> _Tracks:
    """Returns the rocks of a label image as tracks."""
    found: Any = cv2.findNonZero(drawn)
    if found is None:
        return NO_TRACKS
    x, y = found.reshape(-1, 2).T
    rows = drawn[y, x].astype(np.int64) - 1
    return _Tracks(ids, np.full(len(ids), math.inf), np.stack([x, y]).astype(np.float32), rows)


def _concatenate(some: _Tracks, others: _Tracks) -> _Tracks:
    return _Tracks(
        np.concatenate([some.ids, others.ids]),
        np.concatenate([some.missed, others.missed]),
        np.concatenate([some.points, others.points], axis=1),
        np.concatenate([some.rows, others.rows + len(some.ids)]),
    )


def _with_ids(rocks: Sequence[Rock], ids: NDArray[np.int64]) -> list[Rock]:
    return [replace(rock, id=number) for rock, number in zip(rocks, ids.tolist(), strict=True)]
