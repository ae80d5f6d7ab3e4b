# SPDX-License-Identifier: Apache-2.0
"""Light: sun, sky, clouds and air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.materials import Colour, Floats
from training.synthetic.noise import noise_2d
from training.synthetic.vectors import length


@dataclass(frozen=True)
class Light:
    """Sun, sky and air.

    Attributes:
        sun: Unit vector towards the sun.
        sun_colour: Irradiance of a surface that faces the sun.
        sky_colour: Irradiance of a surface that faces the whole sky.
        horizon: Radiance of the sky at the horizon.
        zenith: Radiance of the sky overhead.
        haze: Radiance of distant air.
        visibility: Distance at which the contrast is reduced to 1/e, m.
        clouds: Share of the sky with clouds, 0 to 1.
        cloud_colour: Radiance of the clouds.
        cloud_shift: Shift of the pattern of the clouds.
    """

    sun: tuple[float, float, float]
    sun_colour: Colour
    sky_colour: Colour
    horizon: Colour
    zenith: Colour
    haze: Colour
    visibility: float
    clouds: float = 0.0
    cloud_colour: Colour = (0.9, 0.9, 0.9)
    cloud_shift: tuple[float, float] = (0.0, 0.0)


def sky_radiance(rays: Floats, light: Light) -> Floats:
    """Returns the N×3 radiance of the sky in each direction; below the horizon it is haze."""
    height = rays[:, 2] / length(rays)[:, 0]
    rise = np.clip(height, 0, 1)[:, None] ** 0.6
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    blue = horizon + rise * (zenith - horizon)
    if light.clouds > 0:
        blue += _clouds(rays, height, light)[:, None] * (
            np.array(light.cloud_colour, np.float32) - blue
        )
    return np.where(height[:, None] < 0, np.array(light.haze, np.float32), blue).astype(np.float32)


def _clouds(rays: Floats, height: Floats, light: Light) -> Floats:
    """Returns the N opacities of the clouds in each direction, 0 to 1."""
    # A layer at a height of one unit, which is curved towards the horizon.
    place = rays[:, :2] / (length(rays) * (np.abs(height)[:, None] + 0.12))
    place = place + np.array(light.cloud_shift, np.float32)
    thick = np.zeros(len(rays), np.float32)
    for octave in range(6):
        thick += 0.6**octave * noise_2d(place * 2.0**octave / 2.5, 50 + octave)[:, 0]
    return np.clip((thick / 1.4 + 3 * (light.clouds - 0.5)) * 1.4, 0, 1) ** 1.5
