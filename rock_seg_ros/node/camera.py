# SPDX-License-Identifier: Apache-2.0
"""One camera: its subscription, its outputs and its last results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image

from rock_seg_ros.node.camera_geometry import CameraGeometry, why_no_messages
from rock_seg_ros.node.diagnostics import CameraStatistics
from rock_seg_ros.node.images import ImageReader
from rock_seg_ros.node.outputs import OUTPUTS, Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.abundance import compute_abundance, observe
from rock_seg_ros.perception.geometry.location import locate
from rock_seg_ros.perception.image_io.decoding import read_label_image
from rock_seg_ros.perception.instances.tracking import Tracker

IMAGE_TIMEOUT = 5.0  # s without an image, after which the reason is reported
CAMERA_PLACEHOLDER = '{camera}'
COMPRESSED_SUFFIX = '/compressed'  # ending of the topic of compressed images
Size = tuple[int, ...]  # height and width, px; () = not known
RAW_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'


def camera_names(topics: Sequence[str]) -> list[str]:
    """Returns the names of cameras, derived from their topics.

    The name is the second-to-last part of the topic: 'front' for `/front/image_raw`, and for
    `/front`. Where several cameras would have the same name, their names are the whole topics
    with _ instead of /.

    Args:
        topics: Full names of the image topics.

    Raises:
        ValueError: Two topics are equal, or still have the same name.
    """
    parts = [topic.strip('/').split('/') for topic in topics]
    short = [part[-2:][0] for part in parts]
    count = Counter(short)
    names = [
        name if count[name] == 1 else '_'.join(part)
        for name, part in zip(short, parts, strict=True)
    ]
    for number, name in enumerate(names):
        if (first := names.index(name)) < number:
            raise ValueError(
                f'image_topics {topics[first]} and {topics[number]} would both be camera {name!r}'
            )
    return names


def derived_topic(node: LifecycleNode, topic: str, derive: Callable[[str], str]) -> str:
    """Returns a name derived from that of a topic, before remapping if a rule remaps the result."""
    name = derive(node.resolve_topic_name(topic, only_expand=True))
    remapped = node.resolve_topic_name(name) != name
    return name if remapped else derive(node.resolve_topic_name(topic))


@dataclass(frozen=True)
class IncomingImage:
    """An image message with its camera and the time of its receipt, `time.monotonic()`."""

    camera: Camera
    message: Any
    received: float

    @property
    def size(self) -> Size:
        """Height and width, px; for a compressed image those of the camera's last image."""
        if isinstance(self.message, CompressedImage):
            return self.camera.last_size
        return (self.message.height, self.message.width)


class Camera:
    """A camera of the node.

    Attributes:
        name: Name of the camera; '' if `image_topics` is empty.
        topic: Full name of the subscribed topic.
        statistics: Counts the images by outcome.
        reader: Converts the messages to arrays.
        valid_mask: H×W uint8, 0 where there is never rock; None = rock may be anywhere.
        outputs: The outputs of the camera.
        geometry: Gives the intrinsics, depth and pose of an image.
        tracker: Keeps the ids of the rocks.
        reset_requested: Whether the tracker is reset before the next image.
        target: Id of the last target rock.
        last_analysis: The results of the last image.
        last_size: Size of the last image; () = there was none.
        subscription: The subscription to the images; None while the node is not active.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        before_remapping: str,
        topic: str,
        parameters: Parameters,
        statistics: CameraStatistics,
        geometry: CameraGeometry,
        tracker: Tracker,
        last_size: Size = (),
    ) -> None:
        """Reads the ignore mask. Topics are created by `advertise` and `subscribe`.

        Args:
            node: The node.
            name: Part of the outputs' topics, `~/NAME/mask`; '' for `~/mask`.
            before_remapping: The image topic as it is given; rclpy remaps each name once, and would
                remap the full name again.
            topic: Full name of the image topic, without the image transport.
            parameters: The parameters of the node.
            statistics: Counts the images by outcome.
            geometry: Gives the intrinsics, depth and pose of an image.
            tracker: Keeps the ids of the rocks.
            last_size: Size of the last image before; () = there was none.

        Raises:
            ValueError: The ignore mask cannot be read.
        """
        self.name = name
        self.statistics = statistics
        self.outputs: list[Output] = []
        self.geometry = geometry
        self.tracker = tracker
        self.reset_requested = False
        self.target: int | None = None
        self.last_analysis: Analysis | None = None
        self.last_size = last_size
        self.subscription: Any = None
        self._node = node
        self._transport = parameters.image_transport
        self._base_topic = topic
        self._name_for_rclpy = before_remapping
        if self._transport == 'compressed':
            self._name_for_rclpy = derived_topic(
                node, before_remapping, lambda name: name + COMPRESSED_SUFFIX
            )
        self.topic = node.resolve_topic_name(self._name_for_rclpy)
        self._no_images_reason = ''
        self.reader = ImageReader(
            lambda scaling: node.get_logger().warning(
                f'{self.topic}: {scaling}; set significant_bits to choose another number of bits'
            )
        )
        self.valid_mask: NDArray[np.uint8] | None = None
        if parameters.ignore_mask:
            self.valid_mask = read_label_image(
                parameters.ignore_mask.replace(CAMERA_PLACEHOLDER, name), palette_indices=False
            )

    def advertise(self) -> None:
        """Creates the publishers of the outputs; call `unadvertise` also after an error."""
        for output in OUTPUTS:
            self.outputs.append(output(self._node, self.name))

    def unadvertise(self) -> None:
        """Destroys the publishers of the outputs."""
        while self.outputs:
            self.outputs.pop().destroy()

    def subscribe(self, put: Callable[[IncomingImage], bool]) -> str:
        """Subscribes to the images, camera_info and depth.

        Args:
            put: Called with each image; returns whether it replaced an older image.

        Returns:
            The full name of the image topic.
        """

        def receive(message: Any, info: Any) -> None:
            subscription = self.subscription
            publishers = 1 if subscription is None else subscription.get_publisher_count()
            self.statistics.received(info.get('publication_sequence_number'), publishers)
            if put(IncomingImage(self, message, time.monotonic())):
                self.statistics.dropped()
            time.sleep(0)  # releases the GIL, so that the worker starts without delay

        self.geometry.subscribe()
        self.statistics.new_subscription()
        self.subscription = self._node.create_subscription(
            CompressedImage if self._transport == 'compressed' else Image,
            self._name_for_rclpy,
            receive,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        return self.topic

    def unsubscribe(self) -> None:
        """Unsubscribes from the images, camera_info and depth."""
        self.geometry.unsubscribe()
        if self.subscription is not None:
            self._node.destroy_subscription(self.subscription)
            self.subscription = None

    def release(self) -> None:
        """Releases the last image and depth. The worker must not be running."""
        self.last_analysis = None
        self.geometry.release()

    def abundance(self, tolerance: float) -> dict[str, Any]:
        """Returns the rock abundance in the last image as a JSON object; see `Abundance`.

        Args:
            tolerance: Maximum difference between the stamps of the image and its depth, s.
        """
        analysis = self.last_analysis
        assert analysis is not None
        analysis.tracker = None  # only the worker uses the tracker; no ids are needed here
        shape, view = analysis.image.shape[:2], analysis.view
        if view is None:  # no output needed it, or camera_info arrived later
            view = self.geometry.view(analysis.header, shape, tolerance)
        observation = observe(
            analysis.rocks,
            locate(analysis.rocks, view) if view else [],
            shape,
            view,
            min_area=analysis.settings.rocks.min_area,
            valid_mask=analysis.settings.valid_mask,
        )
        stamp = analysis.header.stamp
        return {'stamp': [stamp.sec, stamp.nanosec], **compute_abundance(observation).to_dict()}

    def check_reception(self) -> str:
        """Returns why no images arrive, '' while they do; logs each new reason."""
        before, self._no_images_reason = self._no_images_reason, self._why_no_images()
        if self._no_images_reason and self._no_images_reason != before:
            self._node.get_logger().warning(self._no_images_reason)
        self.geometry.check_depth_topic()
        return self._no_images_reason

    def _why_no_images(self) -> str:
        """Returns why no images arrive, according to the ROS graph."""
        if self.subscription is None or self.statistics.seconds_without_image() < IMAGE_TIMEOUT:
            return ''
        types = self._published_types(self._name_for_rclpy)
        expected = COMPRESSED_TYPE if self._transport == 'compressed' else RAW_TYPE
        if expected in types:
            return why_no_messages('images', self.topic)
        reason = f'no images: {self.topic} has no publisher'
        if types:
            reason = (
                f'no images: {self.topic} has the type {types[0]}, but image_transport'
                f' {self._transport} needs {expected}'
            )
        return f'{reason}{self._other_transport()}'

    def _other_transport(self) -> str:
        """Returns advice if the images are published with the other transport, '' if not."""
        topic, raw_topic = self._base_topic, self._base_topic.removesuffix(COMPRESSED_SUFFIX)
        rename = f'{raw_topic} in image_topics' if self.name else f'image:={raw_topic}'
        compressed = 'image_transport:=compressed'
        choices = {
            'raw': [
                (topic + COMPRESSED_SUFFIX, COMPRESSED_TYPE, compressed),
                (topic, COMPRESSED_TYPE, f'{rename} {compressed}'),
            ],
            'compressed': [
                (topic, RAW_TYPE, 'image_transport:=raw'),
                (topic, COMPRESSED_TYPE, rename),
            ],
        }
        for other, message_type, advice in choices[self._transport]:
            fits = message_type in self._published_types(other)
            if fits and (raw_topic != topic or rename not in advice):
                return f'; {other} is published, use {advice}'
        return ''

    def _published_types(self, topic: str) -> list[str]:
        """Returns the message types that the publishers of a topic have."""
        return [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
