# SPDX-License-Identifier: Apache-2.0
"""The ground plane below a camera and its pose in a fixed frame, from parameters or TF."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform
from numpy.typing import NDArray
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
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
MAX_POSE_DELAY = 1.0  # s; a pose is not waited for if TF is farther behind the image
POLL_INTERVAL = 0.005  # s


class CameraTransforms:
    """Gives the ground plane in the optical frame of a camera, and the pose of that frame."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        """Subscribes to TF if the parameters need it.

        Args:
            node: The node.
            parameters: The parameters of the node.

        Raises:
            ValueError: The parameters need TF, and tf2_ros is not installed.
        """
        self._base = parameters.base_frame if parameters.ground_plane == 'tf' else ''
        self._fixed = parameters.fixed_frame
        self._plane: Plane | None = None
        self._buffer: Any = None
        self._listener: Any = None
        self._jumps: Any = None
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
            # tf2 rejects transforms that are far older than its newest, such as those of a bag that
            # starts again.
            backward = JumpThreshold(
                min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
            )
            self._jumps = node.get_clock().create_jump_callback(
                backward, post_callback=lambda _: self._buffer.clear()
            )
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def ground_plane(self, header: Header, on_failure: Callable[[str], None]) -> Plane | None:
        """Returns the ground plane in the frame of an image; None if it is not known.

        Args:
            header: Header of the image.
            on_failure: Called with the reason if TF gives no ground plane below the camera.
        """
        if not self._base:
            return self._plane
        try:
            found = self._buffer.lookup_transform(header.frame_id, self._base, Time())
        except tf2_ros.TransformException as error:
            on_failure(f'ground: no transform from {self._base} ({type(error).__name__})')
            return None
        plane = plane_of(found.transform)
        if plane.offset < MIN_HEIGHT:
            on_failure(f'ground: the camera is not above {self._base}')
            return None
        return plane

    def pose(
        self,
        header: Header,
        on_failure: Callable[[str], None],
        deadline: float = 0.0,
        keep_waiting: Callable[[], bool] = lambda: True,
    ) -> NDArray[np.float64] | None:
        """Returns the pose of the camera in the fixed frame, 4×4, m; None if it is not known.

        Args:
            header: Header of the image.
            on_failure: Called with the reason if TF does not give the pose.
            deadline: `time.monotonic()` until which a transform that arrives later than the image
                is waited for. Do not wait in the executor's thread, which receives it.
            keep_waiting: Returns whether to continue waiting. It is called repeatedly.
        """
        if not self._fixed:
            return None
        try:
            stamp = Time.from_msg(header.stamp)
        except ValueError:
            on_failure(f'pose: no transform to {self._fixed} (the stamp is negative)')
            return None
        while True:
            try:
                found = self._buffer.lookup_transform(self._fixed, header.frame_id, stamp)
            except tf2_ros.TransformException as error:
                waiting = time.monotonic() < deadline and keep_waiting()
                if not waiting or not self._is_pose_expected(header):
                    on_failure(f'pose: no transform to {self._fixed} ({type(error).__name__})')
                    return None
                time.sleep(POLL_INTERVAL)
            else:
                return pose_of(found.transform)

    def _is_pose_expected(self, header: Header) -> bool:
        """Returns whether the newest pose is only a little older than the image."""
        try:
            newest = self._buffer.lookup_transform(self._fixed, header.frame_id, Time())
        except tf2_ros.TransformException:
            return False
        behind = Time.from_msg(header.stamp) - Time.from_msg(newest.header.stamp)
        return 0 < behind.nanoseconds <= MAX_POSE_DELAY * 1e9

    @property
    def has_ground(self) -> bool:
        """Whether the parameters define a ground plane."""
        return bool(self._base) or self._plane is not None

    def close(self) -> None:
        """Unsubscribes from TF."""
        if self._listener is not None:
            self._jumps.unregister()
            self._listener.unregister()
            self._listener = None


def pose_of(transform: Transform) -> NDArray[np.float64]:
    """Returns a transform as a homogeneous 4×4 matrix, m."""
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
    """Returns the plane z = 0 of a frame, in the camera's optical frame.

    Args:
        base: Transform from that frame to the optical frame.
    """
    pose = pose_of(base)
    up = pose[:3, 2]
    return Plane(up, -float(up @ pose[:3, 3]))
