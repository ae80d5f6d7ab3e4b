# SPDX-License-Identifier: Apache-2.0
"""A world of ground, objects and rocks, and its rendering: shading and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.camera import Camera
from training.synthetic.materials import Floats, Ground
from training.synthetic.ray_casting import Hits, RayCaster
from training.synthetic.rendering import BACKGROUND, IGNORED, ROCK, SHADOW, Rendering
from training.synthetic.rock_material import mark, rock_surface
from training.synthetic.rocks import Rock, bake
from training.synthetic.sensor import Sensor
from training.synthetic.sky import Light, sky_radiance
from training.synthetic.terrain import Mesh
from training.synthetic.vectors import dot, length

CHUNK = 16384  # points shaded at once, so that their data fit in the cache of the processor


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
        rock_mesh, rock_of_face = bake(self.rocks, list(details))
        self._rays = RayCaster([*(mesh for mesh, _ in grounds), rock_mesh], rock_of_face)
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
        hits = self._rays.first_hits(origins, rays)
        seen = np.flatnonzero(hits.mesh >= 0)
        casters = self._rays.shadow_casters(hits, seen, light.sun)
        radiance = np.zeros_like(rays)
        radiance[hits.mesh < 0] = sky_radiance(rays[hits.mesh < 0], light)
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

    def _shade(
        self,
        camera: Camera,
        hits: Hits,
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
        self, hits: Hits, of: NDArray[np.intp], footprint: Floats, longest: float
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
        hits: Hits,
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
        openness = self._rays.openness(camera, hits, seen, rng)
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
        hits: Hits,
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
        blocked = self._rays.is_blocked(hits, pixel, away)
        sky = np.where(blocked[:, None], np.float32(0.05), sky_radiance(away, light))
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
        hits: Hits,
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
