# SPDX-License-Identifier: Apache-2.0
"""The scene kinds: random appearances of places; `earth` has those on Earth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from training.synthetic.appearance import (
    Appearance,
    log_uniform,
    scaled,
    sensor,
    sun,
    towards,
    varied,
    weather,
)
from training.synthetic.earth import STONES_EARTH, beach, boulder, creek, rubble, yard
from training.synthetic.materials import Colour
from training.synthetic.objects import ObjectProbabilities
from training.synthetic.sky import Light

SOILS_MARS: tuple[Colour, ...] = (
    (0.38, 0.245, 0.11),
    (0.42, 0.23, 0.085),
    (0.30, 0.20, 0.105),
    (0.33, 0.24, 0.13),
    (0.44, 0.30, 0.15),
    (0.12, 0.085, 0.055),
    (0.17, 0.115, 0.065),
)
STONES_MARS: tuple[Colour, ...] = (
    (0.25, 0.22, 0.16),
    (0.17, 0.155, 0.13),
    (0.34, 0.26, 0.155),
    (0.42, 0.30, 0.155),
    (0.42, 0.22, 0.12),
    (0.55, 0.42, 0.24),
    (0.30, 0.23, 0.14),
)


KINDS_MARS = ('angular', 'rounded', 'layered', 'slab', 'pitted', 'plate')


def mars(rng: Generator) -> Appearance:
    """Dusty air, light to dark brown soil, and grey, brown, red and pale stones."""
    soil = varied(rng, SOILS_MARS[rng.integers(len(SOILS_MARS))], 0.12, 0.05)
    patch = towards(
        varied(rng, SOILS_MARS[rng.integers(len(SOILS_MARS))], 0.1, 0.04),
        soil,
        rng.uniform(0.3, 0.9),
    )
    # Most places have one kind of stone, often with a colour close to that of the soil.
    own = [STONES_MARS[index] for index in rng.integers(len(STONES_MARS), size=2)]
    kin = rng.uniform()
    if kin < 0.3:
        # Rocks with almost the same colour as the sand.
        own = [scaled(soil, float(rng.uniform(0.8, 1.15))) for _ in range(2)]
    elif max(soil) < 0.22 and kin < 0.8:
        # Pale and red plates on dark basaltic sand.
        own = [scaled(STONES_MARS[index], 1.15) for index in (3, 4, 5)]
    elif kin < 0.65:
        own.append(scaled(soil, float(rng.uniform(0.65, 1.2))))
    stones = tuple(varied(rng, colour, 0.15, 0.04) for colour in own)
    dusty = rng.uniform(0.25, 1.0)
    sky = varied(rng, (0.62, 0.50, 0.34), 0.15, 0.06)
    sandy = rng.uniform() < 0.4
    appearance = Appearance(
        name='mars',
        light=Light(
            sun=sun(rng, 14, 75),
            sun_colour=(1.0, 0.93, 0.80),
            sky_colour=scaled((0.85, 0.72, 0.55), dusty),
            horizon=sky,
            zenith=scaled(sky, rng.uniform(0.5, 0.95)),
            haze=scaled(towards(sky, soil, 0.3), rng.uniform(0.7, 0.95)),
            visibility=log_uniform(rng, 250, 6000),
        ),
        sensor=sensor(rng, (0.15, 0.36), 0.15),
        soil=(soil, patch),
        stones=stones,
        grain=float(rng.uniform(0.03, 0.12) if sandy else rng.uniform(0.06, 0.25)),
        gravel=float(rng.choice([0.0, rng.uniform(0, 0.3)]) if sandy else rng.uniform(0.2, 1.0)),
        ripple=float(rng.uniform(0.05, 0.4) if sandy and rng.uniform() < 0.6 else 0.0),
        roughness=float(rng.uniform(0.12, 0.42)),
        relief=float(rng.uniform(0.01, 0.09)),
        hills=float(rng.choice([0.0, rng.uniform(0.05, 0.35)])),
        abundance=log_uniform(rng, 0.12, 0.95),
        dust=float(rng.uniform(0, 0.95)),
        kinds=tuple(
            rng.choice(KINDS_MARS, 2, p=(0.22, 0.12, 0.2, 0.2, 0.1, 0.16)),
        ),
        camera_height=float(rng.uniform(0.35, 2.3)),
        field_of_view=np.radians(log_uniform(rng, 9, 70)),
        objects=ObjectProbabilities(robot=0.15, scale=0.02),
    )
    return weather(rng, appearance)


def moon(rng: Generator) -> Appearance:
    """Grey regolith with hard shadows under a black sky."""
    soil = varied(rng, (0.13, 0.125, 0.118), 0.25, 0.015)
    stone = scaled(soil, float(rng.uniform(0.9, 1.9)))
    return Appearance(
        name='moon',
        light=Light(
            sun=sun(rng, 6, 55),
            sun_colour=(1.0, 0.99, 0.96),
            sky_colour=scaled((1.0, 1.0, 1.0), float(rng.uniform(0.005, 0.04))),
            horizon=(0.0, 0.0, 0.0),
            zenith=(0.0, 0.0, 0.0),
            haze=(0.0, 0.0, 0.0),
            visibility=1e9,
        ),
        sensor=sensor(rng, (0.08, 0.26), 0.5),
        soil=(soil, varied(rng, soil, 0.1, 0.01)),
        stones=(stone, varied(rng, stone, 0.2, 0.02)),
        grain=float(rng.uniform(0.1, 0.3)),
        gravel=float(rng.uniform(0.0, 0.6)),
        ripple=0.0,
        roughness=float(rng.uniform(0.12, 0.35)),
        relief=float(rng.uniform(0.04, 0.14)),
        hills=float(rng.choice([0.0, rng.uniform(0.1, 0.5)])),
        abundance=log_uniform(rng, 0.03, 0.35),
        dust=float(rng.uniform(0, 0.6)),
        kinds=('angular', 'rounded', 'pitted'),
        camera_height=float(rng.uniform(0.35, 2.0)),
        field_of_view=np.radians(log_uniform(rng, 12, 75)),
        craters=float(rng.uniform(0.005, 0.06)),
        objects=ObjectProbabilities(robot=0.15),
    )


def quarry(rng: Generator) -> Appearance:
    """Blocky rubble on fines of the same rock, seen from a vehicle."""
    stone = varied(rng, STONES_EARTH[rng.integers(len(STONES_EARTH))], 0.15, 0.04)
    # Fines are ground rock: slightly lighter, or darker if they are wet.
    soil = varied(rng, scaled(stone, float(rng.uniform(0.55, 1.15))), 0.08, 0.04)
    earth = towards(soil, (0.26, 0.19, 0.11), float(rng.uniform(0.1, 0.6)))
    overcast = rng.uniform() < 0.4
    white = float(rng.uniform(0.7, 1.0)) if overcast else float(rng.uniform(0.0, 0.4))
    horizon = towards((0.55, 0.68, 0.85), (0.85, 0.85, 0.85), white)
    sky = towards((0.74, 0.8, 0.92), (0.9, 0.9, 0.9), white)
    appearance = Appearance(
        name='quarry',
        light=Light(
            sun=sun(rng, 20, 70),
            sun_colour=scaled((1.0, 0.96, 0.9), 0.15 if overcast else 1.0),
            sky_colour=scaled(sky, float(rng.uniform(0.4, 0.9))),
            horizon=horizon,
            zenith=scaled(towards((0.16, 0.3, 0.65), (0.75, 0.77, 0.8), white), 0.8),
            haze=horizon,
            visibility=log_uniform(rng, 800, 8000),
            clouds=float(rng.choice([0.0, rng.uniform(0.15, 0.8)])),
            cloud_shift=(float(rng.uniform(0, 90)), float(rng.uniform(0, 90))),
        ),
        sensor=sensor(rng, (0.15, 0.34), 0.2),
        soil=(soil, earth),
        stones=(stone, varied(rng, stone, 0.2, 0.04), varied(rng, stone, 0.3, 0.06)),
        grain=float(rng.uniform(0.1, 0.3)),
        gravel=float(rng.uniform(0.4, 1.0)),
        ripple=0.0,
        roughness=float(rng.uniform(0.1, 0.3)),
        relief=float(rng.uniform(0.04, 0.14)),
        hills=float(rng.choice([0.0, rng.uniform(0.2, 0.9)])),
        abundance=log_uniform(rng, 0.25, 0.97),
        dust=float(rng.uniform(0, 0.7)),
        kinds=('angular', 'angular', 'angular', 'layered', 'slab'),
        camera_height=float(rng.uniform(0.8, 3.0)),
        field_of_view=np.radians(log_uniform(rng, 25, 75)),
        objects=ObjectProbabilities(
            robot=0.15,
            scale=0.05,
            board=0.05,
            building=0.2,
            fence=0.05,
            grass=0.15,
            bushes=0.15,
            trees=0.2,
        ),
    )
    return weather(rng, appearance)


def belt(rng: Generator) -> Appearance:
    """Ore on a dark conveyor belt, seen from above under lamps."""
    ore = varied(rng, (0.45, 0.27, 0.07), 0.2, 0.08)
    rubber = varied(
        rng, ((0.03, 0.062, 0.03), (0.045, 0.045, 0.045))[int(rng.uniform() < 0.3)], 0.3, 0.1
    )
    stones = (
        scaled(ore, float(rng.uniform(1.0, 1.4))),
        varied(rng, (0.50, 0.38, 0.16), 0.2, 0.08),
        varied(rng, (0.40, 0.38, 0.22), 0.2, 0.1),
    )
    return Appearance(
        name='belt',
        light=Light(
            sun=sun(rng, 45, 85),
            sun_colour=(1.0, 0.95, 0.85),
            sky_colour=scaled((1.0, 0.97, 0.9), float(rng.uniform(0.3, 1.0))),
            horizon=(0.1, 0.1, 0.1),
            zenith=(0.1, 0.1, 0.1),
            haze=(0.1, 0.1, 0.1),
            visibility=1e9,
        ),
        sensor=sensor(rng, (0.1, 0.4), 0.15),
        soil=(ore, rubber),
        stones=stones,
        grain=float(rng.uniform(0.15, 0.35)),
        gravel=float(rng.uniform(0.4, 1.0)),
        ripple=0.0,
        roughness=float(rng.uniform(0.1, 0.3)),
        relief=0.0,
        hills=0.0,
        abundance=0.5,
        dust=float(rng.uniform(0, 0.7)),
        kinds=('angular', 'angular', 'rounded', 'layered'),
        camera_height=float(rng.uniform(0.8, 2.0)),
        field_of_view=np.radians(float(rng.uniform(20, 50))),
        metered=ore,
    )


SCENE_KINDS: dict[str, Callable[[Generator], Appearance]] = {
    'mars': mars,
    'moon': moon,
    'quarry': quarry,
    'belt': belt,
    'beach': beach,
    'creek': creek,
    'rubble': rubble,
    'boulder': boulder,
    'yard': yard,
}
# Probabilities of the scene kinds for 'mix'.
MIX = {
    'mars': 0.2,
    'moon': 0.05,
    'quarry': 0.09,
    'belt': 0.1,
    'beach': 0.13,
    'creek': 0.12,
    'rubble': 0.14,
    'boulder': 0.07,
    'yard': 0.1,
}
