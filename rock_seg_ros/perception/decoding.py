# SPDX-License-Identifier: Apache-2.0
"""Coded pictures (JPEG, PNG and what else OpenCV reads) → arrays."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rock_seg_ros.perception.files import read_file

LABEL_FORMATS = ('PNG', 'TIFF', 'BMP', 'GIF', 'PPM', 'JPEG', 'WEBP')  # others may start programs
# What Pillow raises for broken data.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


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


def read_grey(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a label file as `decode_labels` does.

    Raises:
        PictureError: The file does not hold labels; the message names it.
        OSError: The file cannot be read, or is no regular file.
    """
    try:
        return decode_labels(read_file(path))
    except PictureError as error:
        raise PictureError(f'{path}: {error}') from None


def decode_labels(data: bytes) -> NDArray[Any]:
    """Decodes a label image to the numbers that are stored in it.

    A palette gives its indices, 16 bits stay 16 bits. Grey of fewer than 8 bits is spread over 0
    to 255, so that white is 255 in any file. As pictures are, it is turned as its EXIF data say.

    Args:
        data: The coded bytes of one of `LABEL_FORMATS`.

    Returns:
        H×W uint8 or uint16.

    Raises:
        PictureError: The data does not decode, has several channels, or holds other numbers.
    """
    try:
        # OpenCV gives a palette's colours and not its indices.
        with Image.open(io.BytesIO(data), formats=LABEL_FORMATS) as image:
            channels = len(image.getbands())
            if channels > 1:
                raise PictureError(f'has {channels} channels; labels are in one')
            values = np.asarray(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise PictureError(f'is too large: {error}') from None
    except PictureError:
        raise
    except PILLOW_ERRORS:
        raise PictureError(f'does not decode as a label image ({len(data)} bytes)') from None
    if values.dtype.kind == 'f':
        raise PictureError('has fractions; labels are whole numbers')
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.itemsize > 2 and not 0 <= values.min() <= values.max() <= 65535:
        raise PictureError(f'has values of {values.min()} to {values.max()}; labels are 0 to 65535')
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)


def _decode(data: Any, flags: int) -> NDArray[np.uint8]:
    coded = np.frombuffer(data, np.uint8)
    try:
        decoded = cv2.imdecode(coded, flags) if coded.size else None
    except cv2.error:
        decoded = None
    if decoded is None:
        raise PictureError(f'does not decode as a picture ({coded.size} bytes)')
    return decoded  # type: ignore[return-value]
