# SPDX-License-Identifier: Apache-2.0
"""Scenes: a look, a world and the cameras that see it, all from one seed.

On a machine the same seed gives the same bytes. Across processors, with the same versions of the
libraries, fewer than 0.1 % of a picture's pixels differ by more than 3 grey values, in class, or by
more than 0.1 % in depth: vector units round differently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.camera import Camera
from training.synthetic.heap import Heap
from training.synthetic.looks import LOOKS, MIX, Look
from training.synthetic.materials import Rubber, Soil
from training.synthetic.render import Rendering, World
from training.synthetic.rocks import (
    Rock,
    Shape,
    detail_for,
    draw_diameters,
    spread_out,
)
from training.synthetic.terrain import Terrain, draw_craters, grid_mesh

REACH = 3000.0  # of the terrain, m
DRIVES = ('mars', 'moon', 'quarry')
MOST_ROCKS = 2500
UNSEEN_COARSER = 2  # subdivisions that rocks need less where only their shadows are seen
SMALLEST = 5.0  # apparent diameter of the smallest rocks that are bodies, px


@dataclass(frozen=True)
class Scene:
    """A world, its look and the cameras it was made for.

    Attributes:
        seed: What it was made from, with `number`.
        number: Of the scene under this seed.
        look: Colours, light, camera.
        world: Ground and rocks; `world.rocks[i - 1]` is the rock with number i.
        cameras: Poses that the scene was made for.

    Example:
        >>> scene = make_scene(seed=1, number=0, look='mars', size=(320, 240), pictures=1)
        >>> scene.render(scene.cameras[0]).depth.shape
        (240, 320)
    """

    seed: int
    number: int
    look: Look
    world: World
    cameras: tuple[Camera, ...]

    def render(self, camera: Camera, frame: int = 0, gain: float | None = None) -> Rendering:
        """Takes a picture.

        Args:
            camera: Where from; the world is detailed only where `cameras` look.
            frame: Number of the picture, for its noise.
            gain: Exposure; None meters the picture.
        """
        chance = np.random.default_rng([self.seed, self.number, 1, frame])
        if gain is None and self.look.metered is not None:
            gain = self.look.fixed_gain(self.look.metered)
        return self.world.render(camera, self.look.light, self.look.sensor, chance, gain=gain)


def make_scene(seed: int, number: int, look: str, size: tuple[int, int], pictures: int) -> Scene:
    """Makes a scene and the cameras that look at it.

    Args:
        seed: Of the data set.
        number: Of the scene; each has its own randomness.
        look: A name in `LOOKS`, or 'mix'.
        size: Width and height of the pictures, px.
        pictures: How many poses.
    """
    chance = np.random.default_rng([seed, number, 0])
    if look == 'mix':
        look = str(chance.choice(list(MIX), p=list(MIX.values())))
    drawn = LOOKS[look](chance)
    if look == 'belt':
        world, cameras = _belt(drawn, chance, size, pictures)
    else:
        world, cameras = _land(drawn, chance, size, pictures)
    return Scene(seed, number, drawn, world, tuple(cameras))


def make_drive(
    seed: int, number: int, look: str, size: tuple[int, int], frames: int, step: float
) -> Scene:
    """Makes a scene that a camera drives through on a slight bend, looking ahead.

    Rocks keep their numbers over the drive, and the exposure stays.

    Args:
        seed: Of everything random.
        number: Of the scene.
        look: One of `DRIVES`.
        size: Width and height of the pictures, px.
        frames: How many poses.
        step: Metres between two poses.
    """
    if look not in DRIVES:
        raise ValueError(f'look is {look!r}; legal for a drive is {", ".join(DRIVES)}')
    chance = np.random.default_rng([seed, number, 0])
    drawn = LOOKS[look](chance)
    # A rover's navigation camera.
    view = np.radians(chance.uniform(40, 60))
    drawn = replace(drawn, metered=drawn.soil[0], camera_height=1.2, field_of_view=view)
    tilt = view * size[1] / size[0] * chance.uniform(0.45, 0.8)
    pixel = drawn.camera_height / np.sin(tilt) * 2 * np.tan(view / 2) / size[0]
    terrain = _terrain(drawn, chance, pixel)
    bend = chance.uniform(-0.03, 0.03)
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
    world = land_world(drawn, terrain, cameras, pixel, chance)
    return Scene(seed, number, drawn, world, tuple(cameras))


def _terrain(look: Look, chance: Generator, pixel: float) -> Terrain:
    away = float(chance.uniform(60, 400))
    return Terrain(
        look.relief,
        finest=20 * pixel,
        octaves=12,
        hill_height=look.hills * away,
        hill_distance=away,
        offset=tuple(chance.uniform(-1e4, 1e4, 2)),
        craters=draw_craters(chance, look.craters, 20 * pixel, 3000 * pixel),
    )


def _land(
    look: Look, chance: Generator, size: tuple[int, int], pictures: int
) -> tuple[World, list[Camera]]:
    """Makes open ground and cameras that stand on it."""
    tilt, pixel = _aim(look, chance, size)
    terrain = _terrain(look, chance, pixel)
    cameras = []
    for picture in range(pictures):
        place = chance.normal(0, 0.25 * look.camera_height, 2)
        height = float(terrain.height(place)) + look.camera_height * chance.uniform(0.9, 1.1)
        cameras.append(
            Camera.aimed(
                (*place, height),
                heading=(picture - (pictures - 1) / 2) * 0.9 * look.field_of_view,
                tilt=tilt * chance.uniform(0.9, 1.1),
                field_of_view=look.field_of_view,
                size=size,
                roll=chance.normal(0, 0.04),
            )
        )
    return land_world(look, terrain, cameras, pixel, chance), cameras


def _aim(look: Look, chance: Generator, size: tuple[int, int]) -> tuple[float, float]:
    """Draws how far the camera looks down (rad), and the size of a pixel where it looks (m)."""
    upright = look.field_of_view * size[1] / size[0]
    if chance.uniform() < 0.25:
        tilt = upright * chance.uniform(-0.1, 0.48)
        away = look.camera_height / np.tan(tilt + 0.35 * upright)
    else:
        away = look.camera_height * np.exp(chance.uniform(np.log(0.6), np.log(9)))
        tilt = max(float(np.arctan2(look.camera_height, away)), 0.35 * upright)
        tilt = min(tilt, np.radians(82) - upright / 2)
        away = look.camera_height / np.tan(tilt)
    distance = np.hypot(away, look.camera_height)
    return float(tilt), float(distance * 2 * np.tan(look.field_of_view / 2) / size[0])


def land_world(
    look: Look,
    terrain: Terrain,
    cameras: Sequence[Camera],
    pixel: float,
    chance: Generator,
) -> World:
    """Strews rocks over a terrain where cameras look, and meshes it.

    Args:
        look: Colours and abundance.
        terrain: The height field.
        cameras: All poses that pictures will be taken from.
        pixel: Size of a pixel on the ground where the pictures have their middle, m.
        chance: Where the randomness comes from.
    """
    origin, sector = _sector(cameras)
    nearest = 0.15 * look.camera_height
    mesh = terrain.mesh((origin[0], origin[1]), sector, nearest, REACH)
    diameters, points = _strew(look, cameras, chance, pixel, size=cameras[0].size)
    rocks, details = [], []
    shapes = [_shape(look, chance) for _ in range(12)]
    height = terrain.height(points)
    sizes = _apparent(diameters, points, cameras, look.camera_height)
    for diameter, point, ground, apparent in zip(diameters, points, height, sizes, strict=True):
        shape = _shape(look, chance) if apparent > 40 else shapes[chance.integers(len(shapes))]
        rocks.append(_rock(look, chance, shape, diameter, (*point, ground)))
        details.append(detail_for(apparent))
    centres = np.array([rock.position for rock in rocks]).reshape(-1, 3)
    seen = np.any([camera.sees(centres, diameters) for camera in cameras], axis=0)
    details = [
        detail if shown else max(1, detail - UNSEEN_COARSER)
        for detail, shown in zip(details, seen, strict=True)
    ]
    soil = _soil(look, chance, pixel)
    return World([(mesh, soil)], rocks, details, look.roughness)


def _soil(look: Look, chance: Generator, pixel: float) -> Soil:
    pebbles = tuple(
        tuple(float(p) for p in np.array(colour) * chance.uniform(0.7, 1.2))
        for colour in (*look.stones, look.soil[0], look.soil[0])
    )
    return Soil(
        colour=look.soil[0],
        patch=look.soil[1],
        patches=float(chance.uniform(0, 0.7)),
        pebbles=pebbles,  # type: ignore[arg-type]
        grain=look.grain,
        mottle=float(chance.uniform(0.01, 0.05)),
        gravel_cover=look.gravel,
        texel=float(0.16 * pixel * chance.uniform(0.7, 1.4)),
        ripple=look.ripple,
        ripple_length=float(pixel * np.exp(chance.uniform(np.log(12), np.log(110)))),
        ripple_direction=float(chance.uniform(0, np.pi)),
        track=float(chance.choice([0.0, 0.0, 0.0, 0.0, 60 * pixel])),
        track_width=float(50 * pixel),
    )


def _shape(look: Look, chance: Generator) -> Shape:
    return Shape(str(chance.choice(look.kinds)), int(chance.integers(2**31)))


@lru_cache(maxsize=4096)
def _half_height(shape: Shape) -> float:
    """Returns half the height of a body that is one metre across."""
    return float(shape.body(2)[0][:, 2].max())


def _rock(
    look: Look,
    chance: Generator,
    shape: Shape,
    diameter: float,
    ground: tuple[float, float, float],
) -> Rock:
    """Draws colour, turn and burial of a rock."""
    half = diameter * _half_height(shape)
    buried = chance.beta(1.5, 3.0) * (0.9 if shape.kind == 'slab' else 0.7)
    stone = look.stones[chance.integers(len(look.stones))]
    lighter = chance.normal(0, 0.13)
    red, green, blue = (
        min(max(part * math.exp(lighter + tint), 0.01), 0.9)
        for part, tint in zip(stone, chance.normal(0, 0.02, 3).tolist(), strict=True)
    )
    lean = (*chance.normal(0, 0.2, 2).tolist(), 1.0)
    finer = (
        chance.uniform(2.5, 6)
        if shape.kind in ('layered', 'slab', 'plate')
        else chance.uniform(1, 1.6)
    )
    return Rock(
        shape,
        diameter,
        (ground[0], ground[1], float(ground[2] + half * (1 - 2 * buried))),
        float(chance.uniform(0, 2 * np.pi)),
        (red, green, blue),
        tuple(part * finer / math.hypot(*lean) for part in lean),
        float(look.dust * chance.uniform(0.3, 1.0)),
    )


def _apparent(
    diameters: NDArray[np.float64],
    points: NDArray[np.float64],
    cameras: Sequence[Camera],
    stand: float,
) -> NDArray[np.float64]:
    """Returns the greatest apparent diameters (px) of rocks in any picture."""
    places = np.array([camera.position[:2] for camera in cameras])
    away = np.linalg.norm(points[:, None] - places, axis=2).min(axis=1)
    near = np.maximum(np.hypot(away, 0.7 * stand), diameters / 2)
    return diameters * cameras[0].focal_length / near


def _sector(cameras: Sequence[Camera]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Returns a point behind all cameras and the directions (rad) that they see from there."""
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
    """Returns the range of headings (rad) that a picture spans, more than its field of view."""
    corners = camera.directions(corners=True).reshape(4, 3)
    level = (
        corners[:, :2]
        @ np.array(
            [[camera.pose[0, 2], -camera.pose[1, 2]], [camera.pose[1, 2], camera.pose[0, 2]]]
        )
        / np.hypot(camera.pose[0, 2], camera.pose[1, 2])
    )
    return float(2 * np.abs(np.arctan2(level[:, 1], level[:, 0])).max())


def _strew(
    look: Look,
    cameras: Sequence[Camera],
    chance: Generator,
    pixel: float,
    size: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws rocks by the size-frequency law, ring by ring; far rings only what can be seen there.

    Returns:
        Diameters (m), largest first, and N×2 places (m).
    """
    origin, (first, last) = _sector(cameras)
    focal = cameras[0].focal_length
    largest = min(0.55 * size[0] * pixel, 0.9 * look.camera_height + 40 * pixel)
    inner = 0.3 * look.camera_height
    found: list[tuple[NDArray, NDArray]] = []
    for outer in inner * 2.0 ** np.arange(1, 14):
        smallest = max(SMALLEST * outer / 2 / focal, SMALLEST * pixel / 4)
        area = (last - first) / 2 * (outer**2 - (outer / 2) ** 2)
        diameters = draw_diameters(chance, look.abundance, area, smallest, largest)
        diameters = diameters[:4000]
        radius = np.sqrt(chance.uniform((outer / 2) ** 2, outer**2, len(diameters)))
        angle = chance.uniform(first, last, len(diameters))
        found.append(
            (diameters, origin + np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))
        )
    diameters = np.concatenate([each[0] for each in found])
    points = np.concatenate([each[1] for each in found])
    order = np.argsort(-diameters, kind='stable')
    diameters, points = diameters[order], points[order]
    _bring_near(cameras, look.camera_height, chance, points)
    seen = np.any(
        [_in_view(camera, points, diameters, look.camera_height) for camera in cameras], axis=0
    )
    diameters, points = diameters[seen][:MOST_ROCKS], points[seen][:MOST_ROCKS]
    placed = spread_out(chance, points, diameters / 2)
    seen = np.zeros(len(points), bool)
    for camera in cameras:
        # Nothing stands before the lens.
        placed &= np.hypot(*(points - camera.position[:2]).T) > diameters / 2 + 0.25
        seen |= _in_view(camera, points, diameters, look.camera_height)
    keep = placed & seen
    return diameters[keep], points[keep]


def _bring_near(
    cameras: Sequence[Camera],
    stand: float,
    chance: Generator,
    points: NDArray[np.float64],
) -> None:
    """Moves some of the largest rocks to where cameras look, or most pictures would have none."""
    for camera in cameras[:: max(1, len(cameras) // 4)]:
        width, height = camera.size
        for _ in range(int(chance.integers(0, 7))):
            if not len(points):
                return
            pixel = (chance.uniform(0, width), chance.uniform(0.15 * height, height), 1.0)
            ray = camera.pose[:3, :3] @ np.linalg.solve(camera.intrinsics, pixel)
            if ray[2] > -1e-2:
                continue
            # The power prefers the largest, the list being sorted.
            number = int(min(len(points), 60) * chance.uniform() ** 1.5)
            points[number] = camera.position[:2] - ray[:2] / ray[2] * stand


def _in_view(
    camera: Camera, points: NDArray[np.float64], diameters: NDArray[np.float64], stand: float
) -> NDArray[np.bool_]:
    """Tells which rocks a picture can show, or the shadow of which can fall into it."""
    ground = camera.position[2] - stand
    u, v, depth = camera.project(np.column_stack([points, np.full(len(points), ground)])).T
    margin = 3 * camera.focal_length * diameters / np.maximum(depth, 0.1) + 20
    width, height = camera.size
    inside = (u > -margin) & (u < width + margin) & (v > -margin - height) & (v < height + margin)
    return inside & (depth > -diameters)


def _belt(
    look: Look, chance: Generator, size: tuple[int, int], pictures: int
) -> tuple[World, list[Camera]]:
    """Makes a belt, bare, strewn or loaded, under a camera that looks down."""
    view = 2 * look.camera_height * np.tan(look.field_of_view / 2)
    pixel = view / size[0]
    extent = 1.35 * view * max(1.0, size[1] / size[0])
    load = str(chance.choice(['bare', 'strewn', 'loaded'], p=[0.25, 0.2, 0.55]))
    heap = Heap(extent, cells=240)
    edges = [-extent, extent]
    if chance.uniform() < 0.5:
        side = int(chance.integers(2))
        edges[side] = float((1 - 2 * side) * chance.uniform(-0.4, 0.3) * view)
    corners = np.array([[(-1, -1), (-1, 1)], [(1, -1), (1, 1)]]) * 4 * extent
    grounds: list = [(grid_mesh(corners, np.zeros((2, 2))), _rubber(look, chance, view))]
    lump = view * float(np.exp(chance.uniform(np.log(0.015), np.log(0.06))))
    if load == 'loaded':
        fines = heap.fines(chance, float(chance.uniform(0.5, 2.5)) * lump, lump, tuple(edges))
        heap.surface = np.maximum(heap.surface, fines)
        grounds.append((grid_mesh(heap.points(), fines), _soil(look, chance, pixel)))
    rocks, details = _pile(look, chance, heap, load, (edges[0], edges[1]), view, pixel)
    cameras = [
        Camera.aimed(
            (
                *chance.uniform(-0.05, 0.05, 2) * view,
                look.camera_height * chance.uniform(0.9, 1.05),
            ),
            heading=float(np.pi / 2 + chance.normal(0, 0.05)),
            tilt=float(np.pi / 2 - abs(chance.normal(0, 0.06))),
            field_of_view=look.field_of_view,
            size=size,
        )
        for _ in range(pictures)
    ]
    return World(grounds, rocks, details, look.roughness), cameras


def _rubber(look: Look, chance: Generator, view: float) -> Rubber:
    stain = look.soil[0] if chance.uniform() < 0.6 else (0.14, 0.2, 0.16)
    return Rubber(
        look.soil[1],
        tuple(0.5 * part for part in stain),  # type: ignore[arg-type]
        float(chance.uniform(0, 0.6)),
        float(chance.uniform(0.03, 0.12)),
        view,
        (float(chance.uniform(0, 50)), float(chance.uniform(0, 50))),
    )


def _pile(
    look: Look,
    chance: Generator,
    heap: Heap,
    load: str,
    edges: tuple[float, float],
    view: float,
    pixel: float,
) -> tuple[list[Rock], list[int]]:
    """Drops stones onto the heap, and then many small ones that fill its gaps."""
    if load == 'bare':
        return [], []
    largest = view * float(chance.uniform(0.12, 0.32))
    smallest = max(view * 0.022, 5 * pixel)
    power = chance.uniform(0.8, 2.2)
    draw = chance.uniform(size=900 if load == 'loaded' else int(chance.integers(5, 60)))
    diameters = (smallest**-power + draw * (largest**-power - smallest**-power)) ** (-1 / power)
    strip = heap.extent * (min(edges[1], heap.extent / 2) - max(edges[0], -heap.extent / 2))
    cover = float(chance.uniform(0.3, 2.0)) * max(strip, 0.0)
    diameters = np.sort(diameters[np.cumsum(diameters**2) < cover])[::-1]
    half = heap.extent / 2
    within = (max(edges[0], -half), min(edges[1], half))
    shapes = [_shape(look, chance) for _ in range(16)]
    rocks, details = [], []
    for diameter in diameters:
        apparent = diameter / pixel
        shape = _shape(look, chance) if apparent > 40 else shapes[chance.integers(len(shapes))]
        turn = float(chance.uniform(0, 2 * np.pi))
        place = heap.drop(chance, shape, float(diameter), turn, within)
        if place is None:
            continue
        rock = _rock(look, chance, shape, float(diameter), place)
        rocks.append(Rock(shape, rock.diameter, place, turn, rock.colour, rock.bedding, rock.dust))
        details.append(detail_for(apparent))
    return rocks, details
