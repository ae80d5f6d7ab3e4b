# SPDX-License-Identifier: Apache-2.0
"""The ground: a fractal height field with a mesh that is finer near the cameras."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.noise import noise_2d

REACH = 3000.0  # m, radius of the ground


@dataclass(frozen=True)
class Mesh:
    """Triangles with smooth normals.

    Attributes:
        vertices: V×3 float32, metres.
        faces: F×3 int32.
        normals: V×3 float32, unit length.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]


@dataclass(frozen=True)
class Terrain:
    """A fractal height field with distant hills.

    Attributes:
        roughness: Slope of each octave (height / wavelength); 0 = a plane.
        finest: Shortest wavelength, m.
        octaves: Number of octaves; each has twice the wavelength of the previous one.
        hill_height: Height of the hills, m.
        hill_distance: Distance of the hills from the origin, m.
        offset: Shift of the pattern, m, which makes each scene different.
        craters: N×3: x, y and radius of the rim, m.
        mounds: N×4: x, y, radius and height, m.
    """

    roughness: float
    finest: float
    octaves: int = 8
    hill_height: float = 0.0
    hill_distance: float = 100.0
    offset: tuple[float, float] = (0.0, 0.0)
    craters: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    mounds: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    def height(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the height (m) at …×2 points (m)."""
        place = np.asarray(points, np.float64) + np.array(self.offset)
        total = _bowls(np.asarray(points, np.float64), self.craters)
        for x, y, radius, height in self.mounds:
            away = np.hypot(points[..., 0] - x, points[..., 1] - y) / radius
            # A cone with a rounded top and a smooth edge.
            cone = 1.05 - np.sqrt(away**2 + 0.02)
            total += height * 0.5 * (cone + np.sqrt(cone**2 + 0.01))
        if self.roughness > 0:
            for octave in range(self.octaves):
                wavelength = self.finest * 2.0**octave
                noise = noise_2d(place / wavelength, octave)[..., 0]
                total += self.roughness / (2 * np.pi) * wavelength * noise
        if self.hill_height > 0:
            away = np.hypot(points[..., 0], points[..., 1])
            rise = np.clip((away - self.hill_distance) / (4 * self.hill_distance), 0, 1) ** 1.5
            far = rise > 0
            for octave in range(5):
                wavelength = 6 * self.hill_distance / 2.0**octave
                noise = noise_2d(place[far] / wavelength, 20 + octave)[..., 0]
                total[far] += rise[far] * self.hill_height * (0.25 + 0.4 * noise) / 1.9**octave
        return total

    def mesh(
        self, centre: tuple[float, float], sector: tuple[float, float], nearest: float, reach: float
    ) -> Mesh:
        """Makes a mesh of a sector around a point, with rings whose width grows with distance.

        Args:
            centre: x and y of the point, m.
            sector: First and last heading, rad.
            nearest: Radius of the innermost ring, m.
            reach: Radius of the outermost ring, m.
        """
        rings, spokes = 300, 200
        radii = np.concatenate([[0.0], np.geomspace(nearest, reach, rings - 1)])
        angles = np.linspace(*sector, spokes)
        radius, angle = np.meshgrid(radii, angles, indexing='ij')
        points = np.stack(
            [centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], -1
        )
        return grid_mesh(points, self.height(points))


def draw_craters(
    rng: Generator, density: float, smallest: float, largest: float
) -> NDArray[np.float64]:
    """Draws craters around the origin; the cumulative number is proportional to radius^-2.

    This is the distribution of small craters in equilibrium (Gault 1970). Craters are placed up to
    a distance of 40 radii, beyond which they are not visible.

    Args:
        rng: Random generator.
        density: Share of the ground that is covered by each octave of sizes, 0 to 1.
        smallest: Minimum radius, m.
        largest: Maximum radius, m.

    Returns:
        N×3: x, y and radius of the rim, m.
    """
    found = []
    for low in smallest * 2.0 ** np.arange(max(0, np.log2(largest / smallest))):
        count = rng.poisson(density * 40**2)
        radius = low / np.sqrt(1 - 0.75 * rng.uniform(size=count))
        away = 40 * low * np.sqrt(rng.uniform(size=count))
        angle = rng.uniform(0, 2 * np.pi, count)
        found.append(np.column_stack([away * np.cos(angle), away * np.sin(angle), radius]))
    return np.concatenate(found) if found else np.zeros((0, 3))


def _bowls(points: NDArray[np.float64], craters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the heights of craters: a parabolic bowl, a rim, and an ejecta blanket around it."""
    flat = points.reshape(-1, 2)
    total = np.zeros(len(flat))
    for x, y, radius in craters:
        near = np.flatnonzero(
            (np.abs(flat[:, 0] - x) < 3 * radius) & (np.abs(flat[:, 1] - y) < 3 * radius)
        )
        if not len(near):
            continue
        away = np.hypot(flat[near, 0] - x, flat[near, 1] - y) / radius
        # Fresh craters have a depth of a fifth of the diameter; these are eroded to half of that.
        bowl = 0.22 * (away**2 - 1) + 0.05
        blanket = 0.05 * np.maximum(away, 1) ** -3 * np.clip(3 - away, 0, 1)
        total[near] += radius * np.where(away < 1, bowl, blanket)
    return total.reshape(points.shape[:-1])


def grid_mesh(points: NDArray[np.floating], height: NDArray[np.floating]) -> Mesh:
    """Makes a mesh of a grid.

    Args:
        points: R×C×2 x and y, m, counter-clockwise along rows and then columns.
        height: R×C heights, m.
    """
    rows, columns = height.shape
    vertices = np.concatenate([points, height[..., None]], axis=-1).reshape(-1, 3)
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    normals = vertex_normals(vertices, faces)
    return Mesh(vertices.astype(np.float32), faces, normals)


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns V×3 unit normals: the area-weighted mean of the faces at each vertex."""
    corners = vertices[faces]
    by_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    count = len(vertices)
    total = np.stack(
        [
            sum(np.bincount(faces[:, corner], by_face[:, axis], count) for corner in range(3))
            for axis in range(3)
        ],
        axis=-1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.maximum(length, 1e-30)).astype(np.float32)
