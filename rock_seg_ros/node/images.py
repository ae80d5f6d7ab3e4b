# SPDX-License-Identifier: Apache-2.0
"""Between sensor_msgs and arrays, without copies where none is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

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
    """A message that is no image; `reason` is what is counted, the message tells more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f'{reason}: {detail}')
        self.reason = reason


# encoding → (channels, bytes a channel, OpenCV's conversion to RGB; None = RGB already)
# Ours alone, since cv_bridge's is missing, fails with NumPy 2, or lacks some, by installation.
# A reversed view instead would cost whoever needs its bytes in a row 70 times the conversion.
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
# encoding → OpenCV's conversion of a plane of luma and one of chroma pairs
YUV_PLANES = {
    'nv12': cv2.COLOR_YUV2RGB_NV12,
    'nv21': cv2.COLOR_YUV2RGB_NV21,
    'nv24': cv2.COLOR_YUV2RGB_NV12,
    'i420': cv2.COLOR_YUV2RGB_NV12,
}
NAMES = {name.lower(): name for name in (*ENCODINGS, *YUV_PLANES)}


class ImageReader:
    """Turns the image messages of one camera into H×W×3 RGB arrays.

    Attributes:
        depth: How many bits its 16-bit images use.
        max_pixels: Larger images are refused before they are read; may be set at any time.
    """

    def __init__(
        self,
        warn: Callable[[str], object],
        significant_bits: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Starts a stream.

        Args:
            warn: Told in one line how 16-bit images are scaled.
            significant_bits: Of 16-bit images, 8 to 16; 0 = as the stream shows.
            max_pixels: Larger images are refused.
        """
        self.depth = BitDepth(significant_bits, warn)
        self.max_pixels = max_pixels

    def read(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        """Reads an Image or CompressedImage.

        Args:
            message: An Image in one of `ENCODINGS` or `YUV_PLANES`, in any case, or a
                CompressedImage (JPEG, PNG and what else `decode_rgb` reads).

        Returns:
            H×W×3 uint8 RGB; of rgb8 a view of the message's own data, rows perhaps padded.

        Raises:
            InvalidImageError: Unknown encoding, wrong step, short data, zero size, too large, or
                not decodable.
        """
        try:
            if isinstance(message, Image):
                return self._read_raw(message)
            return decode_rgb(message.data, False, self.depth, self.max_pixels)
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
            raise InvalidImageError('unknown encoding', repr(message.encoding))
        if encoding in YUV_PLANES:
            luma, chroma = _planes(message, encoding)
            return _convert_planes(luma, chroma, YUV_PLANES[encoding])
        channels, size, code = ENCODINGS[encoding]
        stored = _stored(message, channels, size)
        try:
            return self.depth.to_eight_bits(_convert(stored, code))
        except cv2.error as error:
            detail = f'{message.encoding}: {first_line(error)}'
            raise InvalidImageError('not convertible', detail) from None


def read_depth(message: Image) -> NDArray[np.float32]:
    """Reads a depth image (REP 118).

    Args:
        message: 16UC1 (mm) or mono16, or 32FC1 (m).

    Returns:
        H×W float32, m; not finite or not above 0 where it is not known. Of 32FC1 a view of the
        message's own data.

    Raises:
        InvalidImageError: Unknown encoding, wrong step, short data, or zero size.
    """
    if not message.height or not message.width:
        raise InvalidImageError('zero size', f'{message.width}×{message.height}')
    encoding = message.encoding.lower()
    if encoding in ('16uc1', 'mono16'):
        return np.multiply(_stored(message, 1, 2)[..., 0], np.float32(0.001), dtype=np.float32)
    if encoding != '32fc1':
        raise InvalidImageError('unknown encoding', repr(message.encoding))
    stored = _stored(message, 1, 4)[..., 0]
    metres = stored.view(stored.dtype.str.replace('u', 'f'))
    return metres.astype(np.float32, copy=False)


def to_message(array: NDArray[Any], encoding: str, header: Header) -> Image:
    """Makes an Image with one copy.

    Args:
        array: H×W or H×W×3 uint8, or H×W uint16.
        encoding: 'mono8', 'rgb8' or 'mono16'.
        header: Put into the message as it is.
    """
    message = Image(header=header, height=array.shape[0], width=array.shape[1], encoding=encoding)
    message.step = array[0].nbytes
    message.is_bigendian = int(sys.byteorder == 'big')
    fill(message, array)
    return message


def fill(message: Any, array: NDArray[Any]) -> None:
    """Puts an array's bytes into the message's `data` with one copy."""
    if array.size:
        message.data.frombytes(np.ascontiguousarray(array).data.cast('B'))


def _stored(message: Image, channels: int, depth: int) -> NDArray[Any]:
    """Views the message's data as H×W×channels, row padding left out."""
    row = message.width * channels * depth
    _check_step(message, row)
    _check_length(message, message.step * (message.height - 1) + row)
    kind = np.dtype(f'u{depth}')
    if depth > 1:
        kind = kind.newbyteorder('>' if message.is_bigendian else '<')
    shape = (message.height, message.width, channels)
    return np.ndarray(shape, kind, message.data, 0, (message.step, channels * depth, depth))


def _planes(message: Image, encoding: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Views the message's data as H×W luma and H×W×2 or half as large chroma pairs."""
    height, width = message.height, message.width
    halved = encoding != 'nv24'
    down, across = (-(-height // 2), -(-width // 2)) if halved else (height, width)
    row = 2 * across if halved else width
    _check_step(message, row)
    step, chroma_rows = message.step, down if halved else 2 * down
    if len(message.data) == row * (height + chroma_rows):
        step = row  # some drivers count a row's chroma in
    start = step * height
    _check_length(message, start + step * chroma_rows)

    def view(shape: tuple[int, ...], place: int, *strides: int) -> NDArray[np.uint8]:
        return np.ndarray(shape, np.uint8, message.data, place, strides)

    luma = view((height, width), 0, step, 1)
    if encoding != 'i420':
        pitch = step if halved else 2 * step
        return luma, view((down, across, 2), start, pitch, 2, 1)
    pitch = step // 2
    blue, red = (view((down, across), start + n * down * pitch, pitch, 1) for n in (0, 1))
    return luma, cv2.merge((blue, red))  # type: ignore[return-value]


def _check_step(message: Image, row: int) -> None:
    if message.step < row:
        raise InvalidImageError(
            'wrong step',
            f'{message.step} bytes a row, {message.encoding} of width {message.width} needs {row}',
        )


def _check_length(message: Image, needed: int) -> None:
    if len(message.data) < needed:
        raise InvalidImageError('short data', f'{len(message.data)} bytes of {needed}')


def _convert(stored: NDArray[Any], code: int | None) -> NDArray[Any]:
    """Converts to RGB of as many bits."""
    native = stored.astype(stored.dtype.newbyteorder('='), copy=False)
    if code is None:
        return native
    width = native.shape[1]
    if code in YUV_PAIRS and width % 2:
        # Half of the last pair is missing: its colour is that of the pair before.
        last = native[:, -2:-1] if width > 1 else native
        native = np.concatenate([native, last], axis=1)
    return np.ascontiguousarray(cv2.cvtColor(native, code)[:, :width])


def _convert_planes(
    luma: NDArray[np.uint8], chroma: NDArray[np.uint8], code: int
) -> NDArray[np.uint8]:
    """Converts to RGB, where OpenCV wants even sides and chroma of half the size."""
    height, width = luma.shape
    if chroma.shape[:2] == luma.shape:
        twice = cv2.resize(luma, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
        return np.ascontiguousarray(cv2.cvtColorTwoPlane(twice, chroma, code)[::2, ::2])
    even = cv2.copyMakeBorder(luma, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    rgb = cv2.cvtColorTwoPlane(even, chroma, code)
    return np.ascontiguousarray(rgb[:height, :width])
