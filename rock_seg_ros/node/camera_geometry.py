# SPDX-License-Identifier: Apache-2.0
"""What makes metres of a camera's pixels: camera_info, depth, the ground."""

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
from rock_seg_ros.perception.image_io.depth import TRANSPORTS, decode_depth

ALIVE = 1.0  # s; depth that has not come for longer is not waited for
MAX_LOGGED_REASONS = (
    50  # of what is set aside; some name numbers that a publisher may change each time
)


class UnusableInput(ValueError):  # noqa: N818  (the image goes on without it)
    """What came with an image and cannot be used; the message is what is counted.

    Attributes:
        detail: More of it, and what to do, for the log.
    """

    def __init__(self, reason: str, detail: str = '') -> None:
        super().__init__(reason)
        self.detail = detail

    def line(self, topic: str) -> str:
        """Returns a line for people that names the topic, where there is one."""
        kind, _, why = str(self).partition(': ')
        more = f' ({self.detail})' if self.detail else ''
        whose = f'{topic} is not used: ' if topic else ''
        return f'{kind}: {whose}{why}{more}'


class CameraGeometry:
    """Hears a camera's camera_info and depth, and tells what view they give of an image."""

    def __init__(
        self,
        node: LifecycleNode,
        info_topic: str,
        depth_topic: str,
        parameters: Parameters,
        frames: CameraTransforms,
        statistics: CameraStatistics,
    ) -> None:
        """Creates no topics yet.

        Args:
            node: That it belongs to.
            info_topic: Of the camera_info.
            depth_topic: Of the depth images, registered to the images; '' for none. One that ends
                in /compressedDepth or /compressed has CompressedImage.
            parameters: Tell whether images are rectified, and depth registered.
            frames: Where the camera is.
            statistics: Where is counted what cannot be used.
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
        self._frames = frames
        self._statistics = statistics
        self._info: CameraInfo | None = None
        self._lens: tuple[tuple[int, int], CameraInfo, Intrinsics] | None = None
        self._depths = Pairing[Image | CompressedImage]()
        self._changed = threading.Condition()
        self._newest = 0
        self._heard = float('-inf')
        self._logged: set[str] = set()
        self._subscriptions: list[Any] = []

    def subscribe(self) -> None:
        """Listens from now on; `unsubscribe` ends what there is, also after an error."""
        for kind, topic, take in self._topics:
            self._subscriptions.append(
                self._node.create_subscription(
                    kind,
                    topic,
                    take,
                    QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT),
                    qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                )
            )

    def unsubscribe(self) -> None:
        """Listens no more; who waits for depth waits no longer."""
        with self._changed:
            while self._subscriptions:
                self._node.destroy_subscription(self._subscriptions.pop())
            self._changed.notify_all()

    def release(self) -> None:
        """Keeps no depth; while no view is asked for."""
        self._depths = Pairing()

    def hold(self, header: Header) -> None:
        """Keeps the depth of an image that is begun, and of the one before, for their views."""
        self._depths.hold(nanoseconds(header))

    def view(
        self, header: Header, shape: tuple[int, int], tolerance: float, deadline: float = 0.0
    ) -> View | None:
        """Returns what tells metres in an image; None where nothing does.

        What came and cannot be used is counted, and logged once; the rest is used without it.

        Args:
            header: Of the image.
            shape: Its height and width, px.
            tolerance: Most that the stamp of its depth may differ, s.
            deadline: `time.monotonic()` until which depth that may be on its way is waited for; not
                in the thread that hears of it.
        """
        info = self._info
        if info is None:
            if self._heard > float('-inf') or self._frames.known:
                self._set_aside(UnusableInput('camera_info: none came'), self._info_topic)
            return None
        try:
            lens = self._intrinsics(info, shape)
        except UnusableInput as reason:
            self._set_aside(reason, self._info_topic)
            return None
        depth = None
        try:
            depth = self._depth(header, shape, tolerance, deadline)
        except UnusableInput as reason:
            self._set_aside(reason, self._depth_topic)
        return View(lens, depth, self._frames.below(header, self._set_aside_tf))

    def pose(self, header: Header, deadline: float = 0.0) -> NDArray[np.float64] | None:
        """Returns where the camera was, 4×4 in the fixed frame, m; None where it is not known.

        Args:
            header: Of the image.
            deadline: `time.monotonic()` until which TF that is on its way is waited for.
        """
        return self._frames.pose(
            header, self._set_aside_tf, deadline, lambda: bool(self._subscriptions)
        )

    def look_for_depth(self) -> None:
        """Logs once which depth is published, where the topic is not and a coded or raw one is."""
        topic = self._depth_topic
        if not topic or not self._subscriptions or self._node.count_publishers(topic):
            return
        raw = topic.removesuffix(f'/{topic.rpartition("/")[2]}') if _is_coded(topic) else topic
        for other in (raw, *(f'{raw}/{transport}' for transport in TRANSPORTS)):
            if other != topic and self._node.count_publishers(other):
                told = f'depth: nobody publishes {topic}, but {other} is there'
                self._log_once(f'{told}; give depth:={other}, or this in depth_topics', told)
                return

    def _set_aside(self, reason: UnusableInput, topic: str) -> None:
        """Counts what cannot be used, and logs it once."""
        self._statistics.set_aside(str(reason))
        self._log_once(reason.line(topic), str(reason))

    def _set_aside_tf(self, reason: str) -> None:
        self._set_aside(UnusableInput(reason), 'TF')

    def _log_once(self, line: str, what: str) -> None:
        """Logs a line unless one of the same matter was logged."""
        if what not in self._logged and len(self._logged) < MAX_LOGGED_REASONS:
            self._logged.add(what)
            self._node.get_logger().warning(line)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_depth(self, message: Image | CompressedImage) -> None:
        stamp = nanoseconds(message.header)
        self._depths.put(stamp, message)
        with self._changed:
            self._newest = stamp
            self._heard = time.monotonic()
            self._changed.notify_all()

    def _check_lost(self) -> None:
        """Raises UnusableInput where depth is published and does not come."""
        for subscription in self._subscriptions:
            if subscription.msg_type is not CameraInfo and subscription.get_publisher_count():
                raise UnusableInput('depth: none came', why_no_messages('depth', self._depth_topic))

    def _intrinsics(self, info: CameraInfo, shape: tuple[int, int]) -> Intrinsics:
        """Returns the lens, worked out anew where something has changed; for several threads."""
        known = self._lens
        if known is None or known[0] != shape or not _same_intrinsics(known[1], info):
            self._lens = known = (shape, info, read_image_intrinsics(info, shape, self._rectified))
        return known[2]

    def _depth(
        self, header: Header, shape: tuple[int, int], tolerance: float, deadline: float
    ) -> NDArray[np.float32] | None:
        """Returns the image's depth, H×W float32, m; None while none comes."""
        stamp = nanoseconds(header)
        with self._changed:
            if time.monotonic() - self._heard > ALIVE:
                self._check_lost()
                return None
            self._changed.wait_for(
                lambda: self._newest >= stamp or not self._subscriptions,
                max(0.0, deadline - time.monotonic()),
            )
        message = self._depths.nearest(stamp, tolerance)
        if message is None:
            raise UnusableInput('depth: of another time', f'depth_tolerance is {tolerance} s')
        return read_registered(message, header, shape, self._registered)


def depth_type(topic: str) -> type[Image] | type[CompressedImage]:
    """Returns the message type of a depth topic, by its ending."""
    return CompressedImage if _is_coded(topic) else Image


def _is_coded(topic: str) -> bool:
    return topic.rpartition('/')[2] in TRANSPORTS


def why_no_messages(what: str, topic: str) -> str:
    """Returns one line that says why what is published on a topic may not come."""
    return (
        f'no {what} from {topic}, though it has a publisher: where messages are large, DDS may lose'
        f' all of them on best effort; see qos_overrides.{topic}.subscription.reliability'
    )


def read_registered(
    message: Image | CompressedImage, header: Header, shape: tuple[int, int], registered: bool
) -> NDArray[np.float32]:
    """Reads the depth of an image.

    Args:
        message: 16UC1 or 32FC1, or these compressed; see `decode_depth`.
        header: Of the image.
        shape: Its height and width, px.
        registered: Whether it is registered to the image, whatever its frame_id says.

    Returns:
        H×W, m; see `read_depth`.

    Raises:
        UnusableInput: It is not registered to that image, or no depth.
    """
    frame = message.header.frame_id
    if isinstance(message, Image) and (message.height, message.width) != shape:
        sizes = f'{message.width}×{message.height}, the images are {shape[1]}×{shape[0]}'
        raise UnusableInput('depth: of another size', f'{sizes}; it must be registered to them')
    if frame != header.frame_id and not registered:
        raise UnusableInput(
            'depth: of another frame',
            f'{frame}, the images are in {header.frame_id}; set depth_registered if it is'
            ' registered to them all the same',
        )
    try:
        if isinstance(message, Image):
            return read_depth(message)
        return decode_depth(message.format, message.data, shape)
    except InvalidImageError as refusal:
        raise UnusableInput(f'depth: {refusal.reason}', str(refusal)) from None
    except ValueError as error:
        told = f'format {message.format!r}, {len(message.data)} bytes'
        raise UnusableInput(f'depth: {error}', told) from None


def read_image_intrinsics(info: CameraInfo, shape: tuple[int, int], rectified: bool) -> Intrinsics:
    """Reads the camera_info of an image.

    Args:
        info: Of the camera.
        shape: Height and width of the image, px.
        rectified: Whether it is.

    Raises:
        UnusableInput: It is not calibrated, or is not of that image.
    """
    try:
        lens = read_intrinsics(info, rectified)
    except ValueError as error:
        raise UnusableInput(f'camera_info: {first_line(error)}') from None
    if lens.size != (shape[1], shape[0]):
        sizes = f'{lens.size[0]}×{lens.size[1]}, the images are {shape[1]}×{shape[0]}'
        raise UnusableInput('camera_info: of another size', sizes)
    return lens


def read_intrinsics(info: CameraInfo, rectified: bool = False) -> Intrinsics:
    """Reads a camera_info, with its binning and its region of interest (image_pipeline's way).

    Drivers of rectified streams leave K at zero: P holds then. Where they leave P at zero and there
    is no distortion, K holds for rectified images, too.

    Args:
        info: Of the images.
        rectified: Whether these are rectified: P holds then, else K and D.

    Raises:
        ValueError: It is not calibrated, or has another distortion model.
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
    """Returns a header's stamp; rclpy's Time takes none below 0."""
    return int(header.stamp.sec * 10**9 + header.stamp.nanosec)
