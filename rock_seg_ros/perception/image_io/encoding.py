# SPDX-License-Identifier: Apache-2.0
"""Arrays → coded images."""

from __future__ import annotations

from typing import Any

import cv2
from numpy.typing import NDArray


class EncodingError(ValueError):
    """An image that a format cannot hold; the message is one line."""


def encode_image(image: NDArray[Any], suffix: str, quality: int | None = None) -> bytes:
    """Codes an image.

    Args:
        image: H×W, or H×W×3 RGB; uint8, or uint16 where the format has it.
        suffix: Says the format, such as '.png'.
        quality: Of JPEG, 1 to 100; None = OpenCV's default.

    Raises:
        EncodingError: The format cannot hold it: JPEG has sides of at most 65,500 px.
    """
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, coded = cv2.imencode(suffix, bgr, options)
    if not done:
        name = {'.jpg': 'JPEG'}.get(suffix, suffix[1:].upper())
        raise EncodingError(f'{name} cannot hold {image.shape[1]}×{image.shape[0]} pixels')
    return coded.tobytes()
