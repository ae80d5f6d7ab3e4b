# SPDX-License-Identifier: Apache-2.0
"""Coded images (JPEG, PNG, TIFF and what else OpenCV and Pillow read) → arrays.

Format and size are read from the header first, and only what is within the limits is decoded.
"""

from __future__ import annotations

import importlib
import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from rock_seg_ros.perception.bit_depth import BitDepth
from rock_seg_ros.perception.tiff import Tiff

LARGEST_SIDE = 16384  # px
MAX_PIXELS = 100_000_000
LARGEST_FILE = 2**31  # bytes; more than an image within the limits needs

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


class PictureError(ValueError):
    """Data that is no picture; the message is one line."""


class ImageTooLargeError(PictureError):
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
        PictureError: It is none of the `FORMATS`.
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
        ImageTooLargeError: It has more pixels, or a side of more than `LARGEST_SIDE` px.
    """
    if max(width, height) > LARGEST_SIDE:
        raise ImageTooLargeError(f'{width}×{height}, a side has at most {LARGEST_SIDE} px')
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
        PictureError: The data does not decode.
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
        PictureError: The file does not decode, or is too large; the message names it.
        OSError: The file cannot be read.
    """
    try:
        return decode_rgb(_read_file(Path(path)), depth=depth, max_pixels=max_pixels)
    except PictureError as error:
        raise type(error)(f'{path}: {error}') from None


def read_grey(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Reads a mask file: H×W uint8.

    Raises:
        PictureError: The file does not decode, or is too large; the message names it.
        OSError: The file cannot be read.
    """
    try:
        content = _read_file(Path(path))
        header = read_header(content)
        check_size(header.width, header.height)
        grey = _decode(content, cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise _no_image(content)
    except PictureError as error:
        raise type(error)(f'{path}: {error}') from None
    return grey


def _read_file(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise PictureError('is no regular file')  # reading it could wait, or go on, for ever
    if status.st_size > LARGEST_FILE:
        raise PictureError(f'has {status.st_size} bytes, an image file at most {LARGEST_FILE}')
    return path.read_bytes()


def _no_image(content: bytes) -> PictureError:
    return PictureError(f'does not decode as a picture ({len(content)} bytes)')


def _open(content: bytes) -> Image.Image:
    """Opens an image with Pillow, which reads its header only."""
    try:
        return Image.open(io.BytesIO(content), formats=PILLOW_FORMATS)
    except Image.DecompressionBombError:
        raise ImageTooLargeError(
            f'more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels,'
            f' a side has at most {LARGEST_SIDE} px'
        ) from None
    except Exception:  # noqa: BLE001  (a damaged header makes Pillow's readers raise anything)
        raise _no_image(content) from None


def _for_opencv(content: bytes) -> bytes:
    tiff = Tiff(content)
    if tiff.deep_planes:
        raise PictureError('a TIFF with planes of 16 bits apart is not read; store them together')
    return tiff.for_opencv()


def _decode(content: bytes, flags: int) -> Any:
    """Decodes an image with OpenCV; None where it does not."""
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None
    if decoded is not None and decoded.dtype not in (np.uint8, np.uint16):
        raise PictureError(f'has {decoded.dtype} values; an image has uint8 or uint16')
    return decoded


def _decode_with_pillow(content: bytes, upright: bool) -> NDArray[Any]:
    """Decodes the first frame of an image to H×W×3 uint8 or uint16 RGB."""
    with _open(content) as opened:
        try:
            image = ImageOps.exif_transpose(opened) if upright else opened
            if image.mode.startswith('I;16'):
                return np.repeat(np.asarray(image, np.uint16)[..., None], 3, axis=2)
            return np.array(image.convert('RGB'))
        except Exception:  # noqa: BLE001  (as in _open)
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
