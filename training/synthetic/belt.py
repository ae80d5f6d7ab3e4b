# SPDX-License-Identifier: Apache-2.0
"""Scenes of a conveyor belt with a camera that points down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from training.synthetic.appearance import Appearance
from training.synthetic.camera import Camera
from training.synthetic.heap import Heap
from training.synthetic.materials import Rubber
from training.synthetic.rocks import Rock, detail_for
from training.synthetic.sampling import draw_rock, draw_shape, draw_soil
from training.synthetic.terrain import grid_mesh
from training.synthetic.world import World


def belt(
    appearance: Appearance, rng: Generator, size: tuple[int, int], images: int
) -> tuple[World, list[Camera]]:
    """Makes a bare, sparsely or fully loaded belt, and cameras that point down."""
    view = 2 * appearance.camera_height * np.tan(appearance.field_of_view / 2)
    pixel = view / size[0]
    extent = 1.35 * view * max(1.0, size[1] / size[0])
    load = str(rng.choice(['bare', 'strewn', 'loaded'], p=[0.25, 0.2, 0.55]))
    heap = Heap(extent, cells=240)
    edges = [-extent, extent]
    if rng.uniform() < 0.5:
        side = int(rng.integers(2))
        edges[side] = float((1 - 2 * side) * rng.uniform(-0.4, 0.3) * view)
    corners = np.array([[(-1, -1), (-1, 1)], [(1, -1), (1, 1)]]) * 4 * extent
    grounds: list = [(grid_mesh(corners, np.zeros((2, 2))), _rubber(appearance, rng, view))]
    lump = view * float(np.exp(rng.uniform(np.log(0.015), np.log(0.06))))
    if load == 'loaded':
        fines = heap.fines(rng, float(rng.uniform(0.5, 2.5)) * lump, lump, tuple(edges))
        heap.base = np.maximum(heap.base, fines)
        heap.surface = heap.base.copy()
        grounds.append((grid_mesh(heap.points(), fines), draw_soil(appearance, rng, pixel)))
    rocks, details = _pile(appearance, rng, heap, load, (edges[0], edges[1]), view, pixel)
    cameras = [
        Camera.aimed(
            (
                *rng.uniform(-0.05, 0.05, 2) * view,
                appearance.camera_height * rng.uniform(0.9, 1.05),
            ),
            heading=float(np.pi / 2 + rng.normal(0, 0.05)),
            tilt=float(np.pi / 2 - abs(rng.normal(0, 0.06))),
            field_of_view=appearance.field_of_view,
            size=size,
        )
        for _ in range(images)
    ]
    return World(grounds, rocks, details, appearance.roughness), cameras


def _rubber(appearance: Appearance, rng: Generator, view: float) -> Rubber:
    stain = appearance.soil[0] if rng.uniform() < 0.6 else (0.14, 0.2, 0.16)
    return Rubber(
        appearance.soil[1],
        tuple(0.5 * part for part in stain),  # type: ignore[arg-type]
        float(rng.uniform(0, 0.6)),
        float(rng.uniform(0.03, 0.12)),
        view,
        (float(rng.uniform(0, 50)), float(rng.uniform(0, 50))),
    )


def _pile(
    appearance: Appearance,
    rng: Generator,
    heap: Heap,
    load: str,
    edges: tuple[float, float],
    view: float,
    pixel: float,
) -> tuple[list[Rock], list[int]]:
    """Places stones on the belt, the largest first, so that small ones fill the gaps."""
    if load == 'bare':
        return [], []
    largest = view * float(rng.uniform(0.12, 0.32))
    smallest = max(view * 0.022, 5 * pixel)
    power = rng.uniform(0.8, 2.2)
    draw = rng.uniform(size=900 if load == 'loaded' else int(rng.integers(5, 60)))
    diameters = (smallest**-power + draw * (largest**-power - smallest**-power)) ** (-1 / power)
    strip = heap.extent * (min(edges[1], heap.extent / 2) - max(edges[0], -heap.extent / 2))
    cover = float(rng.uniform(0.3, 2.0)) * max(strip, 0.0)
    diameters = np.sort(diameters[np.cumsum(diameters**2) < cover])[::-1]
    half = heap.extent / 2
    within = max(edges[0], -half) + half, min(edges[1], half) + half
    shapes = [draw_shape(appearance, rng) for _ in range(16)]
    rocks, details = [], []
    for diameter in diameters:
        apparent = diameter / pixel
        shape = draw_shape(appearance, rng) if apparent > 40 else shapes[rng.integers(len(shapes))]
        turn = float(rng.uniform(0, 2 * np.pi))
        places = np.column_stack([rng.uniform(*within, 6), rng.uniform(0, heap.extent, 6)])
        cells = (places / heap.cell).astype(np.intp)
        place = heap.settle(shape, float(diameter), turn, cells, sink=0.18)
        if place is None:
            continue
        rock = draw_rock(appearance, rng, shape, float(diameter), place)
        rocks.append(replace(rock, position=place, turn=turn))
        details.append(detail_for(apparent))
    return rocks, details
