# SPDX-License-Identifier: Apache-2.0
"""Scenes of closely packed stones: beaches, banks, heaps and boulders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.appearance import Appearance, Packing
from training.synthetic.camera import Camera, sector
from training.synthetic.heap import Heap
from training.synthetic.objects import place_objects
from training.synthetic.rocks import Rock, detail_for
from training.synthetic.sampling import draw_rock, draw_shape, draw_soil, draw_terrain
from training.synthetic.site import Site
from training.synthetic.terrain import REACH, Terrain
from training.synthetic.world import World

MAX_STONES = 2600
ROUND = (-np.pi, np.pi)
MIN_APPARENT_DIAMETER = 7.5  # px, of the smallest stones that are modelled


def packed(
    appearance: Appearance, rng: Generator, size: tuple[int, int], images: int
) -> tuple[World, list[Camera]]:
    """Makes ground with closely packed stones, and cameras around it that point at its middle.

    Args:
        appearance: Appearance with a packing.
        rng: Random generator.
        size: Width and height of the images, px.
        images: Number of poses.
    """
    assert appearance.packing
    overhead = rng.uniform() < appearance.packing.overhead
    tilt = np.radians(rng.uniform(64, 89.5) if overhead else rng.uniform(10, 50))
    away = appearance.camera_height / np.sin(tilt)
    view = 2 * away * np.tan(appearance.field_of_view / 2)
    pixel = float(view / size[0])
    terrain = draw_terrain(appearance, rng, pixel)
    if appearance.packing.mound > 0:
        terrain = replace(terrain, mounds=_mounds(appearance.packing, rng, view))
    cameras = []
    middle = float(terrain.height(np.zeros(2)))
    spread = np.pi if overhead else 0.45
    for _ in range(images):
        heading, down = rng.uniform(-spread, spread), tilt * rng.uniform(0.92, 1.0)
        target = rng.normal(0, 0.12, 2) * view
        place = target - away * np.cos(down) * np.array([np.cos(heading), np.sin(heading)])
        height = middle + away * np.sin(down) * rng.uniform(0.85, 1.15)
        height = max(height, float(terrain.height(place)) + 0.4 * appearance.camera_height)
        cameras.append(
            Camera.aimed(
                (*place, height), heading, down, appearance.field_of_view, size, rng.normal(0, 0.06)
            )
        )
    rocks, details, heap = _stones(appearance, rng, terrain, cameras, view)
    if overhead:
        origin, directions = np.mean([camera.position[:2] for camera in cameras], axis=0), ROUND
    else:
        origin, directions = sector(cameras)
    mesh = terrain.mesh((origin[0], origin[1]), directions, 0.15 * appearance.camera_height, REACH)
    objects = place_objects(
        appearance.objects, Site(rng, terrain, cameras, appearance.soil[0], heap)
    )
    grounds = [*objects, (mesh, draw_soil(appearance, rng, pixel))]
    return World(grounds, rocks, details, appearance.roughness, appearance.wet), cameras


def _mounds(packing: Packing, rng: Generator, view: float) -> NDArray[np.float64]:
    """Draws one to three heaps behind the middle."""
    count = int(rng.integers(1, 4))
    radius = view * rng.uniform(0.5, 2.0, count)
    behind = radius * rng.uniform(0.1, 0.9)
    place = np.column_stack([behind, rng.normal(0, 0.7, count) * view])
    return np.column_stack([place, radius, radius * packing.mound * rng.uniform(0.6, 1.1, count)])


def _stones(
    appearance: Appearance, rng: Generator, terrain: Terrain, cameras: Sequence[Camera], view: float
) -> tuple[list[Rock], list[int], Heap]:
    """Places stones on the visible ground, roughly the largest first."""
    assert appearance.packing
    packing, focal = appearance.packing, cameras[0].focal_length
    smallest = packing.smallest * view
    farthest = packing.largest * view * focal / MIN_APPARENT_DIAMETER
    reach = min(_reach(cameras, terrain, farthest), 2.5 * view)
    # Rounding makes the positions of stones independent of the rounding errors of a processor.
    reach = 0.05 * view * math.ceil(reach / (0.05 * view))
    heap = Heap(2.1 * reach, cells=int(np.clip(2.1 * reach / (smallest / 3.5), 160, 720)))
    heap.base = terrain.height(heap.points())
    heap.surface = heap.base.copy()
    step = max(1, heap.cells // 240)
    cells, depth = _seen_cells(heap, cameras, step)
    rocks: list[Rock] = []
    details: list[int] = []
    shapes = [draw_shape(appearance, rng) for _ in range(24)]

    def drop(diameter: float, places: NDArray[np.intp]) -> None:
        large = diameter > 0.12 * view
        shape = draw_shape(appearance, rng) if large else shapes[rng.integers(24)]
        turn = float(rng.uniform(0, 2 * np.pi))
        rock = draw_rock(appearance, rng, shape, diameter, (0.0, 0.0, 0.0))
        sink = 0.2 + 0.6 * packing.sink * float(rng.uniform())
        places = places + rng.integers(-(step // 2), step // 2 + 1, places.shape)
        at = heap.settle(shape, diameter, turn, places, sink)
        if at is not None:
            rocks.append(replace(rock, position=at, turn=turn))
            nearest = min(float(np.linalg.norm(camera.position - at)) for camera in cameras)
            details.append(detail_for(diameter * focal / max(nearest, diameter)))

    away = np.hypot(*(cells - heap.cells / 2).T) * heap.cell
    near = np.flatnonzero((away < 0.3 * view) & np.isfinite(depth))
    for _ in range(packing.boulders if len(near) else 0):
        drop(view * rng.uniform(0.2, 0.65), cells[rng.choice(near, 8)])
    pixels = np.sort(depth[np.isfinite(depth)]) / focal
    diameters, least = _diameters(packing, rng, view, pixels, (step * heap.cell) ** 2)
    for diameter in diameters:
        # Rejecting positions afterwards reduces the effect of rounding errors.
        tried = rng.integers(0, len(cells), 256)
        drop(float(diameter), cells[tried[depth[tried] < diameter * focal / least][:4]])
    return rocks, details, heap


def _reach(cameras: Sequence[Camera], terrain: Terrain, farthest: float) -> float:
    """Returns the distance from the origin, m, up to which ground is visible within a depth."""
    level = float(terrain.height(np.zeros(2)))
    found = [0.0]
    for camera in cameras:
        rays = camera.directions()[::16, ::16].reshape(-1, 3).astype(np.float64)
        down = np.maximum(-rays[:, 2], 1e-6)
        depth = np.minimum((camera.position[2] - level) / down, farthest)
        places = camera.position[:2] + depth[:, None] * rays[:, :2]
        found.append(float(np.abs(places).max()))
    return max(found)


def _seen_cells(
    heap: Heap, cameras: Sequence[Camera], step: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Returns every `step`th cell, and its smallest depth in an image (m), ∞ if not visible."""
    rows = np.arange(0, heap.cells, step)
    index = np.stack(np.meshgrid(rows, rows, indexing='ij'), -1).reshape(-1, 2)
    points = heap.points()[::step, ::step].reshape(-1, 2)
    world = np.column_stack([points, heap.base[::step, ::step].ravel()])
    nearest = np.full(len(world), np.inf)
    for camera in cameras:
        u, v, depth = camera.project(world).T
        width, height = camera.size
        inside = (np.abs(u / width - 0.5) < 0.56) & (np.abs(v / height - 0.5) < 0.56) & (depth > 0)
        nearest = np.where(inside, np.minimum(nearest, depth), nearest)
    return index, nearest


def _diameters(
    packing: Packing,
    rng: Generator,
    view: float,
    pixels: NDArray[np.float64],
    area: float,
) -> tuple[NDArray[np.float64], float]:
    """Draws diameters (m), roughly the largest first.

    Args:
        packing: Size distribution.
        rng: Random generator.
        view: Width of the view, m.
        pixels: Size of a pixel (m) in each cell, ascending.
        area: Area of the ground per cell, m².

    Returns:
        The diameters, in proportion to the ground on which their size is visible, and the minimum
        apparent diameter, px.
    """
    edges = np.geomspace(packing.smallest, packing.largest, 25) * view
    middle = np.sqrt(edges[1:] * edges[:-1])
    share = middle ** (2 - packing.power)
    least = MIN_APPARENT_DIAMETER
    while True:
        ground = np.searchsorted(pixels, middle / least) * area
        expected = packing.cover * share / share.sum() * ground / middle**2
        if expected.sum() <= MAX_STONES:
            break
        least *= 1.15  # too many stones; the far ones are reduced
    counts = rng.poisson(expected)
    drawn = rng.uniform(np.repeat(edges[:-1], counts), np.repeat(edges[1:], counts))
    # In a heap, small stones fall through the gaps, so they do not cover the large ones.
    return drawn[np.argsort(-drawn * np.exp(rng.normal(0, 0.6, len(drawn))), kind='stable')], least
