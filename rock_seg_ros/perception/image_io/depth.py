# SPDX-License-Identifier: Apache-2.0
"""Decoding of the depth images of compressed_depth_image_transport and image_transport.

https://github.com/ros-perception/image_transport_plugins/tree/rolling/compressed_depth_image_transport
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ENCODINGS = ('16UC1', '32FC1')
TRANSPORTS = ('compressedDepth', 'compressed')  # last parts of the names of such topics
CONFIG = struct.Struct('<iff')  # precedes the PNG: quantization method and its two parameters
PNG = b'\x89PNG\r\n\x1a\n'
PNG_HEADER = struct.Struct('>8s4s4sIIBB')  # signature, IHDR, width, height, bits, colour type
SIXTEEN_BITS_GREY = (16, 0)


class DepthError(ValueError):
    """A compressed depth image is invalid. The message has no values, so equal ones are counted.

    Attributes:
        detail: The values, for the log; '' = none.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        """Creates the error with the message `reason`."""
        super().__init__(reason)
        self.detail = detail


def is_depth(kind: str) -> bool:
    """Returns whether the `format` of a sensor_msgs/CompressedImage is that of a depth image."""
    return 'compressedDepth' in kind or _encoding(kind) in ENCODINGS


def decode_depth(kind: str, data: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Decodes a depth image.

    Args:
        kind: `format` of the sensor_msgs/CompressedImage.
        data: A 16-bit PNG, with or without the header of 12 bytes, as an object with the buffer
            protocol. The values are millimetres, or for 32FC1 the quantized inverse depth.
        shape: Height and width of the image, px.

    Returns:
        H×W float32, m; NaN or 0 where the depth is unknown.

    Raises:
        DepthError: The data is not a valid depth image.
    """
    content = bytes(data)
    has_config = not content.startswith(PNG)
    coded = content[CONFIG.size if has_config else 0 :]
    if not coded.startswith(PNG) or len(coded) < PNG_HEADER.size:
        raise DepthError('not compressed as PNG')
    _, _, _, width, height, *pixel = PNG_HEADER.unpack_from(coded)
    if (height, width) != shape:
        raise DepthError('size differs from the image')
    if tuple(pixel) != SIXTEEN_BITS_GREY:
        raise DepthError('not 16 bits with one channel')
    encoding = _encoding(kind)
    if ';' in kind and encoding not in (*ENCODINGS, 'MONO16'):
        raise DepthError('unknown encoding')
    if encoding == '32FC1' and not has_config:
        raise DepthError('header of compressedDepth missing')
    values = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise DepthError('does not decode')
    if encoding != '32FC1':
        return np.multiply(values, np.float32(0.001), dtype=np.float32)
    _, scale, offset = CONFIG.unpack_from(content)
    quantization = f'the quantization of the inverse depth is {scale:g}, {offset:g}'
    if not (np.isfinite((scale, offset)).all() and scale > 0):
        raise DepthError(
            'header of compressedDepth invalid',
            f'{quantization}; both must be finite, and the first above 0',
        )
    known = values > 0
    inverse = values - np.float32(offset)
    if (inverse[known] < 0).any():
        raise DepthError(
            'negative depth', f'{quantization}; the second must be below the values of the image'
        )
    metres = np.full(shape, np.nan, np.float32)
    return np.divide(scale, inverse, out=metres, where=known & (inverse > 0))


def _encoding(kind: str) -> str:
    return kind.partition(';')[0].strip().upper()
