# SPDX-License-Identifier: Apache-2.0
"""Scene kinds on Earth: beaches, creeks, rubble, single boulders and yards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from training.synthetic.appearance import (
    Appearance,
    Packing,
    log_uniform,
    scaled,
    sensor,
    sun,
    towards,
    varied,
    weather,
)
from training.synthetic.materials import Colour
from training.synthetic.objects import ObjectProbabilities
from training.synthetic.sky import Light

STONES_EARTH: tuple[Colour, ...] = (
    (0.30, 0.30, 0.29),
    (0.18, 0.18, 0.185),
    (0.50, 0.47, 0.40),
    (0.42, 0.35, 0.25),
    (0.34, 0.24, 0.16),
)
PEBBLES: tuple[Colour, ...] = (
    (0.40, 0.39, 0.36),
    (0.20, 0.21, 0.21),
    (0.07, 0.075, 0.085),
    (0.12, 0.14, 0.15),
    (0.40, 0.29, 0.18),
    (0.45, 0.33, 0.24),
    (0.17, 0.09, 0.075),
    (0.21, 0.24, 0.20),
    (0.60, 0.57, 0.50),
    (0.28, 0.24, 0.19),
)
RUBBLE: tuple[Colour, ...] = (
    *STONES_EARTH,
    (0.42, 0.27, 0.11),
    (0.27, 0.13, 0.075),
    (0.17, 0.19, 0.22),
    (0.22, 0.24, 0.21),
    (0.30, 0.28, 0.28),
    (0.10, 0.105, 0.11),
)
EARTHS: tuple[Colour, ...] = (
    (0.26, 0.19, 0.11),
    (0.12, 0.09, 0.06),
    (0.36, 0.32, 0.26),
    (0.20, 0.195, 0.185),
    (0.46, 0.40, 0.29),
)
FLOORS: tuple[Colour, ...] = (*EARTHS, (0.08, 0.08, 0.085), (0.3, 0.3, 0.3), (0.8, 0.81, 0.84))
LAWNS: tuple[Colour, ...] = (
    (0.09, 0.13, 0.04),
    (0.06, 0.09, 0.03),
    (0.3, 0.25, 0.12),
    (0.2, 0.18, 0.1),
)


def sky(rng: Generator) -> Light:
    """Draws a sky on Earth: clear, cloudy or overcast."""
    overcast = rng.uniform() < 0.35
    white = float(rng.uniform(0.7, 1.0)) if overcast else float(rng.uniform(0.0, 0.35))
    horizon = towards((0.55, 0.68, 0.85), (0.85, 0.85, 0.85), white)
    colour = towards((0.66, 0.78, 1.0), (0.9, 0.9, 0.9), white)
    clouds = 0.0 if rng.uniform() < 0.35 else float(rng.uniform(0.15, 0.85))
    return Light(
        sun=sun(rng, 15, 75),
        sun_colour=scaled((1.0, 0.95, 0.87), float(rng.uniform(0, 0.25)) if overcast else 1.0),
        sky_colour=scaled(colour, float(rng.uniform(0.25, 0.9))),
        horizon=horizon,
        zenith=scaled(
            towards((0.10, 0.24, 0.65), (0.72, 0.75, 0.8), white), float(rng.uniform(0.6, 1.0))
        ),
        haze=horizon,
        visibility=log_uniform(rng, 600, 8000),
        clouds=clouds,
        cloud_colour=scaled((1.0, 1.0, 1.0), float(rng.uniform(0.6, 1.3))),
        cloud_shift=(float(rng.uniform(0, 90)), float(rng.uniform(0, 90))),
    )


def _ground(rng: Generator, soil: Colour, stones: tuple[Colour, ...], name: str) -> Appearance:
    """Draws the common properties of all scene kinds on Earth."""
    return weather(
        rng,
        Appearance(
            name=name,
            light=sky(rng),
            sensor=sensor(rng, (0.15, 0.36), 0.12),
            soil=(soil, varied(rng, soil, 0.15, 0.02)),
            stones=stones,
            grain=float(rng.uniform(0.1, 0.3)),
            gravel=float(rng.uniform(0.5, 1.0)),
            ripple=0.0,
            roughness=float(rng.uniform(0.06, 0.2)),
            relief=float(rng.uniform(0.02, 0.1)),
            hills=float(rng.choice([0.0, rng.uniform(0.05, 0.4)])),
            abundance=0.3,
            dust=float(rng.choice([0.0, rng.uniform(0, 0.6)])),
            kinds=('cobble',),
            camera_height=log_uniform(rng, 0.3, 2.0),
            field_of_view=np.radians(log_uniform(rng, 25, 75)),
            variety=float(rng.uniform(0.12, 0.35)),
            marked=float(rng.uniform(0.2, 0.8)),
        ),
    )


def _draw(rng: Generator, palette: tuple[Colour, ...], count: int) -> tuple[Colour, ...]:
    picked = rng.choice(len(palette), min(count, len(palette)), replace=False)
    return tuple(varied(rng, palette[index], 0.15, 0.03) for index in picked)


def beach(rng: Generator) -> Appearance:
    """Closely packed, rounded pebbles of many colours, seen from above and along the beach."""
    kin = rng.uniform() < 0.3
    stones = _draw(rng, PEBBLES, int(rng.integers(1, 3)) if kin else int(rng.integers(4, 9)))
    base = towards(stones[0], (0.3, 0.25, 0.18), 0.5)
    appearance = _ground(rng, scaled(base, float(rng.uniform(0.25, 0.9))), stones, 'beach')
    return replace(
        appearance,
        kinds=tuple(rng.choice(['pebble', 'pebble', 'cobble', 'rounded'], 3)),
        roughness=float(rng.uniform(0.015, 0.09)),
        relief=float(rng.uniform(0.0, 0.06)),
        dust=0.0,
        packing=Packing(
            largest=float(rng.uniform(0.07, 0.25)),
            smallest=float(rng.uniform(0.018, 0.035)),
            power=float(rng.uniform(0.3, 2.0)),
            cover=float(rng.choice([rng.uniform(0.2, 1.0), rng.uniform(1.2, 3.0)], p=[0.25, 0.75])),
            sink=float(rng.choice([0.0, rng.uniform(0, 0.4)])),
            overhead=0.6,
        ),
        wet=float(rng.choice([0.0, rng.uniform(0.2, 1.0)])),
        objects=ObjectProbabilities(
            robot=0.12, scale=0.3, board=0.04, grass=0.06, litter=0.12, water=0.1
        ),
    )


def creek(rng: Generator) -> Appearance:
    """Cobbles on sand and gravel, many of them half buried, with leaves and grass."""
    stones = _draw(rng, (*PEBBLES[:6], *STONES_EARTH), int(rng.integers(1, 5)))
    soil = varied(rng, EARTHS[rng.integers(len(EARTHS))], 0.2, 0.025)
    appearance = _ground(rng, soil, stones, 'creek')
    return replace(
        appearance,
        kinds=tuple(rng.choice(['pebble', 'cobble', 'cobble', 'rounded', 'angular'], 3)),
        dust=float(rng.uniform(0, 0.7)),
        packing=Packing(
            largest=float(rng.uniform(0.1, 0.4)),
            smallest=float(rng.uniform(0.015, 0.03)),
            power=float(rng.uniform(0.8, 2.4)),
            cover=float(rng.uniform(0.1, 1.1)),
            sink=float(rng.uniform(0.3, 1.0)),
            overhead=0.35,
        ),
        objects=ObjectProbabilities(
            robot=0.15,
            scale=0.15,
            board=0.03,
            building=0.08,
            grass=0.3,
            bushes=0.25,
            trees=0.3,
            litter=0.4,
            water=0.35,
        ),
    )


def rubble(rng: Generator) -> Appearance:
    """Blasted rock and talus: heaps of broken stones of one kind with fines of that rock."""
    stone = varied(rng, RUBBLE[rng.integers(len(RUBBLE))], 0.2, 0.025)
    other = varied(rng, RUBBLE[rng.integers(len(RUBBLE))], 0.2, 0.025)
    stones: tuple[Colour, ...] = (
        stone,
        varied(rng, stone, 0.2, 0.02),
        varied(rng, stone, 0.25, 0.03),
    )
    if rng.uniform() < 0.4:
        stones = (*stones, towards(stone, other, 0.7))
    soil = varied(rng, scaled(stone, float(rng.uniform(0.4, 1.1))), 0.1, 0.02)
    appearance = _ground(rng, soil, stones, 'rubble')
    return replace(
        appearance,
        kinds=tuple(rng.choice(['block', 'block', 'angular', 'slab', 'layered'], 3)),
        roughness=float(rng.uniform(0.06, 0.25)),
        dust=float(rng.uniform(0, 0.6)),
        packing=Packing(
            largest=float(rng.uniform(0.1, 0.45)),
            smallest=float(rng.uniform(0.015, 0.03)),
            power=float(rng.uniform(0.5, 2.2)),
            cover=float(rng.choice([rng.uniform(0.3, 1.0), rng.uniform(1.2, 3.0)], p=[0.3, 0.7])),
            sink=float(rng.choice([0.0, rng.uniform(0, 0.6)])),
            mound=float(rng.choice([0.0, rng.uniform(0.25, 0.7)])),
            overhead=0.3,
        ),
        objects=ObjectProbabilities(
            robot=0.15,
            scale=0.15,
            board=0.05,
            building=0.1,
            fence=0.04,
            grass=0.12,
            bushes=0.1,
            trees=0.15,
        ),
    )


def boulder(rng: Generator) -> Appearance:
    """One to three large boulders with cracks, layers, veins and patches."""
    appearance = rubble(rng) if rng.uniform() < 0.5 else creek(rng)
    assert appearance.packing
    kinds = ('angular', 'layered', 'block', 'rounded', 'cobble', 'pitted')
    return replace(
        appearance,
        name='boulder',
        kinds=tuple(rng.choice(kinds, 2, replace=False)),
        roughness=float(rng.uniform(0.1, 0.35)),
        marked=1.0,
        packing=Packing(
            largest=float(rng.uniform(0.05, 0.14)),
            smallest=appearance.packing.smallest,
            power=float(rng.uniform(1.2, 2.4)),
            cover=float(rng.choice([0.0, rng.uniform(0.02, 0.6)])),
            sink=float(rng.uniform(0.1, 0.7)),
            overhead=0.15,
            boulders=int(rng.integers(1, 4)),
        ),
    )


def yard(rng: Generator) -> Appearance:
    """Paths, meadows, woods and houses, with few or no rocks."""
    soil = varied(rng, FLOORS[rng.integers(len(FLOORS))], 0.25, 0.025)
    lawn = varied(rng, LAWNS[rng.integers(len(LAWNS))], 0.25, 0.04)
    appearance = _ground(rng, soil, _draw(rng, STONES_EARTH, 2), 'yard')
    bare = rng.uniform() < 0.65
    return replace(
        appearance,
        soil=(soil, lawn),
        path=float(rng.choice([0.0, rng.uniform(1.0, 5.0), -1.0], p=[0.25, 0.5, 0.25])),
        grain=float(rng.uniform(0.03, 0.3)),
        gravel=float(rng.choice([0.0, rng.uniform(0.2, 1.0)])),
        relief=float(rng.uniform(0.0, 0.05)),
        abundance=0.0 if bare else log_uniform(rng, 0.03, 0.3),
        kinds=('cobble', 'angular', 'block'),
        camera_height=float(rng.uniform(0.4, 2.0)),
        field_of_view=np.radians(log_uniform(rng, 40, 95)),
        objects=ObjectProbabilities(
            robot=0.3,
            scale=0.05,
            board=0.25,
            building=0.5,
            fence=0.2,
            grass=0.5,
            bushes=0.5,
            trees=0.6,
            litter=0.25,
            water=0.15,
        ),
    )
