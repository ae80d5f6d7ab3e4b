# SPDX-License-Identifier: Apache-2.0
"""Renders a world: ray casting, shading and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.camera import Camera
from training.synthetic.materials import (
    Colour,
    Floats,
    Ground,
    dot,
    length,
    mark,
    rock_surface,
)
from training.synthetic.noise import noise_2d
from training.synthetic.rocks import Rock, bake
from training.synthetic.sensor import Sensor
from training.synthetic.terrain import Mesh

BACKGROUND, IGNORED, SHADOW, ROCK = 0, 64, 128, 255
SKY_RAYS = 2
CHUNK = 16384  # points shaded at once, so that their data fit in the cache of the processor


@dataclass(frozen=True)
class Light:
    """Sun, sky and air.

    Attributes:
        sun: Unit vector towards the sun.
        sun_colour: Irradiance of a surface that faces the sun.
        sky_colour: Irradiance of a surface that faces the whole sky.
        horizon: Radiance of the sky at the horizon.
        zenith: Radiance of the sky overhead.
        haze: Radiance of distant air.
        visibility: Distance at which the contrast is reduced to 1/e, m.
        clouds: Share of the sky with clouds, 0 to 1.
        cloud_colour: Radiance of the clouds.
        cloud_shift: Shift of the pattern of the clouds.
    """

    sun: tuple[float, float, float]
    sun_colour: Colour
    sky_colour: Colour
    horizon: Colour
    zenith: Colour
    haze: Colour
    visibility: float
    clouds: float = 0.0
    cloud_colour: Colour = (0.9, 0.9, 0.9)
    cloud_shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Rendering:
    """An image and its ground truth.

    Attributes:
        image: H×W×3 uint8 RGB.
        classes: H×W uint8: 0 ground, belt, objects and sky; 255 rock; 128 ground in the cast shadow
            of a rock; 64 rocks that are too small for certain labels.
        instances: H×W uint16 instance ids where `classes` is 255 or 64, else 0. A rock has the same
            id in all images of a scene.
        depth: H×W float32, m along the optical axis; NaN without a surface.
        pose: Camera in world, 4×4 float64; see `Camera`.
        intrinsics: K, 3×3 float64, px.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    depth: NDArray[np.float32]
    pose: NDArray[np.float64]
    intrinsics: NDArray[np.float64]


@dataclass(frozen=True)
class _Hits:
    """First hits of N rays: mesh (−1 = none), rock (0 = none), depth, point and normals."""

    mesh: NDArray[np.int32]
    rock: NDArray[np.int32]
    distance: Floats
    points: Floats
    normals: Floats
    flat: Floats


class World:
    """Ground, objects and rocks, which can be rendered."""

    def __init__(
        self,
        grounds: Sequence[tuple[Mesh, Ground]],
        rocks: Sequence[Rock] = (),
        details: Sequence[int] = (),
        roughness: float = 0.2,
        wet: float = 0.0,
    ) -> None:
        """Builds the ray caster.

        Args:
            grounds: Meshes that are not rock, with their materials; the last is the soil, which
                also covers rocks as dust.
            rocks: Rocks in the order of their instance ids, which start at 1.
            details: Number of subdivisions of each rock.
            roughness: Slope of each octave of the roughness of rocks.
            wet: Strength of specular reflection on rocks, 0 to 1.
        """
        self.wet = wet
        self.rocks = list(rocks)
        self.roughness = roughness
        self.grounds = [ground for _, ground in grounds]
        mesh, self._owner = bake(self.rocks, list(details))
        self._meshes = [mesh for mesh, _ in grounds] + [mesh]
        self._scene = EmbreeScene()
        for each in self._meshes:
            if len(each.faces):
                TriangleMesh(self._scene, each.vertices, each.faces)
        self._centres = np.array([(0, 0, 0), *(rock.position for rock in rocks)], np.float32)
        self._colours = np.array([(0, 0, 0), *(rock.colour for rock in rocks)], np.float32)
        self._bedding = np.array([(0, 0, 1), *(rock.bedding for rock in rocks)], np.float32)
        self._dust = np.array([0, *(rock.dust for rock in rocks)], np.float32)
        self._diameters = np.array([0, *(rock.diameter for rock in rocks)], np.float32)
        self._others = np.array([(0, 0, 0), *(rock.marks.other for rock in rocks)], np.float32)
        self._marks = np.array(
            [(0,) * 5, *(dataclasses.astuple(rock.marks)[1:] for rock in rocks)], np.float32
        )

    def render(
        self,
        camera: Camera,
        light: Light,
        sensor: Sensor,
        rng: Generator,
        smallest: tuple[float, float] = (8.0, 14.0),
        gain: float | None = None,
    ) -> Rendering:
        """Renders an image.

        Args:
            camera: The camera.
            light: Sun, sky and air.
            sensor: The camera sensor.
            rng: Random generator of the noise and of the directions of sky rays.
            smallest: Limits of the diameter of the disc with the area of the visible part of a
                rock, px: below the first, a rock is ground, as pebbles are in MarsData; below the
                second, it is ignored.
            gain: Exposure; None = automatic.
        """
        width, height = camera.size
        rays = camera.directions().reshape(-1, 3)
        origins = np.tile(camera.position.astype(np.float32), (len(rays), 1))
        hits = self._first_hits(origins, rays)
        seen = np.flatnonzero(hits.mesh >= 0)
        casters = self._casters(hits, seen, light)
        radiance = np.zeros_like(rays)
        radiance[hits.mesh < 0] = _sky(rays[hits.mesh < 0], light)
        radiance[seen] = self._shade(camera, hits, seen, casters, light, rays, rng)
        image = sensor.expose(radiance.reshape(height, width, 3), rng, gain)
        classes, instances = self._labels(camera, hits, casters, smallest)
        depth = np.where(hits.mesh >= 0, hits.distance, np.nan).astype(np.float32)
        return Rendering(
            image,
            classes.reshape(height, width),
            instances.reshape(height, width),
            depth.reshape(height, width),
            camera.pose,
            camera.intrinsics,
        )

    def _first_hits(self, origins: Floats, rays: Floats) -> _Hits:
        found = self._scene.run(origins, rays, output=1)
        mesh = found['geomID']
        face = found['primID']
        normals = np.zeros_like(rays)
        for number, each in enumerate(self._meshes):
            of = np.flatnonzero(mesh == number)
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
        rock[of_rock] = self._owner[face[of_rock]]
        points = origins + found['tfar'][:, None] * rays
        points[mesh < 0] = 0
        return _Hits(mesh, rock, found['tfar'], points, normals, flat)

    def _casters(self, hits: _Hits, seen: NDArray[np.intp], light: Light) -> NDArray[np.int32]:
        """Returns what shadows each pixel: −1 = nothing, 0 = ground, else the id of a rock."""
        casters = np.full(len(hits.mesh), -1, np.int32)
        sun = np.array(light.sun, np.float32)
        faces_sun = hits.flat[seen] @ sun > 0
        casters[seen[~faces_sun]] = 0
        of_rock = hits.rock[seen] > 0
        # The rock that casts a shadow is needed only for pixels of the ground.
        some = seen[faces_sun & of_rock]
        blocked = self._scene.run(self._lifted(hits, some), sun[None], query='OCCLUDED') >= 0
        casters[some[blocked]] = 0
        some = seen[faces_sun & ~of_rock]
        found = self._scene.run(self._lifted(hits, some), sun[None], output=1)
        rock = found['geomID'] == len(self._meshes) - 1
        casters[some] = np.where(found['geomID'] < 0, -1, 0)
        casters[some[rock]] = self._owner[found['primID'][rock]]
        return casters

    def _lifted(self, hits: _Hits, seen: NDArray[np.intp]) -> Floats:
        """Returns the hit points, moved off the surface by more than the error of float32."""
        lift = 1e-4 * hits.distance.take(seen)[:, None] + 1e-5
        return hits.points.take(seen, 0) + lift * hits.flat.take(seen, 0)

    def _openness(
        self, camera: Camera, hits: _Hits, seen: NDArray[np.intp], rng: Generator
    ) -> Floats:
        """Estimates the visible share of the sky at each pixel, 0 to 1, with a few random rays."""
        width, height = camera.size
        # Every second pixel of every second row is enough, because the light of the sky is smooth.
        grid = np.zeros((height, width), bool)
        grid[::2, ::2] = True
        some = seen[grid.ravel()[seen]]
        start = self._lifted(hits, some)
        open_sky = np.zeros(len(some), np.float32)
        for _ in range(SKY_RAYS):
            way = rng.standard_normal((len(some), 3), np.float32)
            way /= length(way)
            way += np.float32(1.01) * hits.normals[some]  # cosine-weighted about the normal
            open_sky += self._scene.run(start, way, query='OCCLUDED') < 0
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

    def _shade(
        self,
        camera: Camera,
        hits: _Hits,
        seen: NDArray[np.intp],
        casters: NDArray[np.int32],
        light: Light,
        rays: Floats,
        rng: Generator,
    ) -> Floats:
        """Returns the N×3 radiance of the pixels with a surface."""
        normals = hits.normals.copy()
        albedo = np.zeros_like(rays)
        sun = np.array(light.sun, np.float32)
        facing = np.abs(dot(hits.flat, rays)) / length(rays)[:, 0]
        steep = np.sqrt(np.maximum(facing, 0.04))
        footprint = (hits.distance / camera.focal_length / steep).astype(np.float32, copy=False)
        for number, ground in enumerate(self.grounds):
            for of in _chunks(hits.mesh == number):
                slope, albedo[of] = ground.surface(hits.points.take(of, 0), footprint[of], sun)
                bent = normals.take(of, 0)
                bent[:, :2] -= slope
                normals[of] = bent / length(bent)
        stone = hits.rock > 0
        if stone.any():
            longest = float(np.percentile(self._diameters[hits.rock[stone]], 90))
            for of in _chunks(stone):
                normals[of], albedo[of] = self._stone(hits, of, footprint[of], longest)
        surface = normals.take(seen, 0), albedo.take(seen, 0)
        radiance = self._lit(camera, hits, seen, casters, light, surface, rng)
        self._shine(hits, seen, casters, light, rays, normals, radiance)
        return radiance

    def _stone(
        self, hits: _Hits, of: NDArray[np.intp], footprint: Floats, longest: float
    ) -> tuple[Floats, Floats]:
        """Returns normals and albedo of rock pixels, with dust on upper sides."""
        rock = hits.rock[of]
        place = hits.points.take(of, 0) - self._centres.take(rock, 0)
        normals, albedo, coarse = rock_surface(
            place + 0.7 * np.mod(rock, 97)[:, None].astype(np.float32),
            hits.normals.take(of, 0),
            footprint,
            self._bedding.take(rock, 0),
            self._colours.take(rock, 0),
            np.full(len(of), self.roughness, np.float32),
            longest,
        )
        diameter = self._diameters.take(rock)
        mark(
            albedo,
            place + diameter[:, None] * np.mod(0.37 * rock, 50)[:, None].astype(np.float32),
            footprint,
            diameter,
            self._bedding.take(rock, 0),
            self._others.take(rock, 0),
            self._marks.take(rock, 0),
        )
        upward = np.clip((normals[:, 2] - 0.55 + 0.25 * coarse) / 0.3, 0, 1)
        dust = (self._dust[rock] * upward)[:, None]
        soil = np.array(self.grounds[-1].colour, np.float32) * (1 + 0.1 * coarse)[:, None]
        return normals, (albedo + dust * (soil - albedo)).astype(np.float32)

    def _lit(
        self,
        camera: Camera,
        hits: _Hits,
        seen: NDArray[np.intp],
        casters: NDArray[np.int32],
        light: Light,
        surface: tuple[Floats, Floats],
        rng: Generator,
    ) -> Floats:
        """Returns the radiance of a surface in the light of sun, sky and ground, with haze."""
        normals, albedo = surface
        sun = np.array(light.sun, np.float32)
        direct = np.clip(normals @ sun, 0, None) * (casters[seen] < 0)
        direct *= np.clip(20 * (hits.flat[seen] @ sun), 0, 1)
        up = 0.5 + 0.5 * normals[:, 2]
        openness = self._openness(camera, hits, seen, rng)
        sky = openness * up
        ground = albedo[hits.rock[seen] == 0]
        bounce = (ground.mean(0) if len(ground) else albedo.mean(0)) * max(light.sun[2], 0)
        energy = (
            direct[:, None] * np.array(light.sun_colour, np.float32)
            + sky[:, None] * np.array(light.sky_colour, np.float32)
            + ((1 - up) * (0.15 + 0.55 * openness))[:, None]
            * bounce
            * np.array(light.sun_colour, np.float32)
        )
        clear = np.exp(-hits.distance[seen] / light.visibility)[:, None].astype(np.float32)
        return clear * albedo * energy + (1 - clear) * np.array(light.haze, np.float32)

    def _shine(
        self,
        hits: _Hits,
        seen: NDArray[np.intp],
        casters: NDArray[np.int32],
        light: Light,
        rays: Floats,
        normals: Floats,
        radiance: Floats,
    ) -> None:
        """Adds reflections of sun and sky on wet rocks and water to the radiance, in place."""
        gloss = np.zeros(len(hits.mesh), np.float32)
        gloss[hits.rock > 0] = self.wet
        for number, ground in enumerate(self.grounds):
            gloss[hits.mesh == number] = getattr(ground, 'gloss', 0.0)
        of = np.flatnonzero(gloss[seen] > 0)
        if not len(of):
            return
        pixel = seen[of]
        ray = rays[pixel] / length(rays[pixel])
        normal = normals[pixel]
        facing = np.clip(-dot(ray, normal), 0, 1)
        away = ray + 2 * facing[:, None] * normal
        away[:, 2] = np.maximum(away[:, 2], 0.02)
        # Schlick 1994, for water on stone.
        mirror = gloss[pixel] * (0.02 + 0.98 * (1 - facing) ** 5)
        blocked = self._scene.run(self._lifted(hits, pixel), away, query='OCCLUDED') >= 0
        sky = np.where(blocked[:, None], np.float32(0.05), _sky(away, light))
        sky *= np.float32(np.mean(light.sky_colour))
        sun = np.clip(away / length(away) @ np.array(light.sun, np.float32), 0, 1) ** 120
        sun *= 60 * mirror * (casters[pixel] < 0)
        colour = np.array(light.sun_colour, np.float32)
        radiance[of] = (
            radiance[of] * (1 - mirror)[:, None] + sky * mirror[:, None] + sun[:, None] * colour
        )

    def _labels(
        self,
        camera: Camera,
        hits: _Hits,
        casters: NDArray[np.int32],
        smallest: tuple[float, float],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Returns class and instance id of each pixel."""
        pixels = np.bincount(hits.rock, minlength=len(self.rocks) + 1)
        across = 2 * np.sqrt(pixels / np.pi)
        of_rock = np.full(len(across), ROCK, np.uint8)
        of_rock[across < smallest[1]] = IGNORED
        of_rock[across < smallest[0]] = BACKGROUND
        of_rock[0] = BACKGROUND
        classes = of_rock[hits.rock]
        away = np.linalg.norm(self._centres - camera.position, axis=1)
        casts = self._diameters * camera.focal_length / np.maximum(away, 1e-6) >= smallest[0]
        casts[0] = False
        shaded = (hits.rock == 0) & (hits.mesh >= 0) & casts[np.maximum(casters, 0)]
        classes[shaded] = SHADOW
        instances = np.where((classes == ROCK) | (classes == IGNORED), hits.rock, 0)
        return classes, instances.astype(np.uint16)


def _chunks(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Yields the indices of the True entries in chunks."""
    of = np.flatnonzero(mask)
    for start in range(0, len(of), CHUNK):
        yield of[start : start + CHUNK]


def _sky(rays: Floats, light: Light) -> Floats:
    """Returns the N×3 radiance of the sky in each direction; below the horizon it is haze."""
    height = rays[:, 2] / length(rays)[:, 0]
    rise = np.clip(height, 0, 1)[:, None] ** 0.6
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    blue = horizon + rise * (zenith - horizon)
    if light.clouds > 0:
        blue += _clouds(rays, height, light)[:, None] * (
            np.array(light.cloud_colour, np.float32) - blue
        )
    return np.where(height[:, None] < 0, np.array(light.haze, np.float32), blue).astype(np.float32)


def _clouds(rays: Floats, height: Floats, light: Light) -> Floats:
    """Returns the N opacities of the clouds in each direction, 0 to 1."""
    # A layer at a height of one unit, which is curved towards the horizon.
    place = rays[:, :2] / (length(rays) * (np.abs(height)[:, None] + 0.12))
    place = place + np.array(light.cloud_shift, np.float32)
    thick = np.zeros(len(rays), np.float32)
    for octave in range(6):
        thick += 0.6**octave * noise_2d(place * 2.0**octave / 2.5, 50 + octave)[:, 0]
    return np.clip((thick / 1.4 + 3 * (light.clouds - 0.5)) * 1.4, 0, 1) ** 1.5
