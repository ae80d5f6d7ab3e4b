# SPDX-License-Identifier: Apache-2.0
"""One camera: its subscription, its outputs, and what became of its images."""

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

IMAGE_TIMEOUT = 5.0
CAMERA_PLACEHOLDER = '{camera}'
COMPRESSED_SUFFIX = '/compressed'  # ending of the topic of coded images
Size = tuple[int, ...]  # height and width, px; () = not known
RAW_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'


def camera_names(topics: Sequence[str]) -> list[str]:
    """Names cameras after their topics.

    A camera is called by the part before the last of its topic (`/front/image_raw` is 'front',
    `/front` too); those that would be called the same, by the whole topic with _ for /.

    Args:
        topics: Full names.

    Raises:
        ValueError: Two topics are the same, or have the same name even so.
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


@dataclass(frozen=True)
class IncomingImage:
    """A message and where and when it came: `time.monotonic()`."""

    camera: Camera
    message: Any
    received: float

    @property
    def size(self) -> Size:
        """Height and width, px; of a coded image those that the camera's last one had."""
        if isinstance(self.message, CompressedImage):
            return self.camera.last_size
        return (self.message.height, self.message.width)


class Camera:
    """A camera that the node works for.

    Attributes:
        name: '' where `image_topics` is empty.
        statistics: What became of its images.
        reader: Makes arrays of its messages.
        valid_mask: H×W uint8, 0 where there is never rock; None = rock may be anywhere.
        outputs: What is published of its images.
        geometry: What makes metres of its pixels.
        tracker: Knows which of its rocks is which.
        reset_requested: Whether the tracker is to forget them before the next image.
        target: Id of the rock that was its target last.
        last: What was last found in one of its images.
        last_size: Of its last image; () = there was none.
        subscription: While images are taken.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        topic: str,
        parameters: Parameters,
        statistics: CameraStatistics,
        geometry: CameraGeometry,
        tracker: Tracker,
        last_size: Size = (),
    ) -> None:
        """Reads its ignore mask; creates no topics yet.

        Args:
            node: That it belongs to.
            name: Comes into the outputs' topics, `~/NAME/mask`; '' for `~/mask`.
            topic: Full name of its images' topic, image transport left out.
            parameters: Tell the image transport and the ignore mask.
            statistics: Where its images are counted.
            geometry: What makes metres of its pixels.
            tracker: Knows which of its rocks is which.
            last_size: Of its last image before; () = there was none.

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
        self.last: Analysis | None = None
        self.last_size = last_size
        self.subscription: Any = None
        self._node = node
        self._transport = parameters.image_transport
        self._named = topic
        self._topic = topic + (COMPRESSED_SUFFIX if self._transport == 'compressed' else '')
        self._silence = ''
        self.reader = ImageReader(
            lambda told: node.get_logger().warning(
                f'{self._topic}: {told}; the parameter significant_bits sets how many'
            )
        )
        self.valid_mask: NDArray[np.uint8] | None = None
        if parameters.ignore_mask:
            self.valid_mask = read_label_image(parameters.ignore_mask.replace(CAMERA_PLACEHOLDER, name))

    def advertise(self) -> None:
        """Creates the outputs' topics; `withdraw` takes away what there is, also after an error."""
        for kind in OUTPUTS:
            self.outputs.append(kind(self._node, self.name))

    def withdraw(self) -> None:
        """Takes the outputs' topics away."""
        while self.outputs:
            self.outputs.pop().destroy()

    def subscribe(self, put: Callable[[IncomingImage], bool]) -> str:
        """Takes images from now on.

        Args:
            put: Told of each; returns whether an older one is lost by it.

        Returns:
            The topic's full name.
        """

        def receive(message: Any, info: Any) -> None:
            subscription = self.subscription
            publishers = 1 if subscription is None else subscription.get_publisher_count()
            self.statistics.received(info.get('publication_sequence_number'), publishers)
            if put(IncomingImage(self, message, time.monotonic())):
                self.statistics.dropped()
            time.sleep(0)  # lets the worker have Python now, not when this thread is through

        self.geometry.subscribe()
        self.statistics.new_subscription()
        self.subscription = self._node.create_subscription(
            CompressedImage if self._transport == 'compressed' else Image,
            self._topic,
            receive,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        return self._topic

    def unsubscribe(self) -> None:
        """Takes no more images."""
        self.geometry.unsubscribe()
        if self.subscription is not None:
            self._node.destroy_subscription(self.subscription)
            self.subscription = None

    def release(self) -> None:
        """Keeps no image and no depth; while the worker does not work."""
        self.last = None
        self.geometry.release()

    def abundance(self, tolerance: float) -> dict[str, Any]:
        """Returns the rock abundance in its last image, as JSON has it; see perception.abundance.

        Args:
            tolerance: Most that the stamp of its depth may differ, s.
        """
        analysis = self.last
        assert analysis is not None
        analysis.tracker = None  # that is the worker's; rocks that were not asked for need no ids
        shape, view = analysis.image.shape[:2], analysis.view
        if view is None:  # not asked for, or camera_info came later
            view = self.geometry.view(analysis.header, shape, tolerance)
        seen = observe(
            analysis.rocks,
            locate(analysis.rocks, view) if view else [],
            shape,
            view,
            min_area=analysis.settings.rocks.min_area,
        )
        stamp = analysis.header.stamp
        return {'stamp': [stamp.sec, stamp.nanosec], **compute_abundance(seen).to_dict()}

    def silence(self) -> str:
        """Returns why no images come, empty while they do; logs it when it begins or changes."""
        before, self._silence = self._silence, self._why_silent()
        if self._silence and self._silence != before:
            self._node.get_logger().warning(self._silence)
        self.geometry.look_for_depth()
        return self._silence

    def _why_silent(self) -> str:
        """Returns why no images come, as far as the graph tells."""
        if self.subscription is None or self.statistics.silence() < IMAGE_TIMEOUT:
            return ''
        kinds = self._published(self._topic)
        own = COMPRESSED_TYPE if self._transport == 'compressed' else RAW_TYPE
        if own in kinds:
            return why_no_messages('images', self._topic)
        advice = self._other_transport()
        if not kinds:
            told = f'no images: nobody publishes {self._topic}'
        else:
            told = (
                f'no images: {self._topic} is {kinds[0]}, but image_transport'
                f' {self._transport} wants {own}'
            )
        return f'{told}{advice}'

    def _other_transport(self) -> str:
        """Returns which topic there is in the other transport, and what to give; '' if none is."""
        named, bare = self._named, self._named.removesuffix(COMPRESSED_SUFFIX)
        shorter = f'{bare} in image_topics' if self.name else f'image:={bare}'
        coded = 'image_transport:=compressed'
        choices = {
            'raw': [
                (named + COMPRESSED_SUFFIX, COMPRESSED_TYPE, coded),
                (named, COMPRESSED_TYPE, f'{shorter} {coded}'),
            ],
            'compressed': [
                (named, RAW_TYPE, 'image_transport:=raw'),
                (named, COMPRESSED_TYPE, shorter),
            ],
        }
        for topic, kind, advice in choices[self._transport]:
            fits = kind in self._published(topic)
            if fits and (bare != named or shorter not in advice):
                return f'; {topic} is there, give {advice}'
        return ''

    def _published(self, topic: str) -> list[str]:
        """Returns the message types that a topic is published with."""
        return [each.topic_type for each in self._node.get_publishers_info_by_topic(topic)]
