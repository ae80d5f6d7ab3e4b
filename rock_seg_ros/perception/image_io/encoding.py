# SPDX-License-Identifier: Apache-2.0
"""Encoding of arrays as images."""

from __future__ import annotations

from typing import Any

import cv2
from numpy.typing import NDArray


class EncodingError(ValueError):
    """The format does not support the image; the message is one line."""


def encode_image(image: NDArray[Any], suffix: str, quality: int | None = None) -> bytes:
    """Encodes an image.

    Args:
        image: H×W, or H×W×3 RGB; uint8, or uint16 if the format supports it.
        suffix: File suffix of the format, such as '.png'.
        quality: Quality of a JPEG, 1 to 100; None = default of OpenCV.

    Raises:
        EncodingError: The format does not support the image; the sides of a JPEG have at most
            65,500 px.
    """
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    success, encoded = cv2.imencode(suffix, bgr, options)
    if not success:
        name = {'.jpg': 'JPEG'}.get(suffix, suffix[1:].upper())
        raise EncodingError(f'{name} does not support {image.shape[1]}×{image.shape[0]} pixels')
    return encoded.tobytes()
