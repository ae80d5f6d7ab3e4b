# SPDX-License-Identifier: Apache-2.0
"""Positions for objects that are not rock: on the ground, in view of the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from training.synthetic.camera import Camera
from training.synthetic.heap import Heap
from training.synthetic.materials import Colour, Ground
from training.synthetic.paint import Painted
from training.synthetic.solids import Points
from training.synthetic.terrain import Mesh, Terrain

SceneObject = tuple[Mesh, Ground]
PAINTS: tuple[Colour, ...] = (
    (0.75, 0.75, 0.73),
    (0.5, 0.5, 0.5),
    (0.2, 0.2, 0.21),
    (0.035, 0.035, 0.037),
    (0.6, 0.42, 0.08),
    (0.5, 0.14, 0.03),
    (0.08, 0.16, 0.35),
    (0.55, 0.4, 0.16),
)


@dataclass(frozen=True)
class Site:
    """The surroundings in which objects are placed.

    Attributes:
        rng: Random generator.
        terrain: The ground.
        cameras: Poses of the images.
        soil: Linear albedo of the dirt.
        heap: Stones on the terrain, or None.
    """

    rng: Generator
    terrain: Terrain
    cameras: Sequence[Camera]
    soil: Colour
    heap: Heap | None = None

    def camera(self) -> Camera:
        """Draws one of the cameras."""
        return self.cameras[int(self.rng.integers(len(self.cameras)))]

    def stand(self, camera: Camera) -> float:
        """Returns the height of a camera above the ground, m."""
        return float(camera.position[2] - self.terrain.height(camera.position[:2]))

    def seen(self, camera: Camera, count: int, farthest: float, low: float = 0.05) -> Points:
        """Draws visible positions on the ground.

        Args:
            camera: The camera.
            count: Number of positions that are drawn.
            farthest: Maximum distance, m; farther positions are removed.
            low: Upper limit in the image, as a share of its height from the top.

        Returns:
            N×3 positions, m, with N at most `count`.
        """
        width, height = camera.size
        pixels = np.column_stack(
            [
                self.rng.uniform(-0.05 * width, 1.05 * width, count),
                self.rng.uniform(low * height, 1.1 * height, count),
                np.ones(count),
            ]
        )
        rays = pixels @ np.linalg.inv(camera.intrinsics).T @ camera.pose[:3, :3].T
        rays = rays[rays[:, 2] < -1e-3]
        away = -self.stand(camera) / rays[:, 2:]
        places = camera.position[:2] + away * rays[:, :2]
        near = np.linalg.norm(places - camera.position[:2], axis=1) < farthest
        return self.rooted(places[near])

    def rooted(self, places: Points) -> Points:
        """Returns N×3 positions on the ground for N×2 x and y."""
        return np.column_stack([places, self.terrain.height(places)])

    def upon(self, places: Points) -> Points:
        """Returns N×3 positions on the ground or on the stones for N×2 x and y."""
        rooted = self.rooted(places)
        if self.heap:
            rooted[:, 2] = np.fmax(rooted[:, 2], self.heap.height(places))
        return rooted

    def paint(self, palette: tuple[Colour, ...] = PAINTS, **pattern: object) -> Painted:
        """Draws a painted surface."""
        dirt = float(self.rng.choice([0.0, self.rng.uniform(0.1, 0.5)]))
        return Painted(
            near_colour(self.rng, palette),
            dirt=dirt,
            soil=self.soil,
            **pattern,  # type: ignore[arg-type]
        )


def near_colour(rng: Generator, palette: tuple[Colour, ...], spread: float = 0.15) -> Colour:
    """Draws a colour similar to one of a palette."""
    colour = np.array(palette[rng.integers(len(palette))])
    mixed = np.clip(colour * np.exp(rng.normal(0, spread) + rng.normal(0, 0.04, 3)), 0.005, 0.9)
    return tuple(float(part) for part in mixed)  # type: ignore[return-value]


def at_pixel(camera: Camera, u: float, v: float, depth: float) -> Points:
    """Returns the world point at a pixel (as shares of width and height) and a depth (m)."""
    pixel = np.array([u * camera.size[0], v * camera.size[1], 1.0])
    return camera.position + camera.pose[:3, :3] @ (
        depth * np.linalg.solve(camera.intrinsics, pixel)
    )


def ground_depth(site: Site, camera: Camera, u: float, v: float) -> float:
    """Returns the depth of the ground at a pixel, m; at most 8 times the camera height."""
    ray = at_pixel(camera, u, v, 1.0) - camera.position
    stand = site.stand(camera)
    return min(stand / max(-float(ray[2]), 1e-6), 8 * stand)
