# SPDX-License-Identifier: Apache-2.0
"""Meshes of simple solids: boxes, roofs, tubes, spheres, and separate triangles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import NDArray

from training.synthetic.terrain import Mesh, vertex_normals

Points = NDArray[np.float64]
UP = np.array([0.0, 0.0, 1.0])


def loose(triangles: NDArray[np.floating]) -> Mesh:
    """Makes a mesh of T×3×3 triangles (m) that share no vertices, so that edges are sharp."""
    vertices = np.asarray(triangles, np.float64).reshape(-1, 3)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    return Mesh(vertices.astype(np.float32), faces, vertex_normals(vertices, faces))


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Combines several meshes; their normals do not change."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate(
            [mesh.faces + np.int32(at) for mesh, at in zip(meshes, starts, strict=False)]
        ),
        np.concatenate([mesh.normals for mesh in meshes]),
    )


def box(centre: Points, axes: Points) -> Mesh:
    """Makes a box.

    Args:
        centre: Centre in the world, 3, m.
        axes: 3×3 vectors from the centre to the centres of three sides, m.
    """
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    turns = [(a, b, c) for a, b, c, _ in sides] + [(a, c, d) for a, _, c, d in sides]
    return loose((centre + corners @ axes)[np.array(turns)])


def gable(centre: Points, axes: Points) -> Mesh:
    """Makes a gable roof on the rectangle of the first two axes; the third points to its ridge."""
    along, across, up = axes
    eaves = [centre + s * along + t * across for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    ridge = [centre - along + up, centre + along + up]
    a, b, c, d = eaves
    e, f = ridge
    return loose(np.array([(a, b, f), (a, f, e), (c, d, e), (c, e, f), (a, e, d), (b, c, f)]))


def tube(path: Points, radius: NDArray[np.floating] | float, sides: int = 10) -> Mesh:
    """Makes a tube along a path, with closed ends.

    Args:
        path: P×3 points, m, with P at least 2.
        radius: Radius at each point or of the whole tube, m.
        sides: Number of sides of its cross-section.
    """
    ways = np.gradient(path, axis=0)
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
    level = np.abs(ways[:, 2:]) < 0.9
    across = np.cross(ways, np.where(level, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)))
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    up = np.cross(across, ways)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    wide = np.broadcast_to(np.asarray(radius, np.float64), (len(path),))[:, None, None]
    rings = path[:, None] + wide * (
        np.cos(angle)[None, :, None] * across[:, None] + np.sin(angle)[None, :, None] * up[:, None]
    )
    vertices = np.concatenate([rings.reshape(-1, 3), path[[0, -1]]])
    index = np.arange(len(path) * sides).reshape(len(path), sides)
    onward = np.roll(index, -1, axis=1)
    wall = [
        np.stack([index[:-1], onward[:-1], onward[1:]], -1),
        np.stack([index[:-1], onward[1:], index[1:]], -1),
    ]
    first, last = len(vertices) - 2, len(vertices) - 1
    ends = [
        np.stack([np.full(sides, first), onward[0], index[0]], -1),
        np.stack([np.full(sides, last), index[-1], onward[-1]], -1),
    ]
    faces = np.concatenate([each.reshape(-1, 3) for each in (*wall, *ends)]).astype(np.int32)
    return Mesh(vertices.astype(np.float32), faces, vertex_normals(vertices, faces))


def ball(centre: Points, radius: float) -> Mesh:
    """Makes a sphere."""
    sphere = trimesh.creation.icosphere(subdivisions=4)
    normals = np.asarray(sphere.vertices, np.float64)
    vertices = centre + radius * normals
    return Mesh(
        vertices.astype(np.float32),
        np.asarray(sphere.faces, np.int32),
        normals.astype(np.float32),
    )


def turned(axis: Points, angle: float) -> Points:
    """Returns the 3×3 rotation matrix about a unit axis; the angle is in rad."""
    return np.asarray(trimesh.transformations.rotation_matrix(angle, axis)[:3, :3])
