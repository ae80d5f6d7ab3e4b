# SPDX-License-Identifier: Apache-2.0
"""The base class of the outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis


class Output(ABC):
    """A topic that the node publishes per image, reliable and volatile.

    Attributes:
        topic: Name of the topic.
        message_type: Type of its messages.
        depth: Depth of its history (QoS).
        needs_geometry: Whether the messages contain metres.
        needs_rocks: Whether the messages contain rocks. The others are published before the node
            waits for depth.
    """

    topic: ClassVar[str]
    message_type: ClassVar[Any]
    depth: ClassVar[int] = 5
    needs_geometry: ClassVar[bool] = False
    needs_rocks: ClassVar[bool] = True

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        """Creates the publisher, whose QoS can be overridden by parameters.

        Args:
            node: The node.
            camera: Name of the camera, which becomes part of the topic, `~/CAMERA/mask`; '' = none.
        """
        self._publisher = node.create_lifecycle_publisher(
            self.message_type,
            self.topic.replace('~', f'~/{camera}' if camera else '~'),
            QoSProfile(depth=self.depth, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            # Each default callback costs time in the executor before every image, and the
            # subscriber logs the same warnings.
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )
        self._node = node

    @property
    def has_subscribers(self) -> bool:
        """Whether the topic has a subscriber."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, analysis: Analysis, parameters: Parameters) -> None:
        """Publishes the messages of an image."""
        for message in self.messages(analysis, parameters):
            self._publisher.publish(message)

    @classmethod
    @abstractmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Returns the messages of an image."""

    def destroy(self) -> None:
        """Destroys the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)
