# SPDX-License-Identifier: Apache-2.0
"""A camera sensor: exposure, colour, optics, noise and quantization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sensor:
    """The properties of a camera sensor.

    Attributes:
        brightness: Mean of the exposed image in linear light, 0 to 1.
        white_balance: Gain of red, green and blue.
        vignetting: Loss of light in the corners, 0 to 1.
        veil: Stray light, as a share of the mean.
        blur: Standard deviation of the point spread function, px.
        shot_noise: Standard deviation of the photon noise at full scale; it is proportional to the
            square root of the light.
        read_noise: Standard deviation of the noise without light, as a share of full scale.
        monochrome: Whether the image is grey.
        saturation: Colour saturation; 1 keeps the colours, 0 is grey.
        motion: Motion of the camera during the exposure, px to the right and down.
        contrast: Strength of the S-shaped tone curve, 0 to 1.
        sharpening: Strength of unsharp masking; 0 = none.
    """

    brightness: float = 0.22
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignetting: float = 0.0
    veil: float = 0.0
    blur: float = 0.6
    shot_noise: float = 0.01
    read_noise: float = 0.003
    monochrome: bool = False
    saturation: float = 1.0
    motion: tuple[float, float] = (0.0, 0.0)
    contrast: float = 0.0
    sharpening: float = 0.0

    def expose(
        self, light: NDArray[np.float32], rng: Generator, gain: float | None = None
    ) -> NDArray[np.uint8]:
        """Converts radiance to an image.

        Args:
            light: H×W×3 float32, linear radiance.
            rng: Random generator of the noise.
            gain: Exposure; None = the mean becomes `brightness`.

        Returns:
            H×W×3 uint8 sRGB.
        """
        image = cv2.GaussianBlur(light, (0, 0), self.blur) if self.blur > 0.2 else light
        if self.motion != (0.0, 0.0):
            image = cv2.filter2D(image, -1, _streak(*self.motion))
        image = image * (
            (self.gain(light) if gain is None else gain) * np.array(self.white_balance, np.float32)
        )
        height, width = light.shape[:2]
        if self.vignetting > 0:
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            x = np.linspace(-1, 1, width, dtype=np.float32)[None]
            image *= (1 - self.vignetting * (x**2 + y**2) / 2)[..., None]
        if self.saturation != 1 or self.monochrome:
            grey = image @ np.array([0.30, 0.59, 0.11], np.float32)
            keep = 0.0 if self.monochrome else self.saturation
            image = grey[..., None] + keep * (image - grey[..., None])
        image = image + self.veil * self.brightness
        channels = 1 if self.monochrome else 3
        noise = rng.standard_normal((height, width, channels), np.float32)
        image += noise * np.sqrt(
            self.read_noise**2 + self.shot_noise**2 * np.clip(image[..., :channels], 0, 1)
        )
        if self.sharpening > 0:
            # Cameras sharpen before they clip.
            image = np.clip(image, 0, 1.2)
            image += self.sharpening * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
        curve = _curve(self.contrast)
        return curve[np.clip(image * (len(curve) - 1), 0, len(curve) - 1).astype(np.int32)]

    def gain(self, light: NDArray[np.float32]) -> float:
        """Returns the automatic exposure: the gain with which the mean becomes `brightness`."""
        return self.brightness / max(float(np.minimum(light, 4 * light.mean()).mean()), 1e-6)


def _streak(right: float, down: float) -> NDArray[np.float32]:
    """Returns the kernel of a motion blur along a line."""
    half = math.ceil(max(abs(right), abs(down)) / 2) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for part in np.linspace(-0.5, 0.5, 8 * half):
        kernel[round(half + part * down), round(half + part * right)] += 1
    return kernel / kernel.sum()


@lru_cache(maxsize=64)
def _curve(contrast: float, size: int = 8192) -> NDArray[np.uint8]:
    """Returns the tone curve: sRGB values of `size` steps of linear light."""
    linear = np.linspace(0, 1, size)
    coded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    coded += contrast * (coded * coded * (3 - 2 * coded) - coded)
    return np.round(255 * coded).astype(np.uint8)
