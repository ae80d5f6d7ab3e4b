# SPDX-License-Identifier: Apache-2.0
"""How places look, each drawn anew for each scene; those on Earth are in `earth`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from training.synthetic.earth import STONES_EARTH, beach, boulder, creek, rubble, yard
from training.synthetic.look import (
    Look,
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


def mars(chance: Generator) -> Look:
    """Dusty air, tan to dark soil, grey, brown, red and pale stones."""
    soil = varied(chance, SOILS_MARS[chance.integers(len(SOILS_MARS))], 0.12, 0.05)
    patch = towards(
        varied(chance, SOILS_MARS[chance.integers(len(SOILS_MARS))], 0.1, 0.04),
        soil,
        chance.uniform(0.3, 0.9),
    )
    # Most places have one kind of stone, often close to the soil's colour.
    own = [STONES_MARS[index] for index in chance.integers(len(STONES_MARS), size=2)]
    kin = chance.uniform()
    if kin < 0.3:
        # Rock that only its form tells from the sand: the same colour, hardly lighter or darker.
        own = [scaled(soil, float(chance.uniform(0.8, 1.15))) for _ in range(2)]
    elif max(soil) < 0.22 and kin < 0.8:
        # Pale and red plates on dark basaltic sand.
        own = [scaled(STONES_MARS[index], 1.15) for index in (3, 4, 5)]
    elif kin < 0.65:
        own.append(scaled(soil, float(chance.uniform(0.65, 1.2))))
    stones = tuple(varied(chance, colour, 0.15, 0.04) for colour in own)
    dusty = chance.uniform(0.25, 1.0)
    sky = varied(chance, (0.62, 0.50, 0.34), 0.15, 0.06)
    sandy = chance.uniform() < 0.4
    look = Look(
        name='mars',
        light=Light(
            sun=sun(chance, 14, 75),
            sun_colour=(1.0, 0.93, 0.80),
            sky_colour=scaled((0.85, 0.72, 0.55), dusty),
            horizon=sky,
            zenith=scaled(sky, chance.uniform(0.5, 0.95)),
            haze=scaled(towards(sky, soil, 0.3), chance.uniform(0.7, 0.95)),
            visibility=log_uniform(chance, 250, 6000),
        ),
        sensor=sensor(chance, (0.15, 0.36), 0.15),
        soil=(soil, patch),
        stones=stones,
        grain=float(chance.uniform(0.03, 0.12) if sandy else chance.uniform(0.06, 0.25)),
        gravel=float(
            chance.choice([0.0, chance.uniform(0, 0.3)]) if sandy else chance.uniform(0.2, 1.0)
        ),
        ripple=float(chance.uniform(0.05, 0.4) if sandy and chance.uniform() < 0.6 else 0.0),
        roughness=float(chance.uniform(0.12, 0.42)),
        relief=float(chance.uniform(0.01, 0.09)),
        hills=float(chance.choice([0.0, chance.uniform(0.05, 0.35)])),
        abundance=log_uniform(chance, 0.12, 0.95),
        dust=float(chance.uniform(0, 0.95)),
        kinds=tuple(
            chance.choice(KINDS_MARS, 2, p=(0.22, 0.12, 0.2, 0.2, 0.1, 0.16)),
        ),
        camera_height=float(chance.uniform(0.35, 2.3)),
        field_of_view=np.radians(log_uniform(chance, 9, 70)),
        things=Things(robot=0.15, scale=0.02),
    )
    return weather(chance, look)


def moon(chance: Generator) -> Look:
    """No air: black sky, hard shadows, grey regolith."""
    soil = varied(chance, (0.13, 0.125, 0.118), 0.25, 0.015)
    stone = scaled(soil, float(chance.uniform(0.9, 1.9)))
    return Look(
        name='moon',
        light=Light(
            sun=sun(chance, 6, 55),
            sun_colour=(1.0, 0.99, 0.96),
            sky_colour=scaled((1.0, 1.0, 1.0), float(chance.uniform(0.005, 0.04))),
            horizon=(0.0, 0.0, 0.0),
            zenith=(0.0, 0.0, 0.0),
            haze=(0.0, 0.0, 0.0),
            visibility=1e9,
        ),
        sensor=sensor(chance, (0.08, 0.26), 0.5),
        soil=(soil, varied(chance, soil, 0.1, 0.01)),
        stones=(stone, varied(chance, stone, 0.2, 0.02)),
        grain=float(chance.uniform(0.1, 0.3)),
        gravel=float(chance.uniform(0.0, 0.6)),
        ripple=0.0,
        roughness=float(chance.uniform(0.12, 0.35)),
        relief=float(chance.uniform(0.04, 0.14)),
        hills=float(chance.choice([0.0, chance.uniform(0.1, 0.5)])),
        abundance=log_uniform(chance, 0.03, 0.35),
        dust=float(chance.uniform(0, 0.6)),
        kinds=('angular', 'rounded', 'pitted'),
        camera_height=float(chance.uniform(0.35, 2.0)),
        field_of_view=np.radians(log_uniform(chance, 12, 75)),
        craters=float(chance.uniform(0.005, 0.06)),
        things=Things(robot=0.15),
    )


def quarry(chance: Generator) -> Look:
    """Blocky rubble on its own fines before a vehicle, under Earth's sky."""
    stone = varied(chance, STONES_EARTH[chance.integers(len(STONES_EARTH))], 0.15, 0.04)
    # Fines are the same rock, ground: a little paler or, wet, darker.
    soil = varied(chance, scaled(stone, float(chance.uniform(0.55, 1.15))), 0.08, 0.04)
    earth = towards(soil, (0.26, 0.19, 0.11), float(chance.uniform(0.1, 0.6)))
    overcast = chance.uniform() < 0.4
    white = float(chance.uniform(0.7, 1.0)) if overcast else float(chance.uniform(0.0, 0.4))
    horizon = towards((0.55, 0.68, 0.85), (0.85, 0.85, 0.85), white)
    sky = towards((0.74, 0.8, 0.92), (0.9, 0.9, 0.9), white)
    look = Look(
        name='quarry',
        light=Light(
            sun=sun(chance, 20, 70),
            sun_colour=scaled((1.0, 0.96, 0.9), 0.15 if overcast else 1.0),
            sky_colour=scaled(sky, float(chance.uniform(0.4, 0.9))),
            horizon=horizon,
            zenith=scaled(towards((0.16, 0.3, 0.65), (0.75, 0.77, 0.8), white), 0.8),
            haze=horizon,
            visibility=log_uniform(chance, 800, 8000),
            clouds=float(chance.choice([0.0, chance.uniform(0.15, 0.8)])),
            cloud_shift=(float(chance.uniform(0, 90)), float(chance.uniform(0, 90))),
        ),
        sensor=sensor(chance, (0.15, 0.34), 0.2),
        soil=(soil, earth),
        stones=(stone, varied(chance, stone, 0.2, 0.04), varied(chance, stone, 0.3, 0.06)),
        grain=float(chance.uniform(0.1, 0.3)),
        gravel=float(chance.uniform(0.4, 1.0)),
        ripple=0.0,
        roughness=float(chance.uniform(0.1, 0.3)),
        relief=float(chance.uniform(0.04, 0.14)),
        hills=float(chance.choice([0.0, chance.uniform(0.2, 0.9)])),
        abundance=log_uniform(chance, 0.25, 0.97),
        dust=float(chance.uniform(0, 0.7)),
        kinds=('angular', 'angular', 'angular', 'layered', 'slab'),
        camera_height=float(chance.uniform(0.8, 3.0)),
        field_of_view=np.radians(log_uniform(chance, 25, 75)),
        things=Things(
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
    return weather(chance, look)


def belt(chance: Generator) -> Look:
    """Ore on a dark conveyor belt, seen from above under lamps."""
    ore = varied(chance, (0.45, 0.27, 0.07), 0.2, 0.08)
    rubber = varied(
        chance, ((0.03, 0.062, 0.03), (0.045, 0.045, 0.045))[int(chance.uniform() < 0.3)], 0.3, 0.1
    )
    stones = (
        scaled(ore, float(chance.uniform(1.0, 1.4))),
        varied(chance, (0.50, 0.38, 0.16), 0.2, 0.08),
        varied(chance, (0.40, 0.38, 0.22), 0.2, 0.1),
    )
    return Look(
        name='belt',
        light=Light(
            sun=sun(chance, 45, 85),
            sun_colour=(1.0, 0.95, 0.85),
            sky_colour=scaled((1.0, 0.97, 0.9), float(chance.uniform(0.3, 1.0))),
            horizon=(0.1, 0.1, 0.1),
            zenith=(0.1, 0.1, 0.1),
            haze=(0.1, 0.1, 0.1),
            visibility=1e9,
        ),
        sensor=sensor(chance, (0.1, 0.4), 0.15),
        soil=(ore, rubber),
        stones=stones,
        grain=float(chance.uniform(0.15, 0.35)),
        gravel=float(chance.uniform(0.4, 1.0)),
        ripple=0.0,
        roughness=float(chance.uniform(0.1, 0.3)),
        relief=0.0,
        hills=0.0,
        abundance=0.5,
        dust=float(chance.uniform(0, 0.7)),
        kinds=('angular', 'angular', 'rounded', 'layered'),
        camera_height=float(chance.uniform(0.8, 2.0)),
        field_of_view=np.radians(float(chance.uniform(20, 50))),
        metered=ore,
    )


LOOKS: dict[str, Callable[[Generator], Look]] = {
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
# What 'mix' draws from.
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
