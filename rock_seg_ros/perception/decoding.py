# SPDX-License-Identifier: Apache-2.0
"""Coded pictures (JPEG, PNG and what else OpenCV reads) → arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class PictureError(ValueError):
    """Data that is no picture; the message is one line."""


def decode_rgb(data: Any, upright: bool = True) -> NDArray[np.uint8]:
    """Decodes a picture; 16 bits become 8, grey becomes colour, alpha is left out.

    Args:
        data: The coded bytes, anything with a buffer.
        upright: Turn the picture as its EXIF data say; a camera's calibration holds unturned.

    Returns:
        H×W×3 uint8 RGB, contiguous.

    Raises:
        PictureError: The data does not decode.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    # Not IMREAD_COLOR_RGB: apt's OpenCV is older than it.
    return cv2.cvtColor(_decode(data, flags), cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a picture file as `decode_rgb` does, upright.

    Raises:
        PictureError: The file does not decode; the message names it.
        OSError: The file cannot be read.
    """
    try:
        return decode_rgb(Path(path).read_bytes())
    except PictureError as error:
        raise PictureError(f'{path}: {error}') from None


def read_grey(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a mask file: H×W uint8.

    Raises:
        PictureError: The file does not decode; the message names it.
        OSError: The file cannot be read.
    """
    try:
        return _decode(Path(path).read_bytes(), cv2.IMREAD_GRAYSCALE)
    except PictureError as error:
        raise PictureError(f'{path}: {error}') from None


def _decode(data: Any, flags: int) -> NDArray[np.uint8]:
    coded = np.frombuffer(data, np.uint8)
    try:
        decoded = cv2.imdecode(coded, flags) if coded.size else None
    except cv2.error:
        decoded = None
    if decoded is None:
        raise PictureError(f'does not decode as a picture ({coded.size} bytes)')
    return decoded  # type: ignore[return-value]
