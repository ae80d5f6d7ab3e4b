# SPDX-License-Identifier: Apache-2.0
"""Writes a drive to a rosbag2: images, camera_info and depth with the same stamps."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from training.synthetic.rendering import Rendering

TYPES = get_typestore(Stores.ROS2_JAZZY)
FRAME_ID = 'camera_optical_frame'
TOPICS = {
    '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
    '/camera/depth': 'sensor_msgs/msg/Image',
}
JPEG_QUALITY = 90


class DriveBag:
    """Writes a new rosbag2 folder with mcap storage; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Sets the folder, which is created when the context is entered.

        Raises:
            FileExistsError: The folder exists.
        """
        if path.exists():
            raise FileExistsError(f'{path}: exists; choose a new folder for the bag')
        self._writer = Writer(
            path, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
        )
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> DriveBag:
        self._writer.open()
        for topic, kind in TOPICS.items():
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, stamp: int, rendering: Rendering) -> None:
        """Writes one message to each topic; `stamp` is in ns since the epoch."""
        header = _message(
            'std_msgs/msg/Header',
            stamp=_message(
                'builtin_interfaces/msg/Time', sec=stamp // 10**9, nanosec=stamp % 10**9
            ),
            frame_id=FRAME_ID,
        )
        messages = (
            _jpeg(header, rendering),
            _camera_info(header, rendering),
            _depth(header, rendering),
        )
        for (topic, kind), message in zip(TOPICS.items(), messages, strict=True):
            self._writer.write(self._connections[topic], stamp, TYPES.serialize_cdr(message, kind))


def _jpeg(header: Any, rendering: Rendering) -> Any:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, coded = cv2.imencode('.jpg', rendering.image[..., ::-1], options)
    return _message(
        'sensor_msgs/msg/CompressedImage',
        header=header,
        format='rgb8; jpeg compressed bgr8',
        data=coded.ravel(),
    )


def _depth(header: Any, rendering: Rendering) -> Any:
    height, width = rendering.depth.shape
    return _message(
        'sensor_msgs/msg/Image',
        header=header,
        height=height,
        width=width,
        encoding='32FC1',
        is_bigendian=0,
        step=4 * width,
        data=np.ascontiguousarray(rendering.depth, '<f4').view(np.uint8).ravel(),
    )


def _camera_info(header: Any, rendering: Rendering) -> Any:
    height, width = rendering.depth.shape
    region = _message(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    projection = np.column_stack([rendering.intrinsics, np.zeros(3)])
    return _message(
        'sensor_msgs/msg/CameraInfo',
        header=header,
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=rendering.intrinsics.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _message(name: str, **values: Any) -> Any:
    return TYPES.types[name](**values)
