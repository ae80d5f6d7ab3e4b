# SPDX-License-Identifier: Apache-2.0
"""Makes a bag from a panorama: a window slides over it as if a camera drove past.

The texture is real, the motion is not. The committed bag was made with

    python -m demo.make_bag PANORAMAS/528_1.jpg demo/mars_drive
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.writing import make_folder
from rock_seg_ros.tools.bag.files import TYPES, BagWriter

SIZE = (640, 480)
STEP = 6
RATE = 5
FRAME_ID = 'camera_optical_frame'
IMAGE_TOPIC = '/camera/image_raw/compressed'
INFO_TOPIC = '/camera/camera_info'
# 2014-01-30T00:00:00Z, about sol 528; a fixed time keeps the bag reproducible.
START = 1_391_040_000
# Nominal, since a stitched panorama has no true intrinsics: Mastcam's left eye has 34 mm before
# 7.4 µm pixels (Malin et al. 2017, doi:10.1002/2016EA000252), here scaled from 1344 to 560 px.
FOCAL_LENGTH = 34.0 / 0.0074 * 560 / 1344


def windows(
    panorama: NDArray[np.uint8], corner: tuple[int, int], frames: int
) -> Iterator[NDArray[np.uint8]]:
    """Yields images of `SIZE`, each `STEP` px to the right of the one before.

    Args:
        panorama: H×W×3 uint8.
        corner: x and y of the first image's upper left pixel.
        frames: How many.

    Raises:
        ValueError: The last image does not fit into the panorama.
    """
    width, height = SIZE
    x, y = corner
    right, lower = x + STEP * (frames - 1) + width, y + height
    if frames < 1 or min(corner) < 0 or right > panorama.shape[1] or lower > panorama.shape[0]:
        raise ValueError(
            f'{frames} images from {x},{y} need a panorama of {right}×{lower} px,'
            f' not {panorama.shape[1]}×{panorama.shape[0]}'
        )
    for number in range(frames):
        left = x + STEP * number
        yield panorama[y : y + height, left : left + width]


def make_bag(panorama: Path, bag: Path, corner: tuple[int, int], frames: int, quality: int) -> None:
    """Writes the bag, or nothing.

    Args:
        panorama: Image file.
        bag: Folder; an older one is replaced.
        corner: x and y of the first image's upper left pixel.
        frames: How many images.
        quality: Of the JPEG images, 1 to 100.

    Raises:
        ValueError: The panorama cannot be read, or is too small.
    """
    whole = cv2.imread(str(panorama), cv2.IMREAD_COLOR)
    if whole is None:
        raise ValueError(f'{panorama}: no image')
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]  # smallest
    make_folder(bag.parent)
    with tempfile.TemporaryDirectory(dir=bag.parent, prefix='.writing-') as folder:
        written = Path(folder) / bag.name
        with BagWriter(written) as writer:
            writer.add_topic(IMAGE_TOPIC, 'sensor_msgs/msg/CompressedImage')
            writer.add_topic(INFO_TOPIC, 'sensor_msgs/msg/CameraInfo')
            for number, image in enumerate(windows(whole, corner, frames)):  # type: ignore[arg-type]
                _, jpeg = cv2.imencode('.jpg', image, options)
                _write_frame(writer, number, jpeg)
        shutil.rmtree(bag, ignore_errors=True)
        written.rename(bag)


def _write_frame(writer: BagWriter, number: int, jpeg: NDArray[np.uint8]) -> None:
    stamp = START * 10**9 + number * 10**9 // RATE
    header = _message(
        'std_msgs/msg/Header',
        stamp=_message('builtin_interfaces/msg/Time', sec=stamp // 10**9, nanosec=stamp % 10**9),
        frame_id=FRAME_ID,
    )
    compressed = _message(
        'sensor_msgs/msg/CompressedImage',
        header=header,
        format='bgr8; jpeg compressed bgr8',
        data=jpeg.ravel(),
    )
    writer.write_message(IMAGE_TOPIC, stamp, compressed)
    writer.write_message(INFO_TOPIC, stamp, _camera_info(header))


def _camera_info(header: Any) -> Any:
    width, height = SIZE
    fx, cx, cy = FOCAL_LENGTH, (width - 1) / 2, (height - 1) / 2
    region = _message(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return _message(
        'sensor_msgs/msg/CameraInfo',
        header=header,
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fx, cy, 0, 0, 1]),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0, cx, 0, 0, fx, cy, 0, 0, 0, 1, 0]),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _message(name: str, **values: Any) -> Any:
    return TYPES.types[name](**values)


def main() -> None:
    """Reads the command line and writes the bag."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('panorama', type=Path)
    parser.add_argument('bag', type=Path)
    parser.add_argument('--corner', type=int, nargs=2, default=(2690, 24), metavar=('X', 'Y'))
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--quality', type=int, default=51, help='of the JPEG images')
    arguments = parser.parse_args()
    make_bag(
        arguments.panorama,
        arguments.bag,
        tuple(arguments.corner),
        arguments.frames,
        arguments.quality,
    )


if __name__ == '__main__':
    main()
