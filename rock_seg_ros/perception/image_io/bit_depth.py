# SPDX-License-Identifier: Apache-2.0
"""Conversion of 16-bit images to 8 bits; many cameras use only the low 10 or 12 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_BITS = 16
STEPS = (8, 10, 12, 14, MAX_BITS)  # bit depths of common sensors and converters
CHOICES = (0, *range(8, MAX_BITS + 1))  # 0 = automatic


class BitDepth:
    """The number of bits that the 16-bit images of one stream use.

    If it is automatic, it is the smallest of `STEPS` that holds all values of the stream so far. A
    dark image after bright ones is scaled as those were, so that the brightness does not flicker.

    Attributes:
        significant_bits: Number of bits, 8 to 16; 0 = automatic. It may be set at any time.
    """

    def __init__(
        self, significant_bits: int = 0, warn: Callable[[str], object] = lambda _: None
    ) -> None:
        """Starts with no image.

        Args:
            significant_bits: Number of bits, 8 to 16; 0 = automatic.
            warn: Called with one line if the images use fewer than 16 bits, or the number changes.
        """
        self.significant_bits = significant_bits
        self._warn = warn
        self._bits_so_far = 0

    def to_eight_bits(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Scales an image to 8 bits; an image with 8 bits is returned unchanged.

        Args:
            image: H×W×3 uint8 or uint16, without alpha.

        Returns:
            H×W×3 uint8; values that exceed the number of bits become 255.
        """
        if image.dtype == np.uint8:
            return image
        bits = self.significant_bits or self._automatic_bits(image)
        return cv2.convertScaleAbs(image, alpha=255 / (2**bits - 1))  # type: ignore[return-value]

    def _automatic_bits(self, image: NDArray[np.uint16]) -> int:
        """Returns the bits that hold all values of the stream so far, including this image."""
        if self._bits_so_far < MAX_BITS and (largest := int(image.max())):
            bits = next(step for step in STEPS if largest < 2**step)
            if bits > self._bits_so_far:
                if bits < MAX_BITS or self._bits_so_far:
                    self._warn(f'16-bit values up to {largest} are scaled as {bits} bits')
                self._bits_so_far = bits
        return self._bits_so_far or MAX_BITS
