# SPDX-License-Identifier: Apache-2.0
"""Where the ground is below a camera: from parameters, or from TF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.projection import Plane, level_ground

try:
    import tf2_ros
except ImportError:
    tf2_ros = None


LEAST_HEIGHT = 1e-3  # m, of a camera above the ground


class Ground:
    """Tells the ground plane in a camera's optical frame."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        """Listens to TF where that is asked for.

        Args:
            node: That it belongs to.
            parameters: `ground_plane` and what goes with it.

        Raises:
            ValueError: 'tf' is asked for, and tf2_ros is not installed.
        """
        self._frame = parameters.base_frame
        self._plane: Plane | None = None
        self._buffer: Any = None
        self._listener: Any = None
        if parameters.ground_plane == 'level':
            self._plane = level_ground(
                parameters.camera_height, parameters.camera_tilt, parameters.camera_roll
            )
        if parameters.ground_plane == 'tf':
            if tf2_ros is None:
                raise ValueError("ground_plane is 'tf', but tf2_ros is not installed; use 'level'")
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, node)

    def below(self, header: Header, set_aside: Callable[[str], None]) -> Plane | None:
        """Returns the ground in the frame of a picture's header; None where it is not known.

        Args:
            header: Of the picture.
            set_aside: Told why TF has none that is below the camera.
        """
        if self._buffer is None:
            return self._plane
        try:
            found = self._buffer.lookup_transform(header.frame_id, self._frame, Time()).transform
        except tf2_ros.TransformException as error:
            set_aside(f'ground: {type(error).__name__} of {self._frame}')
            return None
        plane = plane_of(found)
        if plane.offset < LEAST_HEIGHT:
            set_aside(f'ground: camera not above {self._frame}')
            return None
        return plane

    @property
    def known(self) -> bool:
        """Whether there is to be a ground."""
        return self._buffer is not None or self._plane is not None

    def close(self) -> None:
        """Listens to TF no more."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None


def plane_of(base: Transform) -> Plane:
    """Returns the plane z = 0 of a frame.

    Args:
        base: Where that frame is in the camera's optical frame, which is above the plane.
    """
    x, y, z, w = base.rotation.x, base.rotation.y, base.rotation.z, base.rotation.w
    # The third column of the rotation matrix: where the frame's z points to.
    up = np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
    origin = np.array([base.translation.x, base.translation.y, base.translation.z])
    return Plane(up, -float(up @ origin))
