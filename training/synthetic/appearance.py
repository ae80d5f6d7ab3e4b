# SPDX-License-Identifier: Apache-2.0
"""Appearance of a scene: colours, light, camera and rocks, and random draws of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from training.synthetic.materials import Colour
from training.synthetic.objects import ObjectProbabilities
from training.synthetic.sensor import Sensor
from training.synthetic.sky import Light


@dataclass(frozen=True)
class Packing:
    """Arrangement of closely packed stones.

    Attributes:
        largest: Diameter of the largest stone, as a share of the width of the view.
        smallest: Diameter of the smallest stone, as a share of the width of the view.
        power: Exponent of the size distribution, N(d) ~ d^-power.
        cover: Area of all stones divided by that of the ground; above 1 they lie on each other.
        sink: Maximum share of its height that a stone is buried.
        mound: Slope of the heap below the stones, 0 = level ground.
        overhead: Share of the scenes with a camera that points down, 0 to 1.
        boulders: Number of boulders in the middle.
    """

    largest: float
    smallest: float
    power: float
    cover: float
    sink: float = 0.0
    mound: float = 0.0
    overhead: float = 0.5
    boulders: int = 0


@dataclass(frozen=True)
class Appearance:
    """Colours, light and camera of one scene.

    Attributes:
        name: One of `SCENE_KINDS`.
        light: Sun, sky and air.
        sensor: The camera sensor.
        soil: Linear albedos of the ground, the main one first.
        stones: Linear albedos of the rocks.
        grain: Slope of each octave of the roughness of the ground.
        gravel: Share of the ground with gravel, 0 to 1.
        ripple: Slope of sand ripples, 0 = none.
        roughness: Slope of each octave of the roughness of rocks.
        relief: Slope of each octave of the terrain.
        hills: Height of the hills on the horizon divided by their distance.
        abundance: Rock abundance k of the size-frequency distribution.
        dust: Maximum share of the upper side of a rock that is covered by soil.
        kinds: Kinds of rocks; one is drawn for each rock.
        camera_height: Height of the camera above the ground, m.
        field_of_view: Horizontal field of view, rad.
        craters: Share of the ground that is covered by craters of each octave of sizes.
        metered: Albedo for which the exposure is fixed; None = automatic exposure of each image.
        variety: Relative standard deviation of the albedo of rocks.
        marked: Share of the rocks with patches, layers, veins or cracks, 0 to 1.
        objects: Probabilities of objects that are not rock.
        packing: Arrangement of closely packed stones; None = rocks scattered on open ground.
        path: Width of a path, m, outside which the ground has its second colour; 0 = no path, below
            0 = the whole ground has the second colour.
        wet: Strength of specular reflection on rocks, 0 to 1.
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
    variety: float = 0.13
    marked: float = 0.0
    objects: ObjectProbabilities = field(default_factory=ObjectProbabilities)
    packing: Packing | None = None
    path: float = 0.0
    wet: float = 0.0

    def fixed_gain(self, albedo: Colour) -> float:
        """Returns the exposure at which a level surface of this albedo has the set brightness."""
        energy = self.light.sun[2] * np.mean(self.light.sun_colour) + np.mean(self.light.sky_colour)
        return self.sensor.brightness / float(np.mean(albedo) * energy)


def varied(rng: Generator, colour: Colour, brightness: float, hue: float) -> Colour:
    """Returns a similar colour; brightness and hue are relative standard deviations."""
    mixed = np.array(colour) * np.exp(rng.normal(0, brightness) + rng.normal(0, hue, 3))
    return tuple(float(part) for part in np.clip(mixed, 0.01, 0.85))  # type: ignore[return-value]


def towards(colour: Colour, other: Colour, share: float) -> Colour:
    """Interpolates between two colours; 0 returns `colour`, 1 returns `other`."""
    mixed = np.array(colour) + share * (np.array(other) - np.array(colour))
    return tuple(float(part) for part in mixed)  # type: ignore[return-value]


def scaled(colour: Colour, factor: float) -> Colour:
    """Returns the colour multiplied by a factor."""
    return tuple(factor * part for part in colour)  # type: ignore[return-value]


def sun(rng: Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draws a direction towards the sun with an elevation between two limits, degrees."""
    elevation = np.radians(rng.uniform(low, high))
    azimuth = rng.uniform(-np.pi, np.pi)
    level = np.cos(elevation)
    return (
        float(level * np.cos(azimuth)),
        float(level * np.sin(azimuth)),
        float(np.sin(elevation)),
    )


def sensor(rng: Generator, brightness: tuple[float, float], monochrome: float) -> Sensor:
    """Draws a camera sensor.

    Args:
        rng: Random generator.
        brightness: Range of the mean brightness.
        monochrome: Probability of a monochrome camera.
    """
    return Sensor(
        brightness=float(rng.uniform(*brightness)),
        white_balance=varied(rng, (0.8, 0.8, 0.8), 0.0, 0.03),
        vignetting=float(rng.choice([0.0, rng.uniform(0.05, 0.45)])),
        veil=float(rng.choice([0.0, rng.uniform(0.0, 0.25)])),
        blur=float(rng.uniform(0.35, 0.95)),
        shot_noise=float(np.exp(rng.uniform(np.log(0.003), np.log(0.03)))),
        read_noise=float(np.exp(rng.uniform(np.log(0.0005), np.log(0.006)))),
        monochrome=bool(rng.uniform() < monochrome),
        saturation=float(rng.uniform(0.7, 1.1)),
    )


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Draws a number log-uniformly between two limits."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def weather(rng: Generator, appearance: Appearance) -> Appearance:
    """Changes the light of half of the scenes: hard, low, dull, overexposed or dim."""
    light, sensor = appearance.light, appearance.sensor
    sensor = replace(
        sensor,
        contrast=float(rng.choice([0.0, rng.uniform(0, 1)])),
        sharpening=float(rng.choice([0.0, rng.uniform(0.2, 1.2)])),
    )
    if rng.uniform() < 0.05:
        way, far = rng.uniform(0, np.pi), rng.uniform(2, 9)
        sensor = replace(sensor, motion=(float(far * np.cos(way)), float(far * np.sin(way))))
    kind = str(
        rng.choice(
            ['fair', 'hard', 'low', 'dull', 'blown', 'dim'], p=[0.5, 0.16, 0.1, 0.1, 0.08, 0.06]
        )
    )
    if kind in ('hard', 'low'):
        # Shaded sides become black.
        dark = float(rng.uniform(0.05, 0.4))
        light = replace(
            light, sky_colour=scaled(light.sky_colour, dark), sun_colour=light.sun_colour
        )
        sensor = replace(sensor, contrast=float(rng.uniform(0.3, 1)), veil=0.2 * sensor.veil)
    if kind == 'low':
        light = replace(light, sun=sun(rng, 5, 16), sun_colour=(1.0, 0.8, 0.58))
    elif kind == 'hard':
        light = replace(light, sun=sun(rng, 20, 60))
    elif kind == 'dull':
        light = replace(light, sun_colour=scaled(light.sun_colour, float(rng.uniform(0.0, 0.25))))
    elif kind == 'blown':
        sensor = replace(sensor, brightness=float(rng.uniform(0.42, 0.8)))
    elif kind == 'dim':
        sensor = replace(sensor, brightness=float(rng.uniform(0.03, 0.1)))
    return replace(appearance, light=light, sensor=sensor)
