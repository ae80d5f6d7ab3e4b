# SPDX-License-Identifier: Apache-2.0
"""Draws terrain, soil and rocks for an appearance."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from training.synthetic.appearance import Appearance
from training.synthetic.rocks import Marks, Rock, Shape
from training.synthetic.soil import Soil
from training.synthetic.terrain import Terrain, draw_craters


def draw_terrain(appearance: Appearance, rng: Generator, pixel: float) -> Terrain:
    """Draws a terrain; `pixel` is the size of a pixel on the ground, m."""
    away = float(rng.uniform(60, 400))
    return Terrain(
        appearance.relief,
        finest=20 * pixel,
        octaves=12,
        hill_height=appearance.hills * away,
        hill_distance=away,
        offset=tuple(rng.uniform(-1e4, 1e4, 2)),
        craters=draw_craters(rng, appearance.craters, 20 * pixel, 3000 * pixel),
    )


def draw_soil(appearance: Appearance, rng: Generator, pixel: float) -> Soil:
    """Draws the soil; `pixel` is the size of a pixel on the ground, m."""
    pebbles = tuple(
        tuple(float(p) for p in np.array(colour) * rng.uniform(0.7, 1.2))
        for colour in (*appearance.stones, appearance.soil[0], appearance.soil[0])
    )
    return Soil(
        colour=appearance.soil[0],
        patch=appearance.soil[1],
        patches=float(rng.uniform(0, 0.7)),
        pebbles=pebbles,  # type: ignore[arg-type]
        grain=appearance.grain,
        mottle=float(rng.uniform(0.01, 0.05)),
        gravel_cover=appearance.gravel,
        texel=float(0.16 * pixel * rng.uniform(0.7, 1.4)),
        ripple=appearance.ripple,
        ripple_length=float(pixel * np.exp(rng.uniform(np.log(12), np.log(110)))),
        ripple_direction=float(rng.uniform(0, np.pi)),
        track=float(rng.choice([0.0, 0.0, 0.0, 0.0, 60 * pixel])),
        track_width=float(50 * pixel),
        path=appearance.path,
    )


def draw_shape(appearance: Appearance, rng: Generator) -> Shape:
    """Draws the shape of a rock."""
    return Shape(str(rng.choice(appearance.kinds)), int(rng.integers(2**31)))


@lru_cache(maxsize=4096)
def _half_height(shape: Shape) -> float:
    """Returns half the height of a shape with a diameter of 1 m."""
    return float(shape.body(2)[0][:, 2].max())


def draw_rock(
    appearance: Appearance,
    rng: Generator,
    shape: Shape,
    diameter: float,
    ground: tuple[float, float, float],
) -> Rock:
    """Draws colour, rotation and burial depth of a rock."""
    half = diameter * _half_height(shape)
    buried = rng.beta(1.5, 3.0) * (0.9 if shape.kind == 'slab' else 0.7)
    stone = appearance.stones[rng.integers(len(appearance.stones))]
    lighter = rng.normal(0, appearance.variety)
    red, green, blue = (
        min(max(part * math.exp(lighter + tint), 0.01), 0.9)
        for part, tint in zip(stone, rng.normal(0, 0.02, 3).tolist(), strict=True)
    )
    lean = (*rng.normal(0, 0.2, 2).tolist(), 1.0)
    finer = (
        rng.uniform(2.5, 6) if shape.kind in ('layered', 'slab', 'plate') else rng.uniform(1, 1.6)
    )
    return Rock(
        shape,
        diameter,
        (ground[0], ground[1], float(ground[2] + half * (1 - 2 * buried))),
        float(rng.uniform(0, 2 * np.pi)),
        (red, green, blue),
        tuple(part * finer / math.hypot(*lean) for part in lean),
        float(appearance.dust * rng.uniform(0.3, 1.0)),
        _marks(appearance, rng),
    )


def _marks(appearance: Appearance, rng: Generator) -> Marks:
    if rng.uniform() >= appearance.marked:
        return Marks(speckle=float(rng.choice([0.0, rng.uniform(0, 0.25)])))
    other = np.array(appearance.stones[rng.integers(len(appearance.stones))])
    other = np.clip(other * np.exp(rng.normal(0.1, 0.4) + rng.normal(0, 0.04, 3)), 0.01, 0.85)
    patches, stripes, veins, cracks, speckle = rng.uniform(size=5) < (
        0.25,
        0.25,
        0.25,
        0.35,
        0.5,
    )
    return Marks(
        tuple(float(part) for part in other),  # type: ignore[arg-type]
        float(patches * rng.uniform(0.1, 0.6)),
        float(stripes * rng.uniform(0.05, 0.3)),
        float(veins * rng.uniform(0.3, 1.0)),
        float(cracks * rng.uniform(0.3, 0.85)),
        float(speckle * rng.uniform(0.05, 0.3)),
    )
