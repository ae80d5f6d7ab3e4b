# SPDX-License-Identifier: Apache-2.0
"""The geometry of a camera: intrinsics from camera_info, depth, ground plane and pose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rock_seg_ros.node.diagnostics import CameraStatistics
from rock_seg_ros.node.images import InvalidImageError, read_depth
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.node.transforms import CameraTransforms
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics, standard_distortion
from rock_seg_ros.perception.geometry.pairing import Pairing
from rock_seg_ros.perception.geometry.view import View
from rock_seg_ros.perception.image_io.depth import TRANSPORTS, DepthError, decode_depth

MAX_DEPTH_SILENCE = 1.0  # s without depth, after which only one image waits for it
MAX_LOGGED_REASONS = 50  # a reason may hold numbers that a publisher changes each time


class UnusableInput(ValueError):  # noqa: N818  (the image is processed without the input)
    """An input that accompanies an image, such as depth, cannot be used.

    The message is 'INPUT: reason'; it is the key under which the input is counted as ignored.

    Attributes:
        detail: Values and advice, for the log only.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(reason)
        self.detail = detail

    def line(self, topic: str) -> str:
        """Returns the line for the log, with the name of the topic if there is one."""
        name, _, reason = str(self).partition(': ')
        detail = f' ({self.detail})' if self.detail else ''
        ignored = f'{topic} is ignored: ' if topic else ''
        return f'{name}: {ignored}{reason}{detail}'


class CameraGeometry:
    """Subscribes to the camera_info and depth of a camera, and combines them for an image."""

    def __init__(
        self,
        node: LifecycleNode,
        info_topic: str,
        depth_topic: str,
        parameters: Parameters,
        transforms: CameraTransforms,
        statistics: CameraStatistics,
    ) -> None:
        """Resolves the topics; `subscribe` creates the subscriptions.

        Args:
            node: The node.
            info_topic: Topic of the camera_info.
            depth_topic: Topic of the depth images, which are registered to the images; '' = none.
                The messages of topics that end in /compressedDepth or /compressed are
                CompressedImage.
            parameters: The parameters of the node.
            transforms: Gives the ground plane and the pose of the camera.
            statistics: Counts the inputs that are ignored.
        """
        self._node = node
        self._info_topic = node.resolve_topic_name(info_topic)
        self._depth_topic = node.resolve_topic_name(depth_topic) if depth_topic else ''
        self._topics: list[tuple[Any, str, Callable[[Any], None]]] = [
            (CameraInfo, info_topic, self._on_info)
        ]
        if depth_topic:
            self._topics.append((depth_type(self._depth_topic), depth_topic, self._on_depth))
        self._rectified = parameters.rectified
        self._registered = parameters.depth_registered
        self._transforms = transforms
        self._statistics = statistics
        self._info: CameraInfo | None = None
        # The intrinsics of the last image, with its size and camera_info.
        self._cached: tuple[tuple[int, int], CameraInfo, Intrinsics] | None = None
        self._depths = Pairing[Image | CompressedImage]()
        self._changed = threading.Condition()
        self._newest_depth = 0  # stamp, ns
        self._depth_received = float('-inf')  # time.monotonic()
        self._missed = True  # whether an image waited in vain since then
        self._logged: set[str] = set()
        self._subscriptions: list[Any] = []

    def subscribe(self) -> None:
        """Creates the subscriptions; call `unsubscribe` also after an error."""
        for message_type, topic, callback in self._topics:
            self._subscriptions.append(
                self._node.create_subscription(
                    message_type,
                    topic,
                    callback,
                    QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            )

    def unsubscribe(self) -> None:
        """Destroys the subscriptions, and ends all waiting for depth."""
        with self._changed:
            while self._subscriptions:
                self._node.destroy_subscription(self._subscriptions.pop())
            self._changed.notify_all()

    def release(self) -> None:
        """Releases the depth images. `view` must not be running."""
        self._depths = Pairing()

    def hold_depth(self, header: Header) -> None:
        """Keeps the depth of this image and of the one before until they are processed."""
        self._depths.hold(nanoseconds(header))

    def view(
        self, header: Header, shape: tuple[int, int], tolerance: float, deadline: float = 0.0
    ) -> View | None:
        """Returns the intrinsics, depth and ground plane of an image; None without intrinsics.

        An input that cannot be used is counted, and logged once; the others are still used.

        Args:
            header: Header of the image.
            shape: Height and width of the image, px.
            tolerance: Maximum difference between the stamps of the image and its depth, s.
            deadline: `time.monotonic()` until which the depth is waited for. Do not wait in the
                executor's thread, which receives the depth.
        """
        info = self._info
        if info is None:
            if self._depth_received > float('-inf') or self._transforms.has_ground:
                self._ignore(UnusableInput('camera_info: none received'), self._info_topic)
            return None
        try:
            intrinsics = self._intrinsics(info, shape)
        except UnusableInput as error:
            self._ignore(error, self._info_topic)
            return None
        depth = None
        try:
            depth = self._depth(header, shape, tolerance, deadline)
        except UnusableInput as error:
            self._ignore(error, self._depth_topic)
        ground = self._transforms.ground_plane(header, self._ignore_transform)
        return View(intrinsics, depth, ground)

    def pose(self, header: Header, deadline: float = 0.0) -> NDArray[np.float64] | None:
        """Returns the pose of the camera in the fixed frame, 4×4, m; None if it is not known.

        Args:
            header: Header of the image.
            deadline: `time.monotonic()` until which TF is waited for.
        """
        return self._transforms.pose(
            header, self._ignore_transform, deadline, lambda: bool(self._subscriptions)
        )

    def check_depth_topic(self) -> None:
        """Logs once if the depth is published only with another image transport."""
        topic = self._depth_topic
        if not topic or not self._subscriptions or self._node.count_publishers(topic):
            return
        raw = topic.rpartition('/')[0] if _is_compressed(topic) else topic
        for other in (raw, *(f'{raw}/{transport}' for transport in TRANSPORTS)):
            if other != topic and self._node.count_publishers(other):
                reason = f'depth: {topic} has no publisher, but {other} is published'
                self._log_once(
                    f'{reason}; use depth:={other}, or name this topic in depth_topics', reason
                )
                return

    def _ignore(self, reason: UnusableInput, topic: str) -> None:
        """Counts an input that cannot be used, and logs it once."""
        self._statistics.ignored(str(reason))
        self._log_once(reason.line(topic), str(reason))

    def _ignore_transform(self, reason: str) -> None:
        self._ignore(UnusableInput(reason), 'TF')

    def _log_once(self, line: str, reason: str) -> None:
        """Logs a line unless a line with the same reason was logged."""
        if reason not in self._logged and len(self._logged) < MAX_LOGGED_REASONS:
            self._logged.add(reason)
            self._node.get_logger().warning(line)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_depth(self, message: Image | CompressedImage) -> None:
        stamp = nanoseconds(message.header)
        self._depths.put(stamp, message)
        with self._changed:
            self._newest_depth = stamp
            self._depth_received = time.monotonic()
            self._missed = False
            self._changed.notify_all()

    def _check_depth_arrives(self) -> None:
        """Raises UnusableInput if depth is published, but not received."""
        for subscription in self._subscriptions:
            if subscription.msg_type is not CameraInfo and subscription.get_publisher_count():
                detail = why_no_messages('depth', self._depth_topic)
                raise UnusableInput('depth: none received', detail)

    def _intrinsics(self, info: CameraInfo, shape: tuple[int, int]) -> Intrinsics:
        """Returns the intrinsics, cached while camera_info and size stay; thread-safe."""
        cached = self._cached
        if cached is None or cached[0] != shape or not _same_intrinsics(cached[1], info):
            intrinsics = read_image_intrinsics(info, shape, self._rectified)
            self._cached = cached = (shape, info, intrinsics)
        return cached[2]

    def _depth(
        self, header: Header, shape: tuple[int, int], tolerance: float, deadline: float
    ) -> NDArray[np.float32] | None:
        """Returns the image's depth, H×W float32, m; None if no depth is published."""
        stamp = nanoseconds(header)
        with self._changed:
            now = time.monotonic()
            stopped = self._missed and now - self._depth_received > MAX_DEPTH_SILENCE
            if not stopped and now < deadline:
                self._missed = not self._changed.wait_for(
                    lambda: self._newest_depth >= stamp or not self._subscriptions, deadline - now
                )
        message = self._depths.nearest(stamp, tolerance)
        if message is None:
            if stopped:
                self._check_depth_arrives()
                return None
            raise UnusableInput(
                'depth: none at the time of the image', f'depth_tolerance is {tolerance} s'
            )
        return read_registered(message, header, shape, self._registered)


def depth_type(topic: str) -> type[Image] | type[CompressedImage]:
    """Returns the message type of a depth topic, according to the end of its name."""
    return CompressedImage if _is_compressed(topic) else Image


def _is_compressed(topic: str) -> bool:
    return topic.rpartition('/')[2] in TRANSPORTS


def why_no_messages(what: str, topic: str) -> str:
    """Returns one line with the reason why messages of a topic with a publisher may not arrive."""
    return (
        f'no {what} from {topic}, although it has a publisher: DDS may lose all large messages on'
        f' a best-effort topic; see qos_overrides.{topic}.subscription.reliability'
    )


def read_registered(
    message: Image | CompressedImage, header: Header, shape: tuple[int, int], registered: bool
) -> NDArray[np.float32]:
    """Reads the depth of an image.

    Args:
        message: A depth image: 16UC1 or 32FC1, or compressed; see `decode_depth`.
        header: Header of the image.
        shape: Height and width of the image, px.
        registered: Whether the depth is registered to the image even if its frame_id differs.

    Returns:
        H×W float32, m; see `read_depth`.

    Raises:
        UnusableInput: The message is not registered to the image, or is not a depth image.
    """
    frame = message.header.frame_id
    if isinstance(message, Image) and (message.height, message.width) != shape:
        sizes = f'{message.width}×{message.height}, the images are {shape[1]}×{shape[0]}'
        raise UnusableInput('depth: size differs', f'{sizes}; depth must be registered to them')
    if frame != header.frame_id and not registered:
        raise UnusableInput(
            'depth: frame_id differs',
            f'{frame}, the images are in {header.frame_id}; set depth_registered if the depth is'
            ' registered to them nevertheless',
        )
    try:
        if isinstance(message, Image):
            return read_depth(message)
        return decode_depth(message.format, message.data, shape)
    except InvalidImageError as error:
        raise UnusableInput(f'depth: {error.reason}', str(error)) from None
    except DepthError as error:
        detail = error.detail or f'format {message.format!r}, {len(message.data)} bytes'
        raise UnusableInput(f'depth: {error}', detail) from None


def read_image_intrinsics(info: CameraInfo, shape: tuple[int, int], rectified: bool) -> Intrinsics:
    """Reads the camera_info of an image.

    Args:
        info: The message.
        shape: Height and width of the image, px.
        rectified: Whether the image is rectified.

    Raises:
        UnusableInput: The camera is not calibrated, or the size differs from the image's.
    """
    try:
        intrinsics = read_intrinsics(info, rectified)
    except ValueError as error:
        raise UnusableInput(f'camera_info: {first_line(error)}') from None
    width, height = intrinsics.size
    if (height, width) != shape:
        sizes = f'{width}×{height}, the images are {shape[1]}×{shape[0]}'
        raise UnusableInput('camera_info: size differs', sizes)
    return intrinsics


def read_intrinsics(info: CameraInfo, rectified: bool = False) -> Intrinsics:
    """Reads a camera_info, with binning and region of interest as in image_pipeline.

    Some drivers of rectified images leave K at zero; then P is used. If P is zero and there is no
    distortion, K is used for rectified images as well.

    Args:
        info: The message.
        rectified: Whether the images are rectified. Then P is used, otherwise K and D.

    Raises:
        ValueError: The camera is not calibrated, or the distortion model is not supported.
    """
    model, distortion = standard_distortion(info.distortion_model, np.array(info.d, np.float64))
    k, p = np.array(info.k).reshape(3, 3), np.array(info.p).reshape(3, 4)[:, :3]
    if rectified and not p[0, 0] and not distortion.any():
        p = k
    elif not k[0, 0] and p[0, 0]:
        rectified = True
    across, down = max(1, info.binning_x), max(1, info.binning_y)
    region = info.roi
    matrix = (p if rectified else k).astype(np.float64)
    matrix[:2, 2] -= (region.x_offset, region.y_offset)
    matrix[0] /= across
    matrix[1] /= down
    size = ((region.width or info.width) // across, (region.height or info.height) // down)
    if rectified:
        return Intrinsics(matrix, np.zeros(0), size=size)
    return Intrinsics(matrix, distortion, model, size)


def _same_intrinsics(one: CameraInfo, other: CameraInfo) -> bool:
    names = ('width', 'height', 'distortion_model', 'd', 'binning_x', 'binning_y', 'roi')
    return (
        all(getattr(one, name) == getattr(other, name) for name in names)
        and np.array_equal(one.k, other.k)
        and np.array_equal(one.p, other.p)
    )


def nanoseconds(header: Header) -> int:
    """Returns a header's stamp in ns; rclpy's Time does not accept negative stamps."""
    return int(header.stamp.sec * 10**9 + header.stamp.nanosec)
