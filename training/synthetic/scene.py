# SPDX-License-Identifier: Apache-2.0
"""Scenes: an appearance, a world and cameras, all from one seed.

On one machine, the same seed gives identical bytes. On different processors with the same versions
of the libraries, fewer than 0.1 % of the pixels differ by more than 3 grey values, in class, or by
more than 0.1 % in depth, because of rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.appearance import Appearance
from training.synthetic.belt import belt
from training.synthetic.camera import Camera, sector
from training.synthetic.objects import ObjectProbabilities, place_objects
from training.synthetic.packed import packed
from training.synthetic.rendering import Rendering
from training.synthetic.rocks import detail_for, draw_diameters, spread_out
from training.synthetic.sampling import draw_rock, draw_shape, draw_soil, draw_terrain
from training.synthetic.scene_kinds import MIX, SCENE_KINDS
from training.synthetic.site import Site
from training.synthetic.terrain import REACH, Terrain
from training.synthetic.world import World

DRIVES = ('mars', 'moon', 'quarry')
MAX_ROCKS = 2500
HIDDEN_DETAIL_REDUCTION = 2  # fewer subdivisions for rocks of which only the shadow is visible
MIN_APPARENT_DIAMETER = 5.0  # px, of the smallest rocks that are modelled


@dataclass(frozen=True)
class Scene:
    """A world, its appearance and its cameras.

    Attributes:
        seed: Seed of the data set.
        number: Number of the scene; together with the seed it determines the scene.
        appearance: Colours, light and camera.
        world: Ground and rocks; `world.rocks[i - 1]` is the rock with the instance id i.
        cameras: Poses of the images.

    Example:
        >>> scene = make_scene(seed=1, number=0, kind='mars', size=(320, 240), images=1)
        >>> scene.render(scene.cameras[0]).depth.shape
        (240, 320)
    """

    seed: int
    number: int
    appearance: Appearance
    world: World
    cameras: tuple[Camera, ...]

    def render(self, camera: Camera, frame: int = 0, gain: float | None = None) -> Rendering:
        """Renders an image.

        Args:
            camera: The camera; the world is detailed only in the views of `cameras`.
            frame: Number of the image, which seeds its noise.
            gain: Exposure; None = automatic.
        """
        rng = np.random.default_rng([self.seed, self.number, 1, frame])
        if gain is None and self.appearance.metered is not None:
            gain = self.appearance.fixed_gain(self.appearance.metered)
        return self.world.render(
            camera, self.appearance.light, self.appearance.sensor, rng, gain=gain
        )


def make_scene(seed: int, number: int, kind: str, size: tuple[int, int], images: int) -> Scene:
    """Makes a scene and its cameras.

    Args:
        seed: Seed of the data set.
        number: Number of the scene.
        kind: A name in `SCENE_KINDS`, or 'mix'.
        size: Width and height of the images, px.
        images: Number of poses.
    """
    rng = np.random.default_rng([seed, number, 0])
    if kind == 'mix':
        kind = str(rng.choice(list(MIX), p=list(MIX.values())))
    drawn = SCENE_KINDS[kind](rng)
    if kind == 'belt':
        world, cameras = belt(drawn, rng, size, images)
    elif drawn.packing:
        world, cameras = packed(drawn, rng, size, images)
    else:
        world, cameras = _land(drawn, rng, size, images)
    return Scene(seed, number, drawn, world, tuple(cameras))


def make_drive(
    seed: int, number: int, kind: str, size: tuple[int, int], frames: int, step: float
) -> Scene:
    """Makes a scene in which a camera drives forward on a slight curve.

    Rocks keep their instance ids and the exposure is constant during the drive.

    Args:
        seed: Seed of the data set.
        number: Number of the scene.
        kind: One of `DRIVES`.
        size: Width and height of the images, px.
        frames: Number of poses.
        step: Distance between two poses, m.

    Raises:
        ValueError: The kind is not one of `DRIVES`.
    """
    if kind not in DRIVES:
        raise ValueError(f'kind is {kind!r}; with --drive, it must be one of {", ".join(DRIVES)}')
    rng = np.random.default_rng([seed, number, 0])
    drawn = SCENE_KINDS[kind](rng)
    # There are no robot parts, because they would have to move with the camera.
    view = np.radians(rng.uniform(40, 60))
    drawn = replace(
        drawn,
        metered=drawn.soil[0],
        camera_height=1.2,
        field_of_view=view,
        objects=ObjectProbabilities(),
    )
    tilt = view * size[1] / size[0] * rng.uniform(0.45, 0.8)
    pixel = drawn.camera_height / np.sin(tilt) * 2 * np.tan(view / 2) / size[0]
    terrain = draw_terrain(drawn, rng, pixel)
    bend = rng.uniform(-0.03, 0.03)
    cameras = []
    place, heading = np.zeros(2), 0.0
    for frame in range(frames):
        height = float(terrain.height(place)) + drawn.camera_height
        bob = 0.004 * np.sin(0.9 * frame)
        cameras.append(
            Camera.aimed((*place, height), heading, tilt + bob, view, size, roll=0.5 * bob)
        )
        place = place + step * np.array([np.cos(heading), np.sin(heading)])
        heading += bend * step
    world = land_world(drawn, terrain, cameras, pixel, rng)
    return Scene(seed, number, drawn, world, tuple(cameras))


def _land(
    appearance: Appearance, rng: Generator, size: tuple[int, int], images: int
) -> tuple[World, list[Camera]]:
    """Makes open ground, and cameras above it."""
    tilt, pixel = _aim(appearance, rng, size)
    terrain = draw_terrain(appearance, rng, pixel)
    cameras = []
    for image in range(images):
        place = rng.normal(0, 0.25 * appearance.camera_height, 2)
        height = float(terrain.height(place)) + appearance.camera_height * rng.uniform(0.9, 1.1)
        cameras.append(
            Camera.aimed(
                (*place, height),
                heading=(image - (images - 1) / 2) * 0.9 * appearance.field_of_view,
                tilt=tilt * rng.uniform(0.9, 1.1),
                field_of_view=appearance.field_of_view,
                size=size,
                roll=rng.normal(0, 0.04),
            )
        )
    return land_world(appearance, terrain, cameras, pixel, rng), cameras


def _aim(appearance: Appearance, rng: Generator, size: tuple[int, int]) -> tuple[float, float]:
    """Draws the tilt of the camera (rad); also returns the size of a pixel on the ground (m)."""
    upright = appearance.field_of_view * size[1] / size[0]
    if rng.uniform() < 0.25:
        tilt = upright * rng.uniform(-0.1, 0.48)
        away = appearance.camera_height / np.tan(tilt + 0.35 * upright)
    else:
        away = appearance.camera_height * np.exp(rng.uniform(np.log(0.6), np.log(9)))
        tilt = max(float(np.arctan2(appearance.camera_height, away)), 0.35 * upright)
        tilt = min(tilt, np.radians(82) - upright / 2)
        away = appearance.camera_height / np.tan(tilt)
    distance = np.hypot(away, appearance.camera_height)
    return float(tilt), float(distance * 2 * np.tan(appearance.field_of_view / 2) / size[0])


def land_world(
    appearance: Appearance,
    terrain: Terrain,
    cameras: Sequence[Camera],
    pixel: float,
    rng: Generator,
) -> World:
    """Makes a mesh of a terrain, and scatters rocks on it in the views of the cameras.

    Args:
        appearance: Colours and abundance.
        terrain: The height field.
        cameras: Poses of all images.
        pixel: Size of a pixel on the ground in the middle of an image, m.
        rng: Random generator.
    """
    origin, directions = sector(cameras)
    nearest = 0.15 * appearance.camera_height
    mesh = terrain.mesh((origin[0], origin[1]), directions, nearest, REACH)
    diameters, points = _scatter(appearance, cameras, rng, pixel, size=cameras[0].size)
    rocks, details = [], []
    shapes = [draw_shape(appearance, rng) for _ in range(12)]
    height = terrain.height(points)
    sizes = _apparent(diameters, points, cameras, appearance.camera_height)
    for diameter, point, ground, apparent in zip(diameters, points, height, sizes, strict=True):
        shape = draw_shape(appearance, rng) if apparent > 40 else shapes[rng.integers(len(shapes))]
        rocks.append(draw_rock(appearance, rng, shape, diameter, (*point, ground)))
        details.append(detail_for(apparent))
    centres = np.array([rock.position for rock in rocks]).reshape(-1, 3)
    seen = np.any([camera.sees(centres, diameters) for camera in cameras], axis=0)
    details = [
        detail if shown else max(1, detail - HIDDEN_DETAIL_REDUCTION)
        for detail, shown in zip(details, seen, strict=True)
    ]
    objects = place_objects(appearance.objects, Site(rng, terrain, cameras, appearance.soil[0]))
    grounds = [*objects, (mesh, draw_soil(appearance, rng, pixel))]
    return World(grounds, rocks, details, appearance.roughness, appearance.wet)


def _apparent(
    diameters: NDArray[np.float64],
    points: NDArray[np.float64],
    cameras: Sequence[Camera],
    stand: float,
) -> NDArray[np.float64]:
    """Returns the maximum apparent diameter (px) of each rock over all images."""
    places = np.array([camera.position[:2] for camera in cameras])
    away = np.linalg.norm(points[:, None] - places, axis=2).min(axis=1)
    near = np.maximum(np.hypot(away, 0.7 * stand), diameters / 2)
    return diameters * cameras[0].focal_length / near


def _scatter(
    appearance: Appearance,
    cameras: Sequence[Camera],
    rng: Generator,
    pixel: float,
    size: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws rocks from the size-frequency distribution, ring by ring, as far as they are visible.

    Returns:
        Diameters (m), largest first, and N×2 positions (m).
    """
    if appearance.abundance <= 0:
        return np.zeros(0), np.zeros((0, 2))
    origin, (first, last) = sector(cameras)
    focal = cameras[0].focal_length
    largest = min(0.55 * size[0] * pixel, 0.9 * appearance.camera_height + 40 * pixel)
    inner = 0.3 * appearance.camera_height
    found: list[tuple[NDArray, NDArray]] = []
    for outer in inner * 2.0 ** np.arange(1, 14):
        smallest = max(MIN_APPARENT_DIAMETER * outer / 2 / focal, MIN_APPARENT_DIAMETER * pixel / 4)
        area = (last - first) / 2 * (outer**2 - (outer / 2) ** 2)
        diameters = draw_diameters(rng, appearance.abundance, area, smallest, largest)
        diameters = diameters[:4000]
        radius = np.sqrt(rng.uniform((outer / 2) ** 2, outer**2, len(diameters)))
        angle = rng.uniform(first, last, len(diameters))
        found.append(
            (diameters, origin + np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))
        )
    diameters = np.concatenate([each[0] for each in found])
    points = np.concatenate([each[1] for each in found])
    order = np.argsort(-diameters, kind='stable')
    diameters, points = diameters[order], points[order]
    _move_into_view(cameras, appearance.camera_height, rng, points)
    seen = np.any(
        [_in_view(camera, points, diameters, appearance.camera_height) for camera in cameras],
        axis=0,
    )
    diameters, points = diameters[seen][:MAX_ROCKS], points[seen][:MAX_ROCKS]
    placed = spread_out(rng, points, diameters / 2)
    seen = np.zeros(len(points), bool)
    for camera in cameras:
        # No rock is directly in front of the camera.
        placed &= np.hypot(*(points - camera.position[:2]).T) > diameters / 2 + 0.25
        seen |= _in_view(camera, points, diameters, appearance.camera_height)
    keep = placed & seen
    return diameters[keep], points[keep]


def _move_into_view(
    cameras: Sequence[Camera],
    stand: float,
    rng: Generator,
    points: NDArray[np.float64],
) -> None:
    """Moves some of the largest rocks into view; otherwise most images would have none."""
    for camera in cameras[:: max(1, len(cameras) // 4)]:
        width, height = camera.size
        for _ in range(int(rng.integers(0, 7))):
            if not len(points):
                return
            pixel = (rng.uniform(0, width), rng.uniform(0.15 * height, height), 1.0)
            ray = camera.pose[:3, :3] @ np.linalg.solve(camera.intrinsics, pixel)
            if ray[2] > -1e-2:
                continue
            # The list is sorted by size, and the exponent prefers large rocks.
            number = int(min(len(points), 60) * rng.uniform() ** 1.5)
            points[number] = camera.position[:2] - ray[:2] / ray[2] * stand


def _in_view(
    camera: Camera, points: NDArray[np.float64], diameters: NDArray[np.float64], stand: float
) -> NDArray[np.bool_]:
    """Returns which rocks, or their shadows, can be visible in an image."""
    ground = camera.position[2] - stand
    u, v, depth = camera.project(np.column_stack([points, np.full(len(points), ground)])).T
    margin = 3 * camera.focal_length * diameters / np.maximum(depth, 0.1) + 20
    width, height = camera.size
    inside = (u > -margin) & (u < width + margin) & (v > -margin - height) & (v < height + margin)
    return inside & (depth > -diameters)
