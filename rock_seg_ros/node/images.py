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

from rock_seg_ros.perception.decoding import PictureError, decode_rgb
from rock_seg_ros.perception.errors import first_line


class PictureRefused(ValueError):  # noqa: N818  (it is the picture that is at fault, not the node)
    """A message that is no picture; `reason` is what is counted, the message tells more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f'{reason}: {detail}')
        self.reason = reason


# encoding → (channels, OpenCV's conversion to RGB; None = RGB already)
# A reversed view instead would cost whoever needs its bytes in a row 70 times the conversion.
PLAIN: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    '8UC3': (3, cv2.COLOR_BGR2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, cv2.COLOR_GRAY2RGB),
}
# encoding → (channels, bytes a channel, OpenCV's conversion to RGB; None = RGB already)
CONVERTED: dict[str, tuple[int, int, int | None]] = {
    'rgba8': (4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, 1, cv2.COLOR_BGRA2RGB),
    'mono16': (1, 2, cv2.COLOR_GRAY2RGB),
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


def find_cv_bridge(warn: Callable[[str], object]) -> Any:
    """Returns a CvBridge that converts a pixel correctly, or None.

    Args:
        warn: Told in one line why an installed one is not used: the apt build of ROS 2 Jazzy
            fails with NumPy 2.
    """
    try:
        from cv_bridge import CvBridge

        pixel = Image(height=1, width=1, encoding='bgra8', step=4, data=[3, 2, 1, 255])
        bridge = CvBridge()
        if bridge.imgmsg_to_cv2(pixel, 'rgb8').tolist() == [[[1, 2, 3]]]:
            return bridge
        reason = 'it converts a pixel wrongly'
    except ModuleNotFoundError as error:
        if error.name == 'cv_bridge':
            return None
        reason = first_line(error)
    except Exception as error:  # noqa: BLE001  (a broken binding raises anything, also on import)
        reason = first_line(error)
    warn(f'cv_bridge does not work here ({reason}); OpenCV is used')
    return None


class ImageReader:
    """Turns image messages into H×W×3 RGB arrays."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        """Looks for a cv_bridge that works; `warn` is told if an installed one does not."""
        self._bridge = find_cv_bridge(warn)

    def read(self, message: Image) -> NDArray[np.uint8]:
        """Reads an Image.

        Args:
            message: In an encoding of `PLAIN` or `CONVERTED`; 16 bits are scaled to 8.

        Returns:
            H×W×3 uint8 RGB; of rgb8 a view of the message's own data, rows perhaps padded.

        Raises:
            PictureRefused: Unknown encoding, wrong step, short data, or zero size.
        """
        if not message.height or not message.width:
            raise PictureRefused('zero size', f'{message.width}×{message.height}')
        if message.encoding in PLAIN:
            channels, code = PLAIN[message.encoding]
            return _convert(_stored(message, channels, 1), code)
        if message.encoding not in CONVERTED:
            raise PictureRefused('unknown encoding', repr(message.encoding))
        channels, depth, code = CONVERTED[message.encoding]
        stored = _stored(message, channels, depth)
        try:
            if self._bridge is not None:
                return self._bridge.imgmsg_to_cv2(message, 'rgb8')
            return _convert(stored, code)
        except Exception as error:  # noqa: BLE001  (cv2.error and cv_bridge's own)
            detail = f'{message.encoding}: {first_line(error)}'
            raise PictureRefused('not convertible', detail) from None


def decode(message: CompressedImage) -> NDArray[np.uint8]:
    """Decodes a CompressedImage (JPEG, PNG and what else OpenCV reads) to H×W×3 uint8 RGB.

    Raises:
        PictureRefused: The data does not decode.
    """
    try:
        return decode_rgb(message.data, upright=False)
    except PictureError as error:
        raise PictureRefused('not decodable', f'format {message.format!r}: {error}') from None


def read_depth(message: Image) -> NDArray[np.float32]:
    """Reads a depth image (REP 118).

    Args:
        message: 16UC1 (mm) or mono16, or 32FC1 (m).

    Returns:
        H×W float32, m; not finite or not above 0 where it is not known. Of 32FC1 a view of the
        message's own data.

    Raises:
        PictureRefused: Unknown encoding, wrong step, short data, or zero size.
    """
    if not message.height or not message.width:
        raise PictureRefused('zero size', f'{message.width}×{message.height}')
    if message.encoding in ('16UC1', 'mono16'):
        return np.multiply(_stored(message, 1, 2)[..., 0], np.float32(0.001), dtype=np.float32)
    if message.encoding != '32FC1':
        raise PictureRefused('unknown encoding', repr(message.encoding))
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
    if message.step < row:
        raise PictureRefused(
            'wrong step',
            f'{message.step} bytes a row, {message.encoding} of width {message.width} needs {row}',
        )
    needed = message.step * (message.height - 1) + row
    if len(message.data) < needed:
        raise PictureRefused('short data', f'{len(message.data)} bytes of {needed}')
    kind = np.dtype(f'u{depth}')
    if depth > 1:
        kind = kind.newbyteorder('>' if message.is_bigendian else '<')
    shape = (message.height, message.width, channels)
    return np.ndarray(shape, kind, message.data, 0, (message.step, channels * depth, depth))


def _convert(stored: NDArray[Any], code: int | None) -> NDArray[np.uint8]:
    """Converts to RGB, then scales 16 bits to 8, as cv_bridge does."""
    native = stored.astype(stored.dtype.newbyteorder('='), copy=False)
    rgb = native if code is None else cv2.cvtColor(native, code)
    if rgb.dtype == np.uint16:
        rgb = cv2.convertScaleAbs(rgb, alpha=255 / 65535)
    return rgb  # type: ignore[return-value]
