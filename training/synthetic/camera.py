# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        intrinsics: K, 3×3 float64, px; the centre of the top left pixel is at 0, 0.
        size: Width and height, px.
        pose: Camera in world, 4×4 float64, metres. World: x east, y north, z up. Camera: REP 103's
            optical frame, x right, y down, z forward.
    """

    intrinsics: NDArray[np.float64]
    size: tuple[int, int]
    pose: NDArray[np.float64]

    @classmethod
    def aimed(
        cls,
        position: tuple[float, float, float],
        heading: float,
        tilt: float,
        field_of_view: float,
        size: tuple[int, int],
        roll: float = 0.0,
    ) -> Camera:
        """Makes a camera from its position and direction.

        Args:
            position: x, y, z in the world, m.
            heading: Heading of the optical axis, from x towards y, rad.
            tilt: Angle of the optical axis below the horizontal, rad; π/2 points straight down.
            field_of_view: Horizontal field of view, rad.
            size: Width and height, px.
            roll: Rotation about the optical axis, rad.
        """
        width, height = size
        focal = width / 2 / np.tan(field_of_view / 2)
        intrinsics = np.array(
            [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]]
        )
        right = np.array([np.sin(heading), -np.cos(heading), 0.0])
        level = np.array([np.cos(heading), np.sin(heading), 0.0])
        forward = np.cos(tilt) * level - np.sin(tilt) * np.array([0, 0, 1.0])
        down = np.cross(forward, right)
        pose = np.eye(4)
        pose[:3, 0] = np.cos(roll) * right + np.sin(roll) * down
        pose[:3, 1] = np.cos(roll) * down - np.sin(roll) * right
        pose[:3, 2] = forward
        pose[:3, 3] = position
        return cls(intrinsics, size, pose)

    @property
    def position(self) -> NDArray[np.float64]:
        """Position of the camera in the world, m."""
        return self.pose[:3, 3]

    @property
    def focal_length(self) -> float:
        """Horizontal focal length, px."""
        return float(self.intrinsics[0, 0])

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Horizontal and vertical field of view, rad."""
        width, height = self.size
        focal = self.intrinsics[[0, 1], [0, 1]]
        across, up = 2 * np.arctan(np.array([width, height]) / 2 / focal)
        return float(across), float(up)

    def directions(self, corners: bool = False) -> NDArray[np.float32]:
        """Returns ray directions in the world, each one metre long along the optical axis.

        Args:
            corners: Whether only the corner pixels are returned.

        Returns:
            H×W×3, or 2×2×3 for the corners.
        """
        step = np.array(self.size) - 1 if corners else (1, 1)
        u, v = np.meshgrid(
            *(np.arange(0, side, by) for side, by in zip(self.size, step, strict=True))
        )
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(self.intrinsics).T
        return (rays @ self.pose[:3, :3].T).astype(np.float32)

    def sees(self, centres: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns which spheres are in view; a few just outside the corners are included.

        Args:
            centres: N×3 centres in the world, m.
            radii: N radii, m.
        """
        x, y, depth = ((centres - self.position) @ self.pose[:3, :3]).T
        across, up = np.tan(np.array(self.field_of_view) / 2)
        return (
            (np.abs(x) - across * depth <= radii * np.hypot(1, across))
            & (np.abs(y) - up * depth <= radii * np.hypot(1, up))
            & (depth > -radii)
        )

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Projects N×3 world points (m) to N×3: u, v (px) and depth (m, negative behind)."""
        seen = (points - self.position) @ self.pose[:3, :3]
        image = seen @ self.intrinsics.T
        return np.column_stack([image[:, :2] / image[:, 2:], seen[:, 2]])


def sector(cameras: Sequence[Camera]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Returns a point behind all cameras, and the first and last heading (rad) of their views."""
    places = np.array([camera.position[:2] for camera in cameras])
    forward = np.array([camera.pose[:2, 2] for camera in cameras])
    headings = np.arctan2(forward[:, 1], forward[:, 0])
    middle = np.arctan2(np.sin(headings).mean(), np.cos(headings).mean())
    spread = np.abs(np.angle(np.exp(1j * (headings - middle)))).max()
    across = max(_widest(camera) for camera in cameras)
    half = min(spread + across / 2 * 1.15 + 0.05, np.pi)
    level = np.array([np.cos(middle), np.sin(middle)])
    reach = float(np.ptp(places @ level) + np.ptp(places, axis=0).sum() / np.tan(min(half, 1.4)))
    return places.mean(0) - level * reach, (float(middle - half), float(middle + half))


def _widest(camera: Camera) -> float:
    """Returns the range of headings (rad) of an image, which exceeds its field of view."""
    corners = camera.directions(corners=True).reshape(4, 3)
    level = (
        corners[:, :2]
        @ np.array(
            [[camera.pose[0, 2], -camera.pose[1, 2]], [camera.pose[1, 2], camera.pose[0, 2]]]
        )
        / np.hypot(camera.pose[0, 2], camera.pose[1, 2])
    )
    return float(2 * np.abs(np.arctan2(level[:, 1], level[:, 0])).max())
