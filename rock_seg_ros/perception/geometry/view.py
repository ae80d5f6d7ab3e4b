# SPDX-License-Identifier: Apache-2.0
"""The geometry of one image: intrinsics, depth, ground plane and pose.

Everything is in the optical frame of REP 103: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.intrinsics import Floats, Intrinsics

MOTION_STEP = 8  # grid of the motion field, px
MIN_DEPTH = 0.05  # m; points nearer to the later camera, or behind it, are moved there


@dataclass(frozen=True)
class Plane:
    """The plane of the points p with normal · p + offset = 0.

    Attributes:
        normal: Unit vector that points to the camera's side of the plane, i.e. up.
        offset: Height of the camera above the plane, m.
    """

    normal: Floats
    offset: float

    def closeness(self, rays: Floats) -> Floats:
        """Returns 1/z (1/m) where N×3 rays (z = 1) meet the plane; 0 or less if they do not."""
        return rays @ (self.normal / -self.offset)

    def heights(self, points: Floats) -> Floats:
        """Returns the heights of N×3 points above the plane, m."""
        return points @ self.normal + self.offset


def level_ground(height: float, tilt: float, roll: float = 0.0) -> Plane:
    """Returns the level ground below a camera.

    Args:
        height: Height of the camera, m, above 0.
        tilt: Angle of the optical axis below the horizon, rad.
        roll: Angle about the optical axis, clockwise as seen from behind, rad. With a positive
            roll, the horizon rises to the right.

    Raises:
        ValueError: The height is not above 0, or an angle is not finite.
    """
    if not height > 0 or not np.isfinite([height, tilt, roll]).all():
        raise ValueError(f'no ground with height {height:g} m, tilt {tilt:g}, roll {roll:g} rad')
    level = np.cos(tilt)
    return Plane(np.array([-np.sin(roll) * level, -np.cos(roll) * level, -np.sin(tilt)]), height)


@dataclass(frozen=True)
class View:
    """What is needed to measure in one image.

    Attributes:
        intrinsics: Intrinsics of the camera.
        depth: H×W float32, metres along the optical axis. NaN, infinity, 0 and negative values
            mean unknown. None = no depth image.
        ground: The plane that the rocks stand on; None = unknown.
    """

    intrinsics: Intrinsics
    depth: NDArray[np.float32] | None = None
    ground: Plane | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if the depth image does not have the size of the images."""
        width, height = self.intrinsics.size
        if self.depth is not None and self.depth.shape != (height, width):
            size = '×'.join(map(str, self.depth.shape[::-1]))
            raise ValueError(f'the depth is {size}, the image {width}×{height}')


@dataclass(frozen=True)
class PosedView:
    """A view with depth and the pose of its camera.

    Attributes:
        view: View with depth.
        pose: Pose of the camera's optical frame in a fixed frame, 4×4 float64, m.
    """

    view: View
    pose: Floats


def motion_between(old: PosedView, new: PosedView) -> NDArray[np.float32] | None:
    """Computes where the points of an image appear in a later image, from depth and poses.

    Unknown depth is replaced by the median. The scene is assumed to be static.

    Args:
        old: View of the image, with depth.
        new: View of the later image.

    Returns:
        H×W×2 displacements in x and y, px of the image, on a grid of `MOTION_STEP` px. None if
        no depth is known.
    """
    assert old.view.depth is not None
    grid = slice(MOTION_STEP // 2, None, MOTION_STEP)
    depth = old.view.depth[grid, grid].astype(np.float64)
    known = (depth > 0) & (depth < np.inf)
    if not known.any():
        return None
    z = np.where(known, depth, np.median(depth[known]))
    pixels = np.indices(z.shape)[::-1].reshape(2, -1).T * MOTION_STEP + MOTION_STEP // 2
    motion = np.linalg.inv(new.pose) @ old.pose
    points = old.view.intrinsics.rays(pixels) * z.reshape(-1, 1) @ motion[:3, :3].T + motion[:3, 3]
    points[:, 2] = np.maximum(points[:, 2], MIN_DEPTH)
    moved = new.view.intrinsics.pixels(points) - pixels
    return moved.reshape(*z.shape, 2).astype(np.float32)
