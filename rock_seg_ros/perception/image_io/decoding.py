# SPDX-License-Identifier: Apache-2.0
"""Decoding of images (JPEG, PNG, TIFF and other formats of OpenCV and Pillow) to arrays.

The format and the size are read from the header first. Images that are too large are not decoded.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
import warnings
import zlib
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from rock_seg_ros.perception.files import read_file
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.tiff import Tiff

MAX_SIDE = 16384  # px
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 2**31  # bytes; an image within the limits is smaller

OPENCV_FORMATS = ('JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'PPM')
# Format → the module that reads it, and the name of the library that it needs in Pillow.
PLUGINS = {
    'JPEG': ('PIL.JpegImagePlugin', ''),
    'PNG': ('PIL.PngImagePlugin', ''),
    'BMP': ('PIL.BmpImagePlugin', ''),
    'WEBP': ('PIL.WebPImagePlugin', 'webp'),
    'PPM': ('PIL.PpmImagePlugin', ''),
    'GIF': ('PIL.GifImagePlugin', ''),
    'JPEG2000': ('PIL.Jpeg2KImagePlugin', 'jpg_2000'),
    'AVIF': ('PIL.AvifImagePlugin', 'avif'),
    'HEIF': ('pillow_heif', ''),
}
LABEL_FORMATS = ('PNG', 'TIFF', 'BMP', 'GIF', 'PPM', 'JPEG', 'WEBP')  # others may start programs
# Exceptions of Pillow and its plugins for damaged data.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
END_OF_JPEG = b'\xff\xd9'
# Data after the last coefficient. Decoders ignore it, unless coefficients are missing.
FILLER = bytes(range(1, 65))

# `check_size` checks the size of images.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def _pillow_formats() -> tuple[str, ...]:
    """Returns the formats that the installed libraries read."""
    formats = []
    for name, (module, feature) in PLUGINS.items():
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            continue
        if name == 'HEIF':
            plugin.register_heif_opener()
        if not feature or features.check(feature):
            formats.append(name)
    return tuple(formats)


PILLOW_FORMATS = _pillow_formats()
FORMATS = (*PILLOW_FORMATS, 'TIFF')


class ImageError(ValueError):
    """The data is not a valid image; the message is one line."""


class ImageTooLargeError(ImageError):
    """The image has too many pixels; it was not decoded."""


class ImageHeader(NamedTuple):
    """The header of an image.

    Attributes:
        format: Name of the format in Pillow.
        width: Width, px.
        height: Height, px.
    """

    format: str
    width: int
    height: int


def read_header(content: bytes) -> ImageHeader:
    """Reads the format and the size of an encoded image, without decoding it.

    Raises:
        ImageTooLargeError: The image exceeds the limit of Pillow.
        ImageError: The data is not an image of one of the `FORMATS`.
    """
    if content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        try:
            tiff = Tiff(content)
        except ValueError:
            raise _invalid_image(content) from None
        return ImageHeader('TIFF', tiff.width, tiff.height)
    with _open(content) as image:
        return ImageHeader(str(image.format), *image.size)


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Checks the size of an image.

    Args:
        width: Width, px.
        height: Height, px.
        max_pixels: Maximum number of pixels.

    Raises:
        ImageTooLargeError: The image has more pixels, or a side is longer than `MAX_SIDE`.
    """
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(f'{width}×{height}; the maximum side is {MAX_SIDE} px')
    if width * height > max_pixels:
        raise ImageTooLargeError(f'{width}×{height}; max_pixels is {max_pixels}')


def decode_rgb(
    data: Any,
    upright: bool = True,
    depth: BitDepth | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Decodes an image to 8-bit RGB. Alpha is discarded; of several frames, the first is decoded.

    Args:
        data: The encoded image, an object with the buffer protocol.
        upright: Whether the image is rotated according to its EXIF data. The calibration of a
            camera is valid for images that are not rotated.
        depth: Bit depth of 16-bit images of the stream; None = it is found from this image alone.
        max_pixels: Maximum number of pixels.

    Returns:
        H×W×3 uint8 RGB, contiguous.

    Raises:
        ImageTooLargeError: The image has too many pixels.
        ImageError: The data cannot be decoded.
    """
    content = bytes(data)
    header = read_header(content)
    check_size(header.width, header.height, max_pixels)
    if header.format not in OPENCV_FORMATS or (header.format == 'PPM' and _is_dim_ppm(content)):
        rgb = _decode_with_pillow(content, upright)
    elif header.format == 'TIFF':
        rgb = _decode_tiff(content, upright)
    else:
        rgb = _decode(content, upright)
        if rgb is None and header.format in ('JPEG', 'MPO'):
            rgb = _decode_jpeg_without_end(content, upright)
    if rgb is None:
        raise _invalid_image(content)
    return (depth or BitDepth()).to_eight_bits(rgb)


def read_rgb(
    path: str | os.PathLike[str], depth: BitDepth | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Reads an image file as `decode_rgb` does, upright.

    Raises:
        ImageError: The file cannot be decoded, or is too large; the message names it.
        OSError: The file cannot be read.
    """
    try:
        return decode_rgb(read_file(path, MAX_FILE_BYTES), depth=depth, max_pixels=max_pixels)
    except ImageError as error:
        raise type(error)(f'{path}: {error}') from None


def read_label_image(path: str | os.PathLike[str], palette_indices: bool = True) -> NDArray[Any]:
    """Reads a label file as `decode_labels` does.

    Raises:
        ImageError: The file is not a label image, or is too large; the message names it.
        OSError: The file cannot be read, or is not a regular file.
    """
    try:
        return decode_labels(read_file(path, MAX_FILE_BYTES), palette_indices)
    except ImageError as error:
        raise type(error)(f'{path}: {error}') from None


def decode_labels(data: bytes, palette_indices: bool = True) -> NDArray[Any]:
    """Decodes a label image to its pixel values.

    A palette image gives its indices, 16-bit values are kept. Grey values with fewer than 8 bits
    are scaled to 0 to 255, so that white is 255. The image is rotated according to its EXIF data.

    Args:
        data: The encoded image, of one of the `LABEL_FORMATS`.
        palette_indices: Whether a palette image gives its indices; false = the grey values of its
            colours, as in an ignore mask, where the order of the palette has no meaning.

    Returns:
        H×W uint8 or uint16.

    Raises:
        ImageTooLargeError: The image has too many pixels.
        ImageError: The data cannot be decoded, or it has several channels or invalid values.
    """
    header = read_header(data)
    check_size(header.width, header.height)
    try:
        # OpenCV would return the colours of a palette instead of its indices.
        with Image.open(io.BytesIO(data), formats=LABEL_FORMATS) as image:
            channels = len(image.getbands())
            if channels > 1:
                raise ImageError(f'a label image must have 1 channel, not {channels}')
            upright = ImageOps.exif_transpose(image)
            if image.mode == 'P' and not palette_indices:
                upright = upright.convert('L')
            values = np.asarray(upright)
    except ImageError:
        raise
    except PILLOW_ERRORS:
        raise ImageError(f'does not decode as a label image ({len(data)} bytes)') from None
    if values.dtype.kind == 'f':
        raise ImageError('has floating-point values; labels must be integers')
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.itemsize > 2 and not 0 <= values.min() <= values.max() <= 65535:
        raise ImageError(f'labels must be 0 to 65535, not {values.min()} to {values.max()}')
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)


def _invalid_image(content: bytes) -> ImageError:
    return ImageError(f'does not decode as an image ({len(content)} bytes)')


def _open(content: bytes) -> Image.Image:
    """Opens an image with Pillow, which reads only the header."""
    try:
        return Image.open(io.BytesIO(content), formats=PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error).partition(',')[0]) from None
    except PILLOW_ERRORS:
        raise _invalid_image(content) from None


def _is_dim_ppm(content: bytes) -> bool:
    """Whether white is less than 255 in a binary PPM; OpenCV does not scale the values."""
    with _open(content) as image:
        codec, _, _, options = image.tile[0]  # type: ignore[attr-defined]
    return codec == 'ppm' and options[1] < 255


def _decode_tiff(content: bytes, upright: bool) -> Any:
    """Decodes a TIFF like `_decode`, with the tags that OpenCV misinterprets corrected."""
    tiff = Tiff(content)
    if tiff.deep_planes:
        raise ImageError('a 16-bit TIFF must have a chunky layout, not separate planes')
    rgb = _decode(tiff.for_opencv(), upright)
    if rgb is not None and rgb.dtype == np.uint16 and tiff.deep_white_is_zero:
        return (2**tiff.bits - 1) - rgb
    return rgb


def _decode(content: bytes, upright: bool) -> Any:
    """Decodes an image with OpenCV; returns None if OpenCV cannot decode it.

    Returns:
        H×W×3 uint8 or uint16 RGB.
    """
    # The OpenCV of apt does not have IMREAD_COLOR_RGB.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    flags |= 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if bgr is None:
        return None
    if bgr.dtype not in (np.uint8, np.uint16):
        raise ImageError(f'the values of an image must be uint8 or uint16, not {bgr.dtype}')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _decode_with_pillow(content: bytes, upright: bool) -> NDArray[Any]:
    """Decodes the first frame of an image to H×W×3 uint8 or uint16 RGB."""
    with _open(content) as opened:
        try:
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith('I;16'):
                return np.repeat(np.asarray(image, np.uint16)[..., None], 3, axis=2)
            return np.array(image.convert('RGB'))
        except PILLOW_ERRORS:
            raise _invalid_image(content) from None


def _decode_jpeg_without_end(content: bytes, upright: bool) -> NDArray[np.uint8]:
    """Decodes a JPEG without an end marker, as some cameras write it.

    Such an image is complete if data after it does not change it; otherwise it is rejected.
    """
    content = content.removesuffix(END_OF_JPEG[:1])
    image = _decode_with_pillow(content + END_OF_JPEG, upright)
    if not np.array_equal(image, _decode_with_pillow(content + FILLER + END_OF_JPEG, upright)):
        raise _invalid_image(content)
    return image
