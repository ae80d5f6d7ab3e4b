# SPDX-License-Identifier: Apache-2.0
"""16-bit images, of which cameras often use the low 10 or 12 bits only → 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FULL = 16
STEPS = (8, 10, 12, 14, FULL)  # what sensors and converters have
CHOICES = (0, *range(8, FULL + 1))  # 0 = auto


class BitDepth:
    """How many bits the 16-bit images of one stream use.

    Where it is not given, it is the fewest of `STEPS` that hold every value the stream has shown:
    a dark image after bright ones is scaled as they were, so that brightness does not flicker.

    Attributes:
        given: Bits, 8 to 16; 0 = as the stream shows. May be set at any time.
    """

    def __init__(self, given: int = 0, warn: Callable[[str], object] = lambda _: None) -> None:
        """Starts with a stream that has shown nothing.

        Args:
            given: Bits, 8 to 16; 0 = as the stream shows.
            warn: Told in one line of fewer bits than 16, and of a scale that changes.
        """
        self.given = given
        self._warn = warn
        self._shown = 0

    def to_eight_bits(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Scales an image to 8 bits; one of 8 bits is returned as it is.

        Args:
            image: H×W×3 uint8 or uint16, without alpha.

        Returns:
            H×W×3 uint8; larger values than the bits hold become 255.
        """
        if image.dtype == np.uint8:
            return image
        bits = self.given or self._bits_of(image)
        return cv2.convertScaleAbs(image, alpha=255 / (2**bits - 1))  # type: ignore[return-value]

    def _bits_of(self, image: NDArray[np.uint16]) -> int:
        """Returns the bits that hold what the stream has shown, this image included."""
        if self._shown < FULL and (largest := int(image.max())):
            bits = next(step for step in STEPS if largest < 2**step)
            if bits > self._shown:
                if bits < FULL or self._shown:
                    self._warn(f'16-bit values up to {largest} are scaled as {bits} bits')
                self._shown = bits
        return self._shown or FULL
