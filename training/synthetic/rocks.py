# SPDX-License-Identifier: Apache-2.0
"""Rocks: size-frequency distribution, positions and shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import trimesh
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.noise import noise_3d_value
from training.synthetic.terrain import Mesh, vertex_normals

KINDS = ('angular', 'rounded', 'layered', 'slab', 'pitted', 'plate', 'pebble', 'cobble', 'block')


def cover(diameter: NDArray[np.floating] | float, abundance: float) -> NDArray[np.float64]:
    """Returns the share of the ground that is covered by rocks of at least a diameter (m).

    F(D) = k exp(−q D) with q = 1.79 + 0.152 / k (Golombek and Rapp 1997,
    doi:10.1029/96JE03319), where k is the abundance, the share that all rocks cover.
    """
    return abundance * np.exp(-(1.79 + 0.152 / abundance) * np.asarray(diameter, np.float64))


def draw_diameters(
    rng: Generator, abundance: float, area: float, smallest: float, largest: float
) -> NDArray[np.float64]:
    """Draws the diameters of the rocks on an area of ground, largest first.

    Args:
        rng: Random generator.
        abundance: k of the distribution, above 0 and below 1.
        area: Area of the ground, m².
        smallest: Minimum diameter, m.
        largest: Maximum diameter, m.
    """
    if largest <= smallest or area <= 0:
        return np.zeros(0)
    edges = np.geomspace(smallest, largest, 257)
    covered = cover(edges, abundance)
    middle = np.sqrt(edges[1:] * edges[:-1])
    expected = area * (covered[:-1] - covered[1:]) / (np.pi / 4 * middle**2)
    cumulative = np.concatenate([[0.0], np.cumsum(expected)])
    count = rng.poisson(cumulative[-1])
    draw = np.interp(rng.uniform(0, cumulative[-1], count), cumulative, edges)
    return np.sort(draw)[::-1]


@dataclass(frozen=True)
class Shape:
    """The shape of a rock.

    Attributes:
        kind: One of `KINDS`.
        seed: Seed of the random shape.
    """

    kind: str
    seed: int

    @lru_cache(maxsize=96)  # noqa: B019 - shapes are values, and a scene has about a dozen of them
    def body(self, detail: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Makes a mesh of the shape with a diameter of 1 m.

        Args:
            detail: Number of subdivisions of the icosphere, 1 to 6.

        Returns:
            V×3 vertices relative to the centre of the bounding box, and F×3 faces.
        """
        directions, faces = _icosphere(detail)
        rng = np.random.default_rng(self.seed)
        radius = self._facets(directions, rng)
        shift = rng.uniform(0, 64, 3)
        rough = {
            'rounded': 0.04,
            'pitted': 0.09,
            'slab': 0.06,
            'plate': 0.1,
            'pebble': 0.012,
            'cobble': 0.025,
            'block': 0.022,
        }.get(self.kind, 0.05)
        octaves = range(2 * detail - 3)
        for octave in octaves:
            wavelength = 1.6 / 1.7**octave
            noise = noise_3d_value(directions * radius[:, None] / wavelength + shift, octave)
            radius = radius + rough * wavelength * noise
            if self.kind == 'pitted':
                radius = radius - 0.08 * wavelength * np.maximum(noise - 0.6, 0)
        vertices = directions * np.maximum(radius, 0.15)[:, None]
        vertices = self._shaped(vertices, rng)
        vertices -= (vertices.max(0) + vertices.min(0)) / 2
        across = 2 * np.hypot(vertices[:, 0], vertices[:, 1]).max()
        return vertices / across, faces

    def _facets(self, directions: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
        """Cuts the unit sphere with planes; returns the radius in each direction."""
        radius = np.ones(len(directions))
        if self.kind == 'pebble':
            count, near, far = int(rng.integers(0, 3)), 0.85, 0.98
        elif self.kind in ('rounded', 'pitted', 'cobble'):
            count, near, far = int(rng.integers(3, 7)), 0.75, 0.97
        elif self.kind == 'block':
            count, near, far = int(rng.integers(7, 13)), 0.4, 0.8
        else:
            count, near, far = int(rng.integers(7, 15)), 0.45, 0.9
        planes = rng.standard_normal((count, 3))
        if self.kind in ('slab', 'plate'):
            planes[:, 2] *= 0.3
        planes /= np.linalg.norm(planes, axis=1, keepdims=True)
        for plane, distance in zip(planes, rng.uniform(near, far, count), strict=True):
            along = directions @ plane
            radius = np.minimum(radius, distance / np.maximum(along, 1e-6))
        return radius

    def _shaped(self, vertices: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
        """Applies the layers and the proportions of the kind."""
        if self.kind == 'layered':
            tilt = np.append(rng.normal(0, 0.25, 2), 1.0)
            level = vertices @ (tilt / np.linalg.norm(tilt))
            beside = np.full_like(level, 0.3)
            place = [level * 1.4 + rng.uniform(0, 8), beside, beside]
            layer = noise_3d_value(np.column_stack(place), 0)
            vertices = vertices * (1 + 0.07 * np.tanh(3 * layer))[:, None]
        flat = {
            'slab': (0.12, 0.4),
            'plate': (0.08, 0.2),
            'rounded': (0.5, 0.95),
            'layered': (0.35, 0.8),
            'pebble': (0.35, 0.8),
            'cobble': (0.45, 0.85),
            'block': (0.45, 0.95),
        }
        scale = np.array(
            [
                1.0,
                rng.uniform(0.45 if self.kind == 'pebble' else 0.55, 1.0),
                rng.uniform(*flat.get(self.kind, (0.45, 1.0))),
            ]
        )
        vertices = vertices * scale
        if self.kind in ('slab', 'plate'):
            top = rng.uniform(0.5, 0.9) * vertices[:, 2].max()
            vertices[:, 2] = np.minimum(vertices[:, 2], top + 0.15 * (vertices[:, 2] - top))
        spread = {'slab': 0.12, 'plate': 0.04, 'pebble': 0.25, 'cobble': 0.35}.get(self.kind, 0.5)
        lean = trimesh.transformations.euler_matrix(*rng.normal(0, spread, 2), 0)[:3, :3]
        return vertices @ lean.T


@cache
def _icosphere(detail: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    sphere = trimesh.creation.icosphere(subdivisions=detail)
    return np.asarray(sphere.vertices, np.float64), np.asarray(sphere.faces, np.int32)


@dataclass(frozen=True)
class Marks:
    """Changes of colour and brightness within one rock.

    Attributes:
        other: Linear albedo of patches and veins.
        patches: Share of the rock with the other colour, 0 = none.
        stripes: Relative contrast of coloured layers.
        veins: Opacity of thin veins of the other colour, 0 to 1.
        cracks: Darkness of cracks, 0 to 1.
        speckle: Relative standard deviation of the albedo of grains.
    """

    other: tuple[float, float, float] = (0.3, 0.3, 0.3)
    patches: float = 0.0
    stripes: float = 0.0
    veins: float = 0.0
    cracks: float = 0.0
    speckle: float = 0.0


@dataclass(frozen=True)
class Rock:
    """A rock with its position.

    Attributes:
        shape: Its shape.
        diameter: Maximum horizontal diameter, m.
        position: x, y, z of the centre of its bounding box in the world, m.
        turn: Rotation about the vertical, rad.
        colour: Linear albedo, three numbers from 0 to 1.
        bedding: Normal of its layers; a length above 1 means finer layers.
        dust: Share of its upper side that is covered by soil, 0 to 1.
        marks: Patches, layers, veins and cracks.
    """

    shape: Shape
    diameter: float
    position: tuple[float, float, float]
    turn: float
    colour: tuple[float, float, float]
    bedding: tuple[float, float, float]
    dust: float
    marks: Marks = Marks()


def rotation_about_z(angle: float) -> NDArray[np.float64]:
    """Returns the 3×3 rotation matrix about the vertical; the angle is in rad."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def detail_for(pixels: float) -> int:
    """Returns the number of subdivisions for a rock of this apparent diameter (px)."""
    needed = math.ceil(math.log2(max(pixels, 1.0)) - 3.3)
    return min(max(needed, 1 if pixels < 14 else 2), 5)


def bake(rocks: list[Rock], details: list[int]) -> tuple[Mesh, NDArray[np.int32]]:
    """Combines all rocks to one mesh.

    Args:
        rocks: Rocks in the order of their instance ids, which start at 1.
        details: Number of subdivisions of each rock.

    Returns:
        The mesh, and the instance id of the rock of each face (int32).
    """
    parts: list[tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float32]]] = []
    made: dict[tuple[Shape, int], tuple] = {}
    owner, start = [], 0
    for number, (rock, detail) in enumerate(zip(rocks, details, strict=True), 1):
        key = (rock.shape, detail)
        if key not in made:
            vertices, faces = rock.shape.body(detail)
            made[key] = (vertices, faces, vertex_normals(vertices, faces))
        vertices, faces, normals = made[key]
        turn = rotation_about_z(rock.turn)
        parts.append(
            (
                rock.diameter * vertices @ turn.T + np.array(rock.position),
                faces + np.int32(start),
                normals @ turn.T.astype(np.float32),
            )
        )
        start += len(vertices)
        owner.append(np.full(len(faces), number, np.int32))
    if not parts:
        empty = np.zeros((0, 3), np.float32)
        return Mesh(empty, np.zeros((0, 3), np.int32), empty), np.zeros(0, np.int32)
    vertices, faces, normals = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Mesh(vertices.astype(np.float32), faces, normals), np.concatenate(owner)


def spread_out(
    rng: Generator,
    points: NDArray[np.float64],
    radii: NDArray[np.float64],
    retries: int = 12,
) -> NDArray[np.bool_]:
    """Moves discs at random until none of them touches a larger one.

    Args:
        rng: Random generator.
        points: N×2 centres, m, largest disc first; changed in place.
        radii: N radii, m.
        retries: Maximum number of moves per disc.

    Returns:
        N bool: which discs were placed.
    """
    placed = np.zeros(len(points), bool)
    # Discs that are not placed have infinite coordinates.
    x, y = np.full((2, len(points)), np.inf)
    for number in range(len(points)):
        reach = (radii[:number] + radii[number]) ** 2
        for attempt in range(retries + 1):
            across, along = x[:number] - points[number, 0], y[:number] - points[number, 1]
            if not (across * across + along * along < reach).any():
                placed[number] = True
                x[number], y[number] = points[number]
                break
            points[number] += rng.normal(0, (1 + attempt) * radii[number], 2)
    return placed
