# SPDX-License-Identifier: Apache-2.0
"""How places look: Mars, the Moon, a quarry and a conveyor belt, each drawn anew for each scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from training.synthetic.materials import Colour
from training.synthetic.render import Light
from training.synthetic.sensor import Sensor


@dataclass(frozen=True)
class Look:
    """A place's colours, light and camera, drawn for one scene.

    Attributes:
        name: One of `LOOKS`.
        light: Sun, sky and air.
        sensor: The camera's behaviour.
        soil: Linear albedos of the ground, the main one first.
        stones: Linear albedos that rocks take.
        grain: Slope of each octave of the ground's roughness.
        gravel: Share of the ground where gravel lies, 0 to 1.
        ripple: Slope of sand ripples, 0 = none.
        roughness: Slope of each octave of the stone's grain.
        relief: Slope of each octave of the terrain.
        hills: Height of the hills on the horizon over their distance.
        abundance: k of the size-frequency law.
        dust: Greatest share of rocks' upper sides under soil.
        kinds: Kinds of rocks, one drawn for each rock.
        camera_height: Metres above the ground.
        field_of_view: Horizontal, rad.
        craters: Share of the ground that craters of each octave of sizes cover.
        metered: Albedo that the exposure is fixed for; None meters each picture.
    """

    name: str
    light: Light
    sensor: Sensor
    soil: tuple[Colour, ...]
    stones: tuple[Colour, ...]
    grain: float
    gravel: float
    ripple: float
    roughness: float
    relief: float
    hills: float
    abundance: float
    dust: float
    kinds: tuple[str, ...]
    camera_height: float
    field_of_view: float
    craters: float = 0.0
    metered: Colour | None = None

    def fixed_gain(self, albedo: Colour) -> float:
        """Returns the exposure that shows a level surface of this albedo as bright as asked."""
        energy = self.light.sun[2] * np.mean(self.light.sun_colour) + np.mean(self.light.sky_colour)
        return self.sensor.brightness / float(np.mean(albedo) * energy)


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
STONES_QUARRY: tuple[Colour, ...] = (
    (0.30, 0.30, 0.29),
    (0.18, 0.18, 0.185),
    (0.50, 0.47, 0.40),
    (0.42, 0.35, 0.25),
    (0.34, 0.24, 0.16),
)


def _varied(chance: Generator, colour: Colour, brightness: float, hue: float) -> Colour:
    """Returns a colour near another; the arguments are relative deviations."""
    mixed = np.array(colour) * np.exp(chance.normal(0, brightness) + chance.normal(0, hue, 3))
    return tuple(float(part) for part in np.clip(mixed, 0.01, 0.85))  # type: ignore[return-value]


def _towards(colour: Colour, other: Colour, share: float) -> Colour:
    mixed = np.array(colour) + share * (np.array(other) - np.array(colour))
    return tuple(float(part) for part in mixed)  # type: ignore[return-value]


def _scaled(colour: Colour, factor: float) -> Colour:
    return tuple(factor * part for part in colour)  # type: ignore[return-value]


def _sun(chance: Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draws the direction towards the sun between two elevations (degrees)."""
    elevation = np.radians(chance.uniform(low, high))
    azimuth = chance.uniform(-np.pi, np.pi)
    level = np.cos(elevation)
    return (
        float(level * np.cos(azimuth)),
        float(level * np.sin(azimuth)),
        float(np.sin(elevation)),
    )


def _sensor(chance: Generator, brightness: tuple[float, float], monochrome: float) -> Sensor:
    """Draws a camera.

    Args:
        chance: Where the randomness comes from.
        brightness: Range of the metered mean.
        monochrome: Share of monochrome cameras.
    """
    return Sensor(
        brightness=float(chance.uniform(*brightness)),
        white_balance=_varied(chance, (0.8, 0.8, 0.8), 0.0, 0.03),
        vignetting=float(chance.choice([0.0, chance.uniform(0.05, 0.45)])),
        veil=float(chance.choice([0.0, chance.uniform(0.0, 0.25)])),
        blur=float(chance.uniform(0.35, 0.95)),
        shot_noise=float(np.exp(chance.uniform(np.log(0.003), np.log(0.03)))),
        read_noise=float(np.exp(chance.uniform(np.log(0.0005), np.log(0.006)))),
        monochrome=bool(chance.uniform() < monochrome),
        saturation=float(chance.uniform(0.7, 1.1)),
    )


def _log_uniform(chance: Generator, low: float, high: float) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))


def mars(chance: Generator) -> Look:
    """Dusty air, tan to dark soil, grey, brown, red and pale stones."""
    soil = _varied(chance, SOILS_MARS[chance.integers(len(SOILS_MARS))], 0.12, 0.05)
    patch = _towards(
        _varied(chance, SOILS_MARS[chance.integers(len(SOILS_MARS))], 0.1, 0.04),
        soil,
        chance.uniform(0.3, 0.9),
    )
    # Most places have one kind of stone, often close to the soil's colour.
    own = [STONES_MARS[index] for index in chance.integers(len(STONES_MARS), size=2)]
    kin = chance.uniform()
    if kin < 0.3:
        # Rock that only its form tells from the sand: the same colour, hardly lighter or darker.
        own = [_scaled(soil, float(chance.uniform(0.8, 1.15))) for _ in range(2)]
    elif max(soil) < 0.22 and kin < 0.8:
        # Pale and red plates on dark basaltic sand.
        own = [_scaled(STONES_MARS[index], 1.15) for index in (3, 4, 5)]
    elif kin < 0.65:
        own.append(_scaled(soil, float(chance.uniform(0.65, 1.2))))
    stones = tuple(_varied(chance, colour, 0.15, 0.04) for colour in own)
    dusty = chance.uniform(0.25, 1.0)
    sky = _varied(chance, (0.62, 0.50, 0.34), 0.15, 0.06)
    sandy = chance.uniform() < 0.4
    return Look(
        name='mars',
        light=Light(
            sun=_sun(chance, 14, 75),
            sun_colour=(1.0, 0.93, 0.80),
            sky_colour=_scaled((0.85, 0.72, 0.55), dusty),
            horizon=sky,
            zenith=_scaled(sky, chance.uniform(0.5, 0.95)),
            haze=_scaled(_towards(sky, soil, 0.3), chance.uniform(0.7, 0.95)),
            visibility=_log_uniform(chance, 250, 6000),
        ),
        sensor=_sensor(chance, (0.15, 0.36), 0.15),
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
        abundance=_log_uniform(chance, 0.12, 0.95),
        dust=float(chance.uniform(0, 0.95)),
        kinds=tuple(
            chance.choice(KINDS_MARS, 2, p=(0.22, 0.12, 0.2, 0.2, 0.1, 0.16)),
        ),
        camera_height=float(chance.uniform(0.35, 2.3)),
        field_of_view=np.radians(_log_uniform(chance, 9, 70)),
    )


def moon(chance: Generator) -> Look:
    """No air: black sky, hard shadows, grey regolith."""
    soil = _varied(chance, (0.13, 0.125, 0.118), 0.25, 0.015)
    stone = _scaled(soil, float(chance.uniform(0.9, 1.9)))
    return Look(
        name='moon',
        light=Light(
            sun=_sun(chance, 6, 55),
            sun_colour=(1.0, 0.99, 0.96),
            sky_colour=_scaled((1.0, 1.0, 1.0), float(chance.uniform(0.005, 0.04))),
            horizon=(0.0, 0.0, 0.0),
            zenith=(0.0, 0.0, 0.0),
            haze=(0.0, 0.0, 0.0),
            visibility=1e9,
        ),
        sensor=_sensor(chance, (0.08, 0.26), 0.5),
        soil=(soil, _varied(chance, soil, 0.1, 0.01)),
        stones=(stone, _varied(chance, stone, 0.2, 0.02)),
        grain=float(chance.uniform(0.1, 0.3)),
        gravel=float(chance.uniform(0.0, 0.6)),
        ripple=0.0,
        roughness=float(chance.uniform(0.12, 0.35)),
        relief=float(chance.uniform(0.04, 0.14)),
        hills=float(chance.choice([0.0, chance.uniform(0.1, 0.5)])),
        abundance=_log_uniform(chance, 0.03, 0.35),
        dust=float(chance.uniform(0, 0.6)),
        kinds=('angular', 'rounded', 'pitted'),
        camera_height=float(chance.uniform(0.35, 2.0)),
        field_of_view=np.radians(_log_uniform(chance, 12, 75)),
        craters=float(chance.uniform(0.005, 0.06)),
    )


def quarry(chance: Generator) -> Look:
    """Blocky rubble on its own fines before a vehicle, under Earth's sky."""
    stone = _varied(chance, STONES_QUARRY[chance.integers(len(STONES_QUARRY))], 0.15, 0.04)
    # Fines are the same rock, ground: a little paler or, wet, darker.
    soil = _varied(chance, _scaled(stone, float(chance.uniform(0.55, 1.15))), 0.08, 0.04)
    earth = _towards(soil, (0.26, 0.19, 0.11), float(chance.uniform(0.1, 0.6)))
    overcast = chance.uniform() < 0.4
    white = float(chance.uniform(0.7, 1.0)) if overcast else float(chance.uniform(0.0, 0.4))
    horizon = _towards((0.55, 0.68, 0.85), (0.85, 0.85, 0.85), white)
    sky = _towards((0.74, 0.8, 0.92), (0.9, 0.9, 0.9), white)
    return Look(
        name='quarry',
        light=Light(
            sun=_sun(chance, 20, 70),
            sun_colour=_scaled((1.0, 0.96, 0.9), 0.15 if overcast else 1.0),
            sky_colour=_scaled(sky, float(chance.uniform(0.4, 0.9))),
            horizon=horizon,
            zenith=_scaled(_towards((0.16, 0.3, 0.65), (0.75, 0.77, 0.8), white), 0.8),
            haze=horizon,
            visibility=_log_uniform(chance, 800, 8000),
        ),
        sensor=_sensor(chance, (0.15, 0.34), 0.2),
        soil=(soil, earth),
        stones=(stone, _varied(chance, stone, 0.2, 0.04), _varied(chance, stone, 0.3, 0.06)),
        grain=float(chance.uniform(0.1, 0.3)),
        gravel=float(chance.uniform(0.4, 1.0)),
        ripple=0.0,
        roughness=float(chance.uniform(0.1, 0.3)),
        relief=float(chance.uniform(0.04, 0.14)),
        hills=float(chance.choice([0.0, chance.uniform(0.2, 0.9)])),
        abundance=_log_uniform(chance, 0.25, 0.97),
        dust=float(chance.uniform(0, 0.7)),
        kinds=('angular', 'angular', 'angular', 'layered', 'slab'),
        camera_height=float(chance.uniform(0.8, 3.0)),
        field_of_view=np.radians(_log_uniform(chance, 25, 75)),
    )


def belt(chance: Generator) -> Look:
    """Ore on a dark conveyor belt, seen from above under lamps."""
    ore = _varied(chance, (0.45, 0.27, 0.07), 0.2, 0.08)
    rubber = _varied(
        chance, ((0.03, 0.062, 0.03), (0.045, 0.045, 0.045))[int(chance.uniform() < 0.3)], 0.3, 0.1
    )
    stones = (
        _scaled(ore, float(chance.uniform(1.0, 1.4))),
        _varied(chance, (0.50, 0.38, 0.16), 0.2, 0.08),
        _varied(chance, (0.40, 0.38, 0.22), 0.2, 0.1),
    )
    return Look(
        name='belt',
        light=Light(
            sun=_sun(chance, 45, 85),
            sun_colour=(1.0, 0.95, 0.85),
            sky_colour=_scaled((1.0, 0.97, 0.9), float(chance.uniform(0.3, 1.0))),
            horizon=(0.1, 0.1, 0.1),
            zenith=(0.1, 0.1, 0.1),
            haze=(0.1, 0.1, 0.1),
            visibility=1e9,
        ),
        sensor=_sensor(chance, (0.1, 0.4), 0.15),
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
}
# What 'mix' draws from.
MIX = {'mars': 0.62, 'moon': 0.07, 'quarry': 0.11, 'belt': 0.2}
