# SPDX-License-Identifier: Apache-2.0
"""What all outputs have in common."""

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
    """A topic of the node's own, reliable and volatile.

    Attributes:
        topic: Its name.
        message_type: Of its messages.
        depth: Of its history.
        needs_geometry: Whether it tells metres.
        needs_rocks: Whether it tells of rocks; what tells of pixels only waits for no depth.
    """

    topic: ClassVar[str]
    message_type: ClassVar[Any]
    depth: ClassVar[int] = 5
    needs_geometry: ClassVar[bool] = False
    needs_rocks: ClassVar[bool] = True

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        """Creates the publisher, whose QoS parameters may override.

        Args:
            node: That it belongs to.
            camera: Comes into the topic's name, `~/CAMERA/mask`; '' for none.
        """
        self._publisher = node.create_lifecycle_publisher(
            self.message_type,
            self.topic.replace('~', f'~/{camera}' if camera else '~'),
            QoSProfile(depth=self.depth, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            # What they would warn of the subscriber warns of, too; and the executor asks each of
            # them before it takes an image.
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )
        self._node = node

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody subscribes."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, analysis: Analysis, parameters: Parameters) -> None:
        """Builds what the image gives and sends it."""
        for message in self.messages(analysis, parameters):
            self._publisher.publish(message)

    @classmethod
    @abstractmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Builds the messages of an image."""

    def destroy(self) -> None:
        """Takes the topic away."""
        self._node.destroy_lifecycle_publisher(self._publisher)
