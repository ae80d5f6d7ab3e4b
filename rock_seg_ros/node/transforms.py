# SPDX-License-Identifier: Apache-2.0
"""Where a camera is: above the ground, and in a frame that stands still. From parameters, or TF."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.geometry.view import Plane, level_ground

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


MIN_HEIGHT = 1e-3  # m, of a camera above the ground
ALIVE = 1.0  # s; TF that is farther behind an image is not waited for
POLL_INTERVAL = 0.005  # s


class CameraTransforms:
    """Tells the ground in a camera's optical frame, and that frame's pose."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        """Listens to TF where that is asked for.

        Args:
            node: That it belongs to.
            parameters: `ground_plane` and what goes with it, and `fixed_frame`.

        Raises:
            ValueError: TF is asked for, and tf2_ros is not installed.
        """
        self._base = parameters.base_frame if parameters.ground_plane == 'tf' else ''
        self._fixed = parameters.fixed_frame
        self._plane: Plane | None = None
        self._buffer: Any = None
        self._listener: Any = None
        if parameters.ground_plane == 'level':
            self._plane = level_ground(
                parameters.camera_height, parameters.camera_tilt, parameters.camera_roll
            )
        if self._base or self._fixed:
            if tf2_ros is None:
                raise ValueError(
                    "ground_plane is 'tf', but tf2_ros is not installed; use 'level'"
                    if self._base
                    else f'fixed_frame is {self._fixed!r}, but tf2_ros is not installed'
                )
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def below(self, header: Header, set_aside: Callable[[str], None]) -> Plane | None:
        """Returns the ground in the frame of an image's header; None where it is not known.

        Args:
            header: Of the image.
            set_aside: Told why TF has none that is below the camera.
        """
        if not self._base:
            return self._plane
        try:
            found = self._buffer.lookup_transform(header.frame_id, self._base, Time())
        except tf2_ros.TransformException as error:
            set_aside(f'ground: {type(error).__name__} of {self._base}')
            return None
        plane = plane_of(found.transform)
        if plane.offset < MIN_HEIGHT:
            set_aside(f'ground: camera not above {self._base}')
            return None
        return plane

    def pose(
        self,
        header: Header,
        set_aside: Callable[[str], None],
        deadline: float = 0.0,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> NDArray[np.float64] | None:
        """Returns where the camera was, 4×4 in the fixed frame, m; None where it is not known.

        Args:
            header: Of the image.
            set_aside: Told why TF does not know.
            deadline: `time.monotonic()` until which TF that comes later than the image is waited
                for; not in the thread that hears of it.
            goes_on: Whether to wait still; asked now and then.
        """
        if not self._fixed:
            return None
        stamp = Time.from_msg(header.stamp)
        while True:
            try:
                found = self._buffer.lookup_transform(self._fixed, header.frame_id, stamp)
            except tf2_ros.TransformException as error:
                if time.monotonic() >= deadline or not goes_on() or not self._comes(header):
                    set_aside(f'pose: {type(error).__name__} in {self._fixed}')
                    return None
                time.sleep(POLL_INTERVAL)
            else:
                return pose_of(found.transform)

    def _comes(self, header: Header) -> bool:
        """Whether the newest pose is a little older than an image, so that its own may come."""
        try:
            newest = self._buffer.lookup_transform(self._fixed, header.frame_id, Time())
        except tf2_ros.TransformException:
            return False
        behind = Time.from_msg(header.stamp) - Time.from_msg(newest.header.stamp)
        return 0 < behind.nanoseconds <= ALIVE * 1e9

    @property
    def known(self) -> bool:
        """Whether there is to be a ground."""
        return bool(self._base) or self._plane is not None

    def close(self) -> None:
        """Listens to TF no more."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None


def pose_of(transform: Transform) -> NDArray[np.float64]:
    """Returns a transform as 4×4, m."""
    x, y, z, w = (getattr(transform.rotation, name) for name in 'xyzw')
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = [getattr(transform.translation, name) for name in 'xyz']
    return pose


def plane_of(base: Transform) -> Plane:
    """Returns the plane z = 0 of a frame.

    Args:
        base: Where that frame is in the camera's optical frame, which is above the plane.
    """
    pose = pose_of(base)
    up = pose[:3, 2]
    return Plane(up, -float(up @ pose[:3, 3]))
