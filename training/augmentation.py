# SPDX-License-Identifier: Apache-2.0
"""Augmentation settings: probabilities and ranges of the random changes of a crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

# Valid ranges of the fields whose range is not 0 to 1.
RANGES = {
    'aspect': (0.01, 100.0),
    'rotation': (0.0, 180.0),
    'hue': (0.0, 0.5),
    'exposure': (0.001, 1000.0),
    'gamma': (0.01, 100.0),
    'white_balance': (0.01, 100.0),
    'blur': (0.01, 100.0),
    'motion_blur': (1.0, 1000.0),
    'resolution': (0.01, 1.0),
    'noise': (0.0, 255.0),
    'jpeg': (1.0, 100.0),
    'paste_count': (1.0, math.inf),
    'paste_scale': (0.01, 100.0),
    'paste_softness': (0.01, 100.0),
}


@dataclass
class AugmentationConfig:
    """Probabilities and ranges of the random changes of a crop.

    A field that ends in `_p` is a probability, 0 to 1; 0 turns that change off. A pair is the range
    of a random draw.

    Attributes:
        aspect: Aspect ratio (width / height) of a crop before it is scaled to a square, above 0.
        horizontal_flip_p: Probability of a horizontal flip.
        vertical_flip_p: Probability of a vertical flip; use it for cameras that point straight
            down.
        rotation: Maximum rotation in either direction, degrees, 0 to 180.
        rotation_p: Probability of a rotation.
        perspective: Maximum shift of the corners, as a share of half the side, 0 to 1.
        perspective_p: Probability of a perspective distortion.
        brightness: The brightness factor is 1 ± this value, 0 to 1.
        contrast: The contrast factor is 1 ± this value, 0 to 1.
        saturation: The saturation factor is 1 ± this value, 0 to 1.
        hue: Maximum hue shift in either direction, as a share of the colour circle, 0 to 0.5.
        exposure: Factor on pixel values, drawn log-uniformly, above 0; below 1 the image is darker.
        exposure_p: Probability of a change of exposure.
        gamma: Exponent on pixel values, drawn log-uniformly, above 0.
        gamma_p: Probability of a gamma change.
        white_balance: Factor per channel, drawn log-uniformly, above 0.
        white_balance_p: Probability of a change of white balance.
        blur: Standard deviation of a Gaussian blur, px, above 0.
        blur_p: Probability of a blur.
        motion_blur: Length of a motion blur in a random direction, px, 1 or more.
        motion_blur_p: Probability of a motion blur.
        resolution: Factor by which an image is scaled down before it is scaled up again, above 0 to
            1.
        resolution_p: Probability of a lower resolution.
        noise: Maximum standard deviation of Gaussian noise, in pixel values, 0 to 255.
        noise_p: Probability of noise.
        grey_p: Probability of a grey image.
        jpeg: JPEG quality, 1 to 100.
        jpeg_p: Probability of JPEG compression.
        paste_p: Probability of pasting rocks of another image.
        paste_count: Maximum number of rocks pasted into one image, 1 or more.
        paste_scale: Scale factor of a pasted rock, drawn log-uniformly, above 0.
        paste_softness: Standard deviation of the soft border of a pasted rock, px, above 0.
        paste_tint_p: Probability that a pasted rock is tinted towards its new background.
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
    motion_blur: tuple[float, float] = (3.0, 21.0)
    motion_blur_p: float = 0.15
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
        """Checks the values; raises ValueError for one outside its range."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            low, high = RANGES.get(setting.name, (0.0, 1.0))
            if isinstance(value, (tuple, list)):
                if not low <= value[0] <= value[1] <= high:
                    raise ValueError(
                        f'{setting.name} is {list(value)}; it must be two values in ascending order'
                        f' from {low:g} to {high:g}'
                    )
            elif not low <= value <= high:
                raise ValueError(f'{setting.name} is {value}; it must be {low:g} to {high:g}')
