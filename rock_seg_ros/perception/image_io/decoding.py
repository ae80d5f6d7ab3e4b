# SPDX-License-Identifier: Apache-2.0
"""Coded images (JPEG, PNG, TIFF and what else OpenCV and Pillow read) → arrays.

Format and size are read from the header first, and only what is within the limits is decoded.
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
MAX_FILE_BYTES = 2**31  # bytes; more than an image within the limits needs

OPENCV_FORMATS = ('JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'PPM')
# Format → Pillow's module that reads it, and Pillow's name of the library that it needs.
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
# What Pillow and its plugins raise for broken data.
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
# Coefficients where a JPEG lacks some, passed over where it does not.
FILLER = bytes(range(1, 65))

# Our own limits are told by name.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def _pillow_formats() -> tuple[str, ...]:
    """Returns which of the formats the libraries that are installed read."""
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
    """Data that is no image; the message is one line."""


class ImageTooLargeError(ImageError):
    """An image with more pixels than may be, of which nothing but the header was read."""


class ImageHeader(NamedTuple):
    """What the first bytes say of an image.

    Attributes:
        format: Pillow's name of it.
        width: px.
        height: px.
    """

    format: str
    width: int
    height: int


def read_header(content: bytes) -> ImageHeader:
    """Reads format and size of a coded image, without decoding it.

    Raises:
        ImageTooLargeError: It has so many pixels that Pillow refuses it.
        ImageError: It is none of the `FORMATS`.
    """
    if content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
        try:
            tiff = Tiff(content)
        except ValueError:
            raise _no_image(content) from None
        return ImageHeader('TIFF', tiff.width, tiff.height)
    with _open(content) as image:
        return ImageHeader(str(image.format), *image.size)


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses an image that is too large.

    Args:
        width: px.
        height: px.
        max_pixels: Most pixels.

    Raises:
        ImageTooLargeError: It has more pixels, or a side of more than `MAX_SIDE` px.
    """
    if max(width, height) > MAX_SIDE:
        raise ImageTooLargeError(f'{width}×{height}, a side has at most {MAX_SIDE} px')
    if width * height > max_pixels:
        raise ImageTooLargeError(f'{width}×{height}, max_pixels is {max_pixels}')


def decode_rgb(
    data: Any,
    upright: bool = True,
    depth: BitDepth | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Decodes an image; 16 bits become 8, grey becomes colour, alpha is left out.

    Of several frames or pages it is the first.

    Args:
        data: The coded bytes, anything with a buffer.
        upright: Turn the image as its EXIF data say; a camera's calibration holds unturned.
        depth: How many bits the 16-bit images of its stream use; None = as this one shows.
        max_pixels: Larger images are not decoded.

    Returns:
        H×W×3 uint8 RGB, contiguous.

    Raises:
        ImageTooLargeError: The image has too many pixels.
        ImageError: The data does not decode.
    """
    content = bytes(data)
    header = read_header(content)
    check_size(header.width, header.height, max_pixels)
    if header.format not in OPENCV_FORMATS:
        rgb = _decode_with_pillow(content, upright)
    else:
        readable = _for_opencv(content) if header.format == 'TIFF' else content
        # Not IMREAD_COLOR_RGB: apt's OpenCV is older than it.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        bgr = _decode(readable, flags if upright else flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is not None:
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        elif header.format in ('JPEG', 'MPO'):
            rgb = _decode_unended_jpeg(content, upright)
        else:
            raise _no_image(content)
    return (depth or BitDepth()).to_eight_bits(rgb)


def read_rgb(
    path: str | os.PathLike[str], depth: BitDepth | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Reads an image file as `decode_rgb` does, upright.

    Raises:
        ImageError: The file does not decode, or is too large; the message names it.
        OSError: The file cannot be read.
    """
    try:
        return decode_rgb(read_file(path, MAX_FILE_BYTES), depth=depth, max_pixels=max_pixels)
    except ImageError as error:
        raise type(error)(f'{path}: {error}') from None


def read_label_image(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a label file as `decode_labels` does.

    Raises:
        ImageError: The file does not hold labels, or is too large; the message names it.
        OSError: The file cannot be read, or is not a regular file.
    """
    try:
        return decode_labels(read_file(path, MAX_FILE_BYTES))
    except ImageError as error:
        raise type(error)(f'{path}: {error}') from None


def decode_labels(data: bytes) -> NDArray[Any]:
    """Decodes a label image to the numbers that are stored in it.

    A palette gives its indices, 16 bits stay 16 bits. Grey of fewer than 8 bits is spread over 0
    to 255, so that white is 255 in any file. As images are, it is turned as its EXIF data say.

    Args:
        data: The coded bytes of one of `LABEL_FORMATS`.

    Returns:
        H×W uint8 or uint16.

    Raises:
        ImageTooLargeError: The image has too many pixels.
        ImageError: The data does not decode, has several channels, or holds other numbers.
    """
    header = read_header(data)
    check_size(header.width, header.height)
    try:
        # OpenCV gives a palette's colours and not its indices.
        with Image.open(io.BytesIO(data), formats=LABEL_FORMATS) as image:
            channels = len(image.getbands())
            if channels > 1:
                raise ImageError(f'has {channels} channels; labels are in one')
            values = np.asarray(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except PILLOW_ERRORS:
        raise ImageError(f'does not decode as a label image ({len(data)} bytes)') from None
    if values.dtype.kind == 'f':
        raise ImageError('has fractions; labels are whole numbers')
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.itemsize > 2 and not 0 <= values.min() <= values.max() <= 65535:
        raise ImageError(f'has values of {values.min()} to {values.max()}; labels are 0 to 65535')
    return values.astype(np.uint8 if values.dtype == np.uint8 else np.uint16)


def _no_image(content: bytes) -> ImageError:
    return ImageError(f'does not decode as an image ({len(content)} bytes)')


def _open(content: bytes) -> Image.Image:
    """Opens an image with Pillow, which reads its header only."""
    try:
        return Image.open(io.BytesIO(content), formats=PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error).partition(',')[0]) from None
    except PILLOW_ERRORS:
        raise _no_image(content) from None


def _for_opencv(content: bytes) -> bytes:
    tiff = Tiff(content)
    if tiff.deep_planes:
        raise ImageError('a TIFF with planes of 16 bits apart is not read; store them together')
    return tiff.for_opencv()


def _decode(content: bytes, flags: int) -> Any:
    """Decodes an image with OpenCV; None where it does not."""
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if decoded is not None and decoded.dtype not in (np.uint8, np.uint16):
        raise ImageError(f'has {decoded.dtype} values; an image has uint8 or uint16')
    return decoded


def _decode_with_pillow(content: bytes, upright: bool) -> NDArray[Any]:
    """Decodes the first frame of an image to H×W×3 uint8 or uint16 RGB."""
    with _open(content) as opened:
        try:
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith('I;16'):
                return np.repeat(np.asarray(image, np.uint16)[..., None], 3, axis=2)
            return np.array(image.convert('RGB'))
        except PILLOW_ERRORS:
            raise _no_image(content) from None


def _decode_unended_jpeg(content: bytes, upright: bool) -> NDArray[np.uint8]:
    """Decodes a JPEG that lacks nothing but its end marker, as some cameras write.

    What follows the last coefficient is passed over, what follows a missing one is seen.
    """
    content = content.removesuffix(END_OF_JPEG[:1])
    whole = _decode_with_pillow(content + END_OF_JPEG, upright)
    if not np.array_equal(whole, _decode_with_pillow(content + FILLER + END_OF_JPEG, upright)):
        raise _no_image(content)
    return whole
