# SPDX-License-Identifier: Apache-2.0
"""Conversion between sensor_msgs images and arrays, without copies where possible."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import (
    MAX_PIXELS,
    ImageError,
    ImageTooLargeError,
    check_size,
    decode_rgb,
)


class InvalidImageError(ValueError):
    """An image message is invalid, too large or too old.

    Attributes:
        reason: The reason, under which the image is counted as rejected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        """Creates the error with the message 'REASON: DETAIL'."""
        super().__init__(f'{reason}: {detail}')
        self.reason = reason


# Encoding → (channels, bytes per channel, OpenCV's conversion to RGB; None = RGB already).
# cv_bridge is not used: depending on the installation it is missing, fails with NumPy 2, or does
# not support all encodings. BGR is converted, because a reversed view makes every later step that
# needs contiguous bytes 70 times as slow as the conversion.
ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    'rgb8': (3, 1, None),
    'bgr8': (3, 1, cv2.COLOR_BGR2RGB),
    '8UC3': (3, 1, cv2.COLOR_BGR2RGB),
    'mono8': (1, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, 1, cv2.COLOR_GRAY2RGB),
    'rgba8': (4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, 1, cv2.COLOR_BGRA2RGB),
    '8UC4': (4, 1, cv2.COLOR_BGRA2RGB),
    'mono16': (1, 2, cv2.COLOR_GRAY2RGB),
    '16UC1': (1, 2, cv2.COLOR_GRAY2RGB),
    'rgb16': (3, 2, None),
    'bgr16': (3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': (4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': (4, 2, cv2.COLOR_BGRA2RGB),
    '16UC3': (3, 2, cv2.COLOR_BGR2RGB),
    '16UC4': (4, 2, cv2.COLOR_BGRA2RGB),
    'bayer_rggb8': (1, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, 1, cv2.COLOR_BayerGB2RGB),
    'bayer_rggb16': (1, 2, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr16': (1, 2, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg16': (1, 2, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg16': (1, 2, cv2.COLOR_BayerGB2RGB),
    'yuv422': (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, 1, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (2, 1, cv2.COLOR_YUV2RGB_YUY2),
}
YUV_PAIRS = (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2RGB_YUY2)
# Encoding → OpenCV's conversion of a luma plane and a plane of chroma pairs.
YUV_PLANES = {
    'nv12': cv2.COLOR_YUV2RGB_NV12,
    'nv21': cv2.COLOR_YUV2RGB_NV21,
    'nv24': cv2.COLOR_YUV2RGB_NV12,
    'i420': cv2.COLOR_YUV2RGB_NV12,
}
NAMES = {name.lower(): name for name in (*ENCODINGS, *YUV_PLANES)}


class ImageReader:
    """Converts the image messages of one camera to H×W×3 RGB arrays.

    Attributes:
        bit_depth: The number of bits that 16-bit images use.
        max_pixels: Maximum number of pixels; larger images are rejected before they are decoded.
            It may be set at any time.
    """

    def __init__(
        self,
        warn: Callable[[str], object],
        significant_bits: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Starts with no image received.

        Args:
            warn: Called with one line that describes how 16-bit images are scaled.
            significant_bits: Number of bits that 16-bit images use, 8 to 16; 0 = automatic.
            max_pixels: Maximum number of pixels; larger images are rejected.
        """
        self.bit_depth = BitDepth(significant_bits, warn)
        self.max_pixels = max_pixels

    def read(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        """Reads an Image or CompressedImage.

        Args:
            message: An Image with an encoding of `ENCODINGS` or `YUV_PLANES` (upper or lower
                case), or a CompressedImage in a format that `decode_rgb` reads.

        Returns:
            H×W×3 uint8 RGB. For rgb8 it is a view of the message's data, whose rows may be padded.

        Raises:
            InvalidImageError: The encoding is unknown, the step is wrong, the data is too short or
                cannot be decoded, or the image is empty or too large.
        """
        try:
            if isinstance(message, Image):
                return self._read_raw(message)
            rgb = decode_rgb(message.data, False, self.bit_depth, self.max_pixels)
            return _without_mosaic(rgb, message.format)
        except ImageTooLargeError as error:
            raise InvalidImageError('too large', str(error)) from None
        except ImageError as error:
            raise InvalidImageError(
                'not decodable', f'format {message.format!r}: {error}'
            ) from None

    def _read_raw(self, message: Image) -> NDArray[np.uint8]:
        if not message.height or not message.width:
            raise InvalidImageError('zero size', f'{message.width}×{message.height}')
        check_size(message.width, message.height, self.max_pixels)
        encoding = NAMES.get(message.encoding.lower())
        if encoding is None:
            raise InvalidImageError(
                'unknown encoding', f'{message.encoding!r}; expected: {", ".join(NAMES.values())}'
            )
        if encoding in YUV_PLANES:
            luma, chroma = _planes(message, encoding)
            return _convert_planes(luma, chroma, YUV_PLANES[encoding])
        channels, size, conversion = ENCODINGS[encoding]
        stored = _view(message, channels, size)
        try:
            return self.bit_depth.to_eight_bits(_convert(stored, conversion))
        except cv2.error as error:
            detail = f'{message.encoding}: {first_line(error)}'
            raise InvalidImageError('not convertible', detail) from None


def read_depth(message: Image) -> NDArray[np.float32]:
    """Reads a depth image (REP 118).

    Args:
        message: A message with the encoding 16UC1 or mono16 (mm), or 32FC1 (m).

    Returns:
        H×W float32, m. Pixels without depth are not finite, or 0 or less. For 32FC1 it is a view of
        the message's data.

    Raises:
        InvalidImageError: The encoding is unknown, the step is wrong, the data is too short, or the
            image is empty.
    """
    if not message.height or not message.width:
        raise InvalidImageError('zero size', f'{message.width}×{message.height}')
    encoding = message.encoding.lower()
    if encoding in ('16uc1', 'mono16'):
        return np.multiply(_view(message, 1, 2)[..., 0], np.float32(0.001), dtype=np.float32)
    if encoding != '32fc1':
        raise InvalidImageError(
            'unknown encoding', f'{message.encoding!r}; expected: 16UC1, mono16 or 32FC1'
        )
    stored = _view(message, 1, 4)[..., 0]
    metres = stored.view(stored.dtype.str.replace('u', 'f'))
    return metres.astype(np.float32, copy=False)


def to_message(array: NDArray[Any], encoding: str, header: Header) -> Image:
    """Returns an Image; the data is copied once.

    Args:
        array: H×W or H×W×3 uint8, or H×W uint16.
        encoding: 'mono8', 'rgb8' or 'mono16'.
        header: Header of the message.
    """
    message = Image(header=header, height=array.shape[0], width=array.shape[1], encoding=encoding)
    message.step = array[0].nbytes
    message.is_bigendian = int(sys.byteorder == 'big')
    fill(message, array)
    return message


def fill(message: Any, array: NDArray[Any]) -> None:
    """Copies the bytes of an array into the field `data` of a message."""
    if array.size:
        message.data.frombytes(np.ascontiguousarray(array).data.cast('B'))


def _view(message: Image, channels: int, size: int) -> NDArray[Any]:
    """Returns a view of the message's data as H×W×channels, without the padding of the rows.

    Args:
        message: The message.
        channels: Number of channels.
        size: Bytes per channel.
    """
    row = message.width * channels * size
    _check_step(message, row)
    _check_length(message, message.step * (message.height - 1) + row)
    dtype = np.dtype(f'u{size}')
    if size > 1:
        dtype = dtype.newbyteorder('>' if message.is_bigendian else '<')
    shape = (message.height, message.width, channels)
    return np.ndarray(shape, dtype, message.data, 0, (message.step, channels * size, size))


def _planes(message: Image, encoding: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns views of the luma, H×W, and of the chroma pairs, H×W×2 or about H/2×W/2×2."""
    height, width = message.height, message.width
    layout = _layout(message, encoding)
    start = layout.step * height

    def view(shape: tuple[int, ...], offset: int, *strides: int) -> NDArray[np.uint8]:
        return np.ndarray(shape, np.uint8, message.data, offset, strides)

    luma = view((height, width), 0, layout.step, 1)
    shape = (layout.rows, layout.columns)
    if encoding != 'i420':
        return luma, view((*shape, 2), start, layout.chroma_step, 2, 1)
    pitch = layout.chroma_step // 2
    blue, red = (view(shape, start + n * layout.rows * pitch, pitch, 1) for n in (0, 1))
    return luma, cv2.merge((blue, red))  # type: ignore[return-value]


class _Layout(NamedTuple):
    """Where the planes of an image are.

    Attributes:
        step: Bytes from one row of luma to the next.
        chroma_step: Bytes from one row of chroma pairs to the next, of both planes of i420.
        rows: Number of rows of chroma.
        columns: Number of chroma pairs of a row.
    """

    step: int
    chroma_step: int
    rows: int
    columns: int

    def size(self, height: int) -> int:
        """Returns the number of bytes of an image."""
        return self.step * height + self.chroma_step * self.rows


def _layout(message: Image, encoding: str) -> _Layout:
    """Returns the layout that fits the size and the step of the data.

    A width or height that is odd is rounded up (FFmpeg, GStreamer) or down for the chroma, and by
    some drivers for the luma too, while the step is still the width.
    """
    height, width, step = message.height, message.width, message.step
    subsampled = encoding != 'nv24'
    rows, columns = (-(-height // 2), -(-width // 2)) if subsampled else (height, width)
    row = 2 * columns if subsampled else width
    packed = _Layout(row, 2 * columns, rows, columns)  # some drivers add the chroma to the step
    if step == width < row:
        down = width - 1 if encoding == 'i420' else width  # two planes need an even number
        layouts = [
            packed,
            _Layout(width, row, rows, columns),
            _Layout(width, down, rows, width // 2),
        ]
    else:
        _check_step(message, row)
        chroma_step = step if subsampled else 2 * step
        layouts = [_Layout(step, chroma_step, rows, columns), packed]
        if subsampled:
            layouts.append(_Layout(step, chroma_step, height // 2, columns))
    size = len(message.data)
    for layout in layouts:
        if size == layout.size(height) and layout.rows and layout.columns:
            return layout
    if step < row:
        sizes = ', '.join(str(layout.size(height)) for layout in layouts)
        raise InvalidImageError(
            'wrong step',
            f'{step} bytes per row, {encoding} of width {width} needs {row}, or data of one of'
            f' {sizes} bytes, not {size}',
        )
    _check_length(message, layouts[0].size(height))
    return layouts[0]


def _check_step(message: Image, row: int) -> None:
    if message.step < row:
        raise InvalidImageError(
            'wrong step',
            f'{message.step} bytes per row, {message.encoding} of width {message.width} needs'
            f' {row}',
        )


def _check_length(message: Image, needed: int) -> None:
    if len(message.data) < needed:
        raise InvalidImageError('short data', f'{len(message.data)} of {needed} bytes')


def _convert(stored: NDArray[Any], conversion: int | None) -> NDArray[Any]:
    """Converts pixels to RGB with the same number of bits."""
    native = stored.astype(stored.dtype.newbyteorder('='), copy=False)
    if conversion is None:
        return native
    width = native.shape[1]
    if conversion in YUV_PAIRS and width % 2:
        # The last pair is incomplete; the second half of the pair before completes it.
        last = native[:, -2:-1] if width > 1 else native
        native = np.concatenate([native, last], axis=1)
    return np.ascontiguousarray(cv2.cvtColor(native, conversion)[:, :width])


def _without_mosaic(rgb: NDArray[np.uint8], format_: str) -> NDArray[np.uint8]:
    """Converts a grey image with a Bayer mosaic, as compressed_image_transport publishes it."""
    encoding, _, compression = format_.partition(';')
    name = NAMES.get(encoding.strip().lower(), '')
    mosaic = name.startswith('bayer') and 'bgr' not in compression
    if not mosaic or not np.array_equal(rgb[..., 0], rgb[..., 1]):
        return rgb
    return _convert(np.ascontiguousarray(rgb[..., :1]), ENCODINGS[name][2])


def _convert_planes(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], conversion: int
) -> NDArray[np.uint8]:
    """Converts to RGB; OpenCV needs an even width and height, and chroma of half the size."""
    height, width = luma.shape
    if chroma.shape[:2] == luma.shape:
        doubled = cv2.resize(luma, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
        return np.ascontiguousarray(cv2.cvtColorTwoPlane(doubled, chroma, conversion)[::2, ::2])
    even = cv2.copyMakeBorder(luma, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    rows, columns = (height + 1) // 2 - chroma.shape[0], (width + 1) // 2 - chroma.shape[1]
    if rows or columns:  # the last row or column, which the driver rounded down
        chroma = np.pad(chroma, ((0, rows), (0, columns), (0, 0)), 'edge')
    rgb = cv2.cvtColorTwoPlane(even, chroma, conversion)
    return np.ascontiguousarray(rgb[:height, :width])
