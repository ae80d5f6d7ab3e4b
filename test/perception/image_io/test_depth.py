# SPDX-License-Identifier: Apache-2.0
"""Compressed depth images are decoded to metres, after a check of their format and size."""

from __future__ import annotations

import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.depth import DepthError, decode_depth, is_depth

SHAPE = (3, 4)
MILLIMETRES = np.arange(0, 12000, 1000, np.uint16).reshape(SHAPE)


def png(values: NDArray) -> bytes:
    return cv2.imencode('.png', values)[1].tobytes()


def config(a: float = 0.0, b: float = 0.0) -> bytes:
    """Returns the 12 bytes that compressed_depth_image_transport writes before the PNG."""
    return struct.pack('<iff', 0, a, b)


@pytest.mark.parametrize(
    ('kind', 'data'),
    [
        ('16UC1; compressedDepth', config() + png(MILLIMETRES)),
        ('16UC1; compressedDepth png', config() + png(MILLIMETRES)),
        ('16UC1; compressedDepth png', png(MILLIMETRES)),
        ('16UC1; png compressed ', png(MILLIMETRES)),
        ('mono16; compressedDepth png', config() + png(MILLIMETRES)),
        ('png', png(MILLIMETRES)),
    ],
)
def test_a_png_in_millimetres_is_decoded_to_metres(kind: str, data: bytes) -> None:
    metres = decode_depth(kind, data, SHAPE)
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, MILLIMETRES / 1000, rtol=1e-6)


def test_quantized_inverse_depth_is_decoded_to_metres_and_0_to_nan() -> None:
    """The encoder of compressed_depth_image_transport writes a / depth + b."""
    metres = np.array([[0.5, 1.0, 2.0, 4.0], [8.0, 1.5, 3.0, 6.0], [0.7, np.nan, np.nan, 1.1]])
    a, b = 100 * 101.0, 1 - 100 * 101.0 / 10.0
    coded = np.nan_to_num(a / metres + b).astype(np.uint16)
    coded[np.isnan(metres)] = 0
    found = decode_depth('32FC1; compressedDepth png', config(a, b) + png(coded), SHAPE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, metres, rtol=0.01)


@pytest.mark.parametrize(
    ('kind', 'data', 'reason'),
    [
        ('16UC1; compressedDepth rvl', config() + bytes(40), 'not compressed as PNG'),
        ('16UC1; compressedDepth png', b'', 'not compressed as PNG'),
        ('16UC1; compressedDepth png', config() + png(MILLIMETRES)[:20], 'not compressed as PNG'),
        ('16UC1; compressedDepth png', config() + png(MILLIMETRES)[:50], 'does not decode'),
        (
            '16UC1; compressedDepth png',
            config() + png(MILLIMETRES[:2]),
            'size differs from the image',
        ),
        (
            '16UC1; png compressed ',
            png(MILLIMETRES.astype(np.uint8)),
            'not 16 bits with one channel',
        ),
        (
            '16UC1; png compressed ',
            png(np.dstack([MILLIMETRES] * 3)),
            'not 16 bits with one channel',
        ),
        ('32FC1; compressedDepth png', png(MILLIMETRES), 'header of compressedDepth missing'),
        ('rgb8; png compressed ', png(MILLIMETRES), 'unknown encoding'),
    ],
)
def test_an_invalid_depth_image_is_rejected_with_the_reason(
    kind: str, data: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=f'^{reason}') as error:
        decode_depth(kind, data, SHAPE)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('a', 'b', 'reason', 'detail'),
    [
        (np.inf, -9.0, 'header of compressedDepth invalid', 'is inf, -9; both must be finite'),
        (np.nan, -9.0, 'header of compressedDepth invalid', 'is nan, -9; both must be finite'),
        (101.0, -np.inf, 'header of compressedDepth invalid', 'is 101, -inf; both must be finite'),
        (101.0, np.nan, 'header of compressedDepth invalid', 'is 101, nan; both must be finite'),
        (-101.0, -9.0, 'header of compressedDepth invalid', 'is -101, -9; .* the first above 0'),
        (0.0, 0.0, 'header of compressedDepth invalid', 'is 0, 0; .* the first above 0'),
        (101.0, 5000.0, 'negative depth', 'is 101, 5000; the second must be below'),
    ],
)
def test_a_header_that_gives_no_depth_or_negative_depth_is_rejected(
    a: float, b: float, reason: str, detail: str
) -> None:
    data = config(a, b) + png(MILLIMETRES)
    with pytest.raises(DepthError, match=f'^{reason}$') as error:
        decode_depth('32FC1; compressedDepth png', data, SHAPE)
    assert re.search(detail, error.value.detail)


def test_a_png_with_a_huge_size_in_its_header_is_rejected_before_it_is_decoded() -> None:
    data = bytearray(png(MILLIMETRES))
    data[16:24] = struct.pack('>II', 30000, 30000)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    with pytest.raises(ValueError, match='size differs from the image'):
        decode_depth('16UC1; png compressed ', bytes(data), SHAPE)


@pytest.mark.parametrize(
    ('kind', 'depth'),
    [
        ('16UC1; compressedDepth png', True),
        ('32FC1; compressedDepth rvl', True),
        ('16UC1; png compressed ', True),
        ('16uc1;png compressed', True),
        ('32FC1; tiff compressed ', True),
        ('rgb8; jpeg compressed bgr8', False),
        ('mono16; png compressed ', False),
        ('jpeg', False),
        ('', False),
    ],
)
def test_depth_images_are_recognized_by_their_format(kind: str, depth: bool) -> None:
    assert is_depth(kind) == depth
