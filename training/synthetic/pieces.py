# SPDX-License-Identifier: Apache-2.0
"""Terrain, soil and rocks, drawn for a look."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from training.synthetic.look import Look
from training.synthetic.materials import Soil
from training.synthetic.rocks import Marks, Rock, Shape
from training.synthetic.terrain import Terrain, draw_craters


def draw_terrain(look: Look, chance: Generator, pixel: float) -> Terrain:
    """Draws open ground; `pixel` is the size of a pixel on it, m."""
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


def draw_soil(look: Look, chance: Generator, pixel: float) -> Soil:
    """Draws what the ground is made of; `pixel` is the size of a pixel on it, m."""
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
        path=look.path,
    )


def draw_shape(look: Look, chance: Generator) -> Shape:
    """Draws the body of a rock."""
    return Shape(str(chance.choice(look.kinds)), int(chance.integers(2**31)))


@lru_cache(maxsize=4096)
def _half_height(shape: Shape) -> float:
    """Returns half the height of a body that is one metre across."""
    return float(shape.body(2)[0][:, 2].max())


def draw_rock(
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
    lighter = chance.normal(0, look.variety)
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
        _marks(look, chance),
    )


def _marks(look: Look, chance: Generator) -> Marks:
    if chance.uniform() >= look.marked:
        return Marks(speckle=float(chance.choice([0.0, chance.uniform(0, 0.25)])))
    other = np.array(look.stones[chance.integers(len(look.stones))])
    other = np.clip(other * np.exp(chance.normal(0.1, 0.4) + chance.normal(0, 0.04, 3)), 0.01, 0.85)
    patches, stripes, veins, cracks, speckle = chance.uniform(size=5) < (
        0.25,
        0.25,
        0.25,
        0.35,
        0.5,
    )
    return Marks(
        tuple(float(part) for part in other),  # type: ignore[arg-type]
        float(patches * chance.uniform(0.1, 0.6)),
        float(stripes * chance.uniform(0.05, 0.3)),
        float(veins * chance.uniform(0.3, 1.0)),
        float(cracks * chance.uniform(0.3, 0.85)),
        float(speckle * chance.uniform(0.05, 0.3)),
    )
