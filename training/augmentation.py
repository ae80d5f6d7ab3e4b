# SPDX-License-Identifier: Apache-2.0
"""How far a training changes its images."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

# What a field may be from and to, where that is not 0 to 1.
LEGAL = {
    'aspect': (0.01, 100.0),
    'rotation': (0.0, 180.0),
    'hue': (0.0, 0.5),
    'exposure': (0.001, 1000.0),
    'gamma': (0.01, 100.0),
    'white_balance': (0.01, 100.0),
    'blur': (0.01, 100.0),
    'resolution': (0.01, 1.0),
    'noise': (0.0, 255.0),
    'jpeg': (1.0, 100.0),
    'paste_count': (1.0, math.inf),
    'paste_scale': (0.01, 100.0),
    'paste_softness': (0.01, 100.0),
}


@dataclass
class AugmentationConfig:
    """How often and how far images are changed before a training sees them.

    A field that ends in `_p` is a probability, 0 to 1; 0 switches that change off. A pair is the
    smallest and the largest value of a draw.

    Attributes:
        aspect: Width of a crop by its height before it is scaled to a square, above 0.
        horizontal_flip_p: Of a mirrored image.
        vertical_flip_p: Of an image upside down; for cameras that look straight down.
        rotation: Largest angle to either side, degrees, 0 to 180.
        rotation_p: Of a turned image.
        perspective: How far corners move, as a share of half the side, 0 to 1.
        perspective_p: Of an image with moved corners.
        brightness: Factors are 1 ± this, 0 to 1.
        contrast: As brightness.
        saturation: As brightness.
        hue: Largest turn to either side, as a share of the colour circle, 0 to 0.5.
        exposure: Factor on grey values, drawn log-uniformly, above 0; below 1 the image is dark.
        exposure_p: Of another exposure.
        gamma: Exponent on grey values, drawn log-uniformly, above 0.
        gamma_p: Of another gamma.
        white_balance: Factor on each channel of its own, drawn log-uniformly, above 0.
        white_balance_p: Of another white balance.
        blur: Standard deviation of a Gaussian blur, px, above 0.
        blur_p: Of a blurred image.
        resolution: Side of an image that is scaled down and up again, as a share, above 0 to 1.
        resolution_p: Of such an image, as a camera of fewer pixels makes it.
        noise: Standard deviation of Gaussian noise, grey values of 255, 0 to 255.
        noise_p: Of a noisy image.
        grey_p: Of an image without colour, as a monochrome camera makes it.
        jpeg: JPEG quality, 1 to 100.
        jpeg_p: Of an image that went through JPEG.
        paste_p: Of an image with rocks of another one in it.
        paste_count: Most rocks pasted into one image, 1 or more.
        paste_scale: Factor on the size of a pasted rock, drawn log-uniformly, above 0.
        paste_softness: Standard deviation of a pasted rock's soft border, px, above 0.
        paste_tint_p: Of a pasted rock that takes on colour from where it lands.
    """

    aspect: tuple[float, float] = (0.75, 1.3333)
    horizontal_flip_p: float = 0.5
    vertical_flip_p: float = 0.0
    rotation: float = 10.0
    rotation_p: float = 0.3
    perspective: float = 0.2
    perspective_p: float = 0.2
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    hue: float = 0.04
    exposure: tuple[float, float] = (0.12, 1.5)
    exposure_p: float = 0.3
    gamma: tuple[float, float] = (0.6, 1.7)
    gamma_p: float = 0.3
    white_balance: tuple[float, float] = (0.7, 1.4)
    white_balance_p: float = 0.3
    blur: tuple[float, float] = (0.3, 1.5)
    blur_p: float = 0.15
    resolution: tuple[float, float] = (0.3, 0.9)
    resolution_p: float = 0.15
    noise: float = 12.0
    noise_p: float = 0.25
    grey_p: float = 0.2
    jpeg: tuple[int, int] = (30, 95)
    jpeg_p: float = 0.25
    paste_p: float = 0.3
    paste_count: int = 8
    paste_scale: tuple[float, float] = (0.5, 1.5)
    paste_softness: tuple[float, float] = (0.7, 1.5)
    paste_tint_p: float = 0.5

    def __post_init__(self) -> None:
        """Refuses values outside their range, with ValueError."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            low, high = LEGAL.get(setting.name, (0.0, 1.0))
            if isinstance(value, (tuple, list)):
                if not low <= value[0] <= value[1] <= high:
                    raise ValueError(
                        f'{setting.name} is {list(value)}; legal is a smaller and a larger value'
                        f' from {low:g} to {high:g}'
                    )
            elif not low <= value <= high:
                raise ValueError(f'{setting.name} is {value}; legal is {low:g} to {high:g}')
