# SPDX-License-Identifier: Apache-2.0
"""Ray casting (Embree): first hits, cast shadows, and the visible share of the sky."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.camera import Camera
from training.synthetic.materials import Floats
from training.synthetic.terrain import Mesh
from training.synthetic.vectors import dot, length

SKY_RAYS = 2


@dataclass(frozen=True)
class Hits:
    """First hits of N rays.

    Attributes:
        mesh: N indices of the mesh, −1 = none.
        rock: N instance ids of the rock, 0 = none.
        distance: N distances in lengths of the ray.
        points: N×3 points in the world, m.
        normals: N×3 smooth unit normals.
        flat: N×3 unit normals of the triangles, towards the origin of the ray.
    """

    mesh: NDArray[np.int32]
    rock: NDArray[np.int32]
    distance: Floats
    points: Floats
    normals: Floats
    flat: Floats


class RayCaster:
    """Casts rays through meshes, of which the last one contains all rocks."""

    def __init__(self, meshes: Sequence[Mesh], rock_of_face: NDArray[np.int32]) -> None:
        """Builds the scene.

        Args:
            meshes: The meshes; the last one contains all rocks.
            rock_of_face: Instance id of the rock of each face of the last mesh.
        """
        self._meshes = list(meshes)
        self._rock_of_face = rock_of_face
        self._scene = EmbreeScene()
        for mesh in self._meshes:
            if len(mesh.faces):
                TriangleMesh(self._scene, mesh.vertices, mesh.faces)

    def first_hits(self, origins: Floats, rays: Floats) -> Hits:
        """Returns the first hit of each ray; origins and rays are N×3."""
        found = self._scene.run(origins, rays, output=1)
        mesh = found['geomID']
        face = found['primID']
        normals = np.zeros_like(rays)
        for index, each in enumerate(self._meshes):
            of = np.flatnonzero(mesh == index)
            if len(of):
                first, second, third = each.faces.take(face[of], 0).T
                u, v = found['u'][of, None], found['v'][of, None]
                mixed = (1 - u - v) * each.normals.take(first, 0)
                mixed += u * each.normals.take(second, 0)
                mixed += v * each.normals.take(third, 0)
                normals[of] = mixed / length(mixed)
        flat = found['Ng']
        flat = flat / np.maximum(length(flat), 1e-30)
        flat *= -np.sign(dot(flat, rays))[:, None]
        # Leaves are visible from both sides.
        normals *= np.where(dot(normals, flat) < 0, np.float32(-1), np.float32(1))[:, None]
        rock = np.zeros(len(rays), np.int32)
        of_rock = mesh == len(self._meshes) - 1
        rock[of_rock] = self._rock_of_face[face[of_rock]]
        points = origins + found['tfar'][:, None] * rays
        points[mesh < 0] = 0
        return Hits(mesh, rock, found['tfar'], points, normals, flat)

    def shadow_casters(
        self, hits: Hits, seen: NDArray[np.intp], sun: tuple[float, float, float]
    ) -> NDArray[np.int32]:
        """Returns what shadows each hit: −1 = nothing, 0 = ground, else the id of a rock.

        Args:
            hits: The hits of an image.
            seen: Indices of the rays that hit a mesh.
            sun: Unit vector towards the sun.
        """
        casters = np.full(len(hits.mesh), -1, np.int32)
        towards_sun = np.array(sun, np.float32)
        faces_sun = hits.flat[seen] @ towards_sun > 0
        casters[seen[~faces_sun]] = 0
        of_rock = hits.rock[seen] > 0
        # The rock that casts a shadow is needed only for pixels of the ground.
        some = seen[faces_sun & of_rock]
        casters[some[self.is_blocked(hits, some, towards_sun[None])]] = 0
        some = seen[faces_sun & ~of_rock]
        found = self._scene.run(_lifted(hits, some), towards_sun[None], output=1)
        rock = found['geomID'] == len(self._meshes) - 1
        casters[some] = np.where(found['geomID'] < 0, -1, 0)
        casters[some[rock]] = self._rock_of_face[found['primID'][rock]]
        return casters

    def is_blocked(self, hits: Hits, seen: NDArray[np.intp], rays: Floats) -> NDArray[np.bool_]:
        """Returns whether the rays from some hits hit a mesh; one ray is used for all of them."""
        return self._scene.run(_lifted(hits, seen), rays, query='OCCLUDED') >= 0

    def openness(
        self, camera: Camera, hits: Hits, seen: NDArray[np.intp], rng: Generator
    ) -> Floats:
        """Estimates the visible share of the sky at each hit, 0 to 1, with a few random rays."""
        width, height = camera.size
        # Every second pixel of every second row is enough, because the light of the sky is smooth.
        grid = np.zeros((height, width), bool)
        grid[::2, ::2] = True
        some = seen[grid.ravel()[seen]]
        open_sky = np.zeros(len(some), np.float32)
        for _ in range(SKY_RAYS):
            way = rng.standard_normal((len(some), 3), np.float32)
            way /= length(way)
            way += np.float32(1.01) * hits.normals[some]  # cosine-weighted about the normal
            open_sky += ~self.is_blocked(hits, some, way)
        result = np.zeros(height * width, np.float32)
        of_rock = hits.rock > 0
        for kind in (True, False):
            members = of_rock[some] == kind
            share = np.zeros((height * width, 2), np.float32)
            share[some[members], 0] = open_sky[members] / SKY_RAYS
            share[some[members], 1] = 1
            smooth = cv2.blur(share.reshape(height, width, 2), (9, 9)).reshape(-1, 2)
            wanted = seen[of_rock[seen] == kind]
            # Without a ray nearby, half of the sky is assumed to be visible.
            result[wanted] = (smooth[wanted, 0] + 1e-4) / (smooth[wanted, 1] + 2e-4)
        return result[seen]


def _lifted(hits: Hits, seen: NDArray[np.intp]) -> Floats:
    """Returns the hit points, moved off the surface by more than the error of float32."""
    lift = 1e-4 * hits.distance.take(seen)[:, None] + 1e-5
    return hits.points.take(seen, 0) + lift * hits.flat.take(seen, 0)
