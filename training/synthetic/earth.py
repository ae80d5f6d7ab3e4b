# SPDX-License-Identifier: Apache-2.0
"""How places on Earth look: beaches, creeks, rubble, single boulders and yards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from training.synthetic.look import (
    Look,
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
from training.synthetic.render import Light
from training.synthetic.things import Things

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


def sky(chance: Generator) -> Light:
    """Draws a sky on Earth: blue, with clouds, or overcast."""
    overcast = chance.uniform() < 0.35
    white = float(chance.uniform(0.7, 1.0)) if overcast else float(chance.uniform(0.0, 0.35))
    horizon = towards((0.55, 0.68, 0.85), (0.85, 0.85, 0.85), white)
    colour = towards((0.66, 0.78, 1.0), (0.9, 0.9, 0.9), white)
    clouds = 0.0 if chance.uniform() < 0.35 else float(chance.uniform(0.15, 0.85))
    return Light(
        sun=sun(chance, 15, 75),
        sun_colour=scaled((1.0, 0.95, 0.87), float(chance.uniform(0, 0.25)) if overcast else 1.0),
        sky_colour=scaled(colour, float(chance.uniform(0.25, 0.9))),
        horizon=horizon,
        zenith=scaled(
            towards((0.10, 0.24, 0.65), (0.72, 0.75, 0.8), white), float(chance.uniform(0.6, 1.0))
        ),
        haze=horizon,
        visibility=log_uniform(chance, 600, 8000),
        clouds=clouds,
        cloud_colour=scaled((1.0, 1.0, 1.0), float(chance.uniform(0.6, 1.3))),
        cloud_shift=(float(chance.uniform(0, 90)), float(chance.uniform(0, 90))),
    )


def _ground(chance: Generator, soil: Colour, stones: tuple[Colour, ...], name: str) -> Look:
    """Draws what all looks on Earth have in common."""
    return weather(
        chance,
        Look(
            name=name,
            light=sky(chance),
            sensor=sensor(chance, (0.15, 0.36), 0.12),
            soil=(soil, varied(chance, soil, 0.15, 0.02)),
            stones=stones,
            grain=float(chance.uniform(0.1, 0.3)),
            gravel=float(chance.uniform(0.5, 1.0)),
            ripple=0.0,
            roughness=float(chance.uniform(0.06, 0.2)),
            relief=float(chance.uniform(0.02, 0.1)),
            hills=float(chance.choice([0.0, chance.uniform(0.05, 0.4)])),
            abundance=0.3,
            dust=float(chance.choice([0.0, chance.uniform(0, 0.6)])),
            kinds=('cobble',),
            camera_height=log_uniform(chance, 0.3, 2.0),
            field_of_view=np.radians(log_uniform(chance, 25, 75)),
            variety=float(chance.uniform(0.12, 0.35)),
            marked=float(chance.uniform(0.2, 0.8)),
        ),
    )


def _draw(chance: Generator, palette: tuple[Colour, ...], count: int) -> tuple[Colour, ...]:
    picked = chance.choice(len(palette), min(count, len(palette)), replace=False)
    return tuple(varied(chance, palette[index], 0.15, 0.03) for index in picked)


def beach(chance: Generator) -> Look:
    """Rounded pebbles of many colours, close together, from above and along the beach."""
    kin = chance.uniform() < 0.3
    stones = _draw(
        chance, PEBBLES, int(chance.integers(1, 3)) if kin else int(chance.integers(4, 9))
    )
    base = towards(stones[0], (0.3, 0.25, 0.18), 0.5)
    look = _ground(chance, scaled(base, float(chance.uniform(0.25, 0.9))), stones, 'beach')
    return replace(
        look,
        kinds=tuple(chance.choice(['pebble', 'pebble', 'cobble', 'rounded'], 3)),
        roughness=float(chance.uniform(0.015, 0.09)),
        relief=float(chance.uniform(0.0, 0.06)),
        dust=0.0,
        packing=Packing(
            largest=float(chance.uniform(0.07, 0.25)),
            smallest=float(chance.uniform(0.018, 0.035)),
            power=float(chance.uniform(0.3, 2.0)),
            cover=float(
                chance.choice([chance.uniform(0.2, 1.0), chance.uniform(1.2, 3.0)], p=[0.25, 0.75])
            ),
            sink=float(chance.choice([0.0, chance.uniform(0, 0.4)])),
            overhead=0.6,
        ),
        wet=float(chance.choice([0.0, chance.uniform(0.2, 1.0)])),
        things=Things(robot=0.12, scale=0.3, board=0.04, grass=0.06, litter=0.12, water=0.1),
    )


def creek(chance: Generator) -> Look:
    """Cobbles in and on sand and gravel, many half buried, with leaves and grass."""
    stones = _draw(chance, (*PEBBLES[:6], *STONES_EARTH), int(chance.integers(1, 5)))
    soil = varied(chance, EARTHS[chance.integers(len(EARTHS))], 0.2, 0.025)
    look = _ground(chance, soil, stones, 'creek')
    return replace(
        look,
        kinds=tuple(chance.choice(['pebble', 'cobble', 'cobble', 'rounded', 'angular'], 3)),
        dust=float(chance.uniform(0, 0.7)),
        packing=Packing(
            largest=float(chance.uniform(0.1, 0.4)),
            smallest=float(chance.uniform(0.015, 0.03)),
            power=float(chance.uniform(0.8, 2.4)),
            cover=float(chance.uniform(0.1, 1.1)),
            sink=float(chance.uniform(0.3, 1.0)),
            overhead=0.35,
        ),
        things=Things(
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


def rubble(chance: Generator) -> Look:
    """Blasted rock and talus: broken stones of one kind in heaps, with their own fines."""
    stone = varied(chance, RUBBLE[chance.integers(len(RUBBLE))], 0.2, 0.025)
    other = varied(chance, RUBBLE[chance.integers(len(RUBBLE))], 0.2, 0.025)
    stones: tuple[Colour, ...] = (
        stone,
        varied(chance, stone, 0.2, 0.02),
        varied(chance, stone, 0.25, 0.03),
    )
    if chance.uniform() < 0.4:
        stones = (*stones, towards(stone, other, 0.7))
    soil = varied(chance, scaled(stone, float(chance.uniform(0.4, 1.1))), 0.1, 0.02)
    look = _ground(chance, soil, stones, 'rubble')
    return replace(
        look,
        kinds=tuple(chance.choice(['block', 'block', 'angular', 'slab', 'layered'], 3)),
        roughness=float(chance.uniform(0.06, 0.25)),
        dust=float(chance.uniform(0, 0.6)),
        packing=Packing(
            largest=float(chance.uniform(0.1, 0.45)),
            smallest=float(chance.uniform(0.015, 0.03)),
            power=float(chance.uniform(0.5, 2.2)),
            cover=float(
                chance.choice([chance.uniform(0.3, 1.0), chance.uniform(1.2, 3.0)], p=[0.3, 0.7])
            ),
            sink=float(chance.choice([0.0, chance.uniform(0, 0.6)])),
            mound=float(chance.choice([0.0, chance.uniform(0.25, 0.7)])),
            overhead=0.3,
        ),
        things=Things(
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


def boulder(chance: Generator) -> Look:
    """One to three large boulders with cracks, layers, veins and patches, each one rock."""
    look = rubble(chance) if chance.uniform() < 0.5 else creek(chance)
    assert look.packing
    kinds = ('angular', 'layered', 'block', 'rounded', 'cobble', 'pitted')
    return replace(
        look,
        name='boulder',
        kinds=tuple(chance.choice(kinds, 2, replace=False)),
        roughness=float(chance.uniform(0.1, 0.35)),
        marked=1.0,
        packing=Packing(
            largest=float(chance.uniform(0.05, 0.14)),
            smallest=look.packing.smallest,
            power=float(chance.uniform(1.2, 2.4)),
            cover=float(chance.choice([0.0, chance.uniform(0.02, 0.6)])),
            sink=float(chance.uniform(0.1, 0.7)),
            overhead=0.15,
            boulders=int(chance.integers(1, 4)),
        ),
    )


def yard(chance: Generator) -> Look:
    """Paths, meadows, woods and houses; hardly any rock, or none."""
    soil = varied(chance, FLOORS[chance.integers(len(FLOORS))], 0.25, 0.025)
    lawn = varied(chance, LAWNS[chance.integers(len(LAWNS))], 0.25, 0.04)
    look = _ground(chance, soil, _draw(chance, STONES_EARTH, 2), 'yard')
    bare = chance.uniform() < 0.65
    return replace(
        look,
        soil=(soil, lawn),
        path=float(chance.choice([0.0, chance.uniform(1.0, 5.0), -1.0], p=[0.25, 0.5, 0.25])),
        grain=float(chance.uniform(0.03, 0.3)),
        gravel=float(chance.choice([0.0, chance.uniform(0.2, 1.0)])),
        relief=float(chance.uniform(0.0, 0.05)),
        abundance=0.0 if bare else log_uniform(chance, 0.03, 0.3),
        kinds=('cobble', 'angular', 'block'),
        camera_height=float(chance.uniform(0.4, 2.0)),
        field_of_view=np.radians(log_uniform(chance, 40, 95)),
        things=Things(
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
