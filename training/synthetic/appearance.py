# SPDX-License-Identifier: Apache-2.0
"""What a look is, and how its parts are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from training.synthetic.materials import Colour
from training.synthetic.objects import ObjectProbabilities
from training.synthetic.render import Light
from training.synthetic.sensor import Sensor


@dataclass(frozen=True)
class Packing:
    """How stones lie close together.

    Attributes:
        largest: Diameter of the largest, as a share of what an image shows across.
        smallest: Diameter of the smallest.
        power: Exponent of the law of sizes, N(d) ~ d^-power.
        cover: Area of all stones over that of the ground; above 1 they lie on each other.
        sink: Greatest share of its height that a stone sinks into the ground.
        mound: Slope of the heap that they lie on, 0 = level ground.
        overhead: Share of the scenes that are seen from above, 0 to 1.
        boulders: How many large ones there are in the middle.
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
    """A place's colours, light and camera, drawn for one scene.

    Attributes:
        name: One of `SCENE_KINDS`.
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
        metered: Albedo that the exposure is fixed for; None meters each image.
        variety: Relative deviation of the albedo from rock to rock.
        marked: Share of the rocks with patches, layers, veins or cracks, 0 to 1.
        objects: What there is beside rock.
        packing: How stones lie close; None strews them over open ground.
        path: Width of a path, m, beside which the ground has its second colour; 0 = no path,
            below 0 all of the ground has the second colour.
        wet: How much stones shine, 0 to 1.
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
        """Returns the exposure that shows a level surface of this albedo as bright as asked."""
        energy = self.light.sun[2] * np.mean(self.light.sun_colour) + np.mean(self.light.sky_colour)
        return self.sensor.brightness / float(np.mean(albedo) * energy)


def varied(rng: Generator, colour: Colour, brightness: float, hue: float) -> Colour:
    """Returns a colour near another; the arguments are relative deviations."""
    mixed = np.array(colour) * np.exp(rng.normal(0, brightness) + rng.normal(0, hue, 3))
    return tuple(float(part) for part in np.clip(mixed, 0.01, 0.85))  # type: ignore[return-value]


def towards(colour: Colour, other: Colour, share: float) -> Colour:
    """Returns the colour a share of the way to another."""
    mixed = np.array(colour) + share * (np.array(other) - np.array(colour))
    return tuple(float(part) for part in mixed)  # type: ignore[return-value]


def scaled(colour: Colour, factor: float) -> Colour:
    """Returns the colour with each part multiplied."""
    return tuple(factor * part for part in colour)  # type: ignore[return-value]


def sun(rng: Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draws the direction towards the sun between two elevations (degrees)."""
    elevation = np.radians(rng.uniform(low, high))
    azimuth = rng.uniform(-np.pi, np.pi)
    level = np.cos(elevation)
    return (
        float(level * np.cos(azimuth)),
        float(level * np.sin(azimuth)),
        float(np.sin(elevation)),
    )


def sensor(rng: Generator, brightness: tuple[float, float], monochrome: float) -> Sensor:
    """Draws a camera.

    Args:
        rng: Where the randomness comes from.
        brightness: Range of the metered mean.
        monochrome: Share of monochrome cameras.
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
    """Draws a number whose logarithm is uniform between two limits."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def weather(rng: Generator, appearance: Appearance) -> Appearance:
    """Draws hard, low, dull, blown-out or dim light for half of the scenes."""
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
        # Sides in shadow turn black.
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
