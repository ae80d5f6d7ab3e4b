# SPDX-License-Identifier: Apache-2.0
"""Subscribes to the outputs of the node, writes them to a bag and groups them by image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from rock_seg_ros.tools.bag.files import BagWriter

# Private topic of the node → its message type. `rocks` is the last message of an image.
OUTPUTS = {
    'mask': ('sensor_msgs/msg/Image', Image),
    'overlay/compressed': ('sensor_msgs/msg/CompressedImage', CompressedImage),
    'polygon_points': ('sensor_msgs/msg/PointCloud2', PointCloud2),
    'rocks': ('sensor_msgs/msg/PointCloud2', PointCloud2),
}
DIAGNOSTICS = '/diagnostics'
DEPTH = 50
SPIN_TIMEOUT = 0.1

Stamp = tuple[int, int]


@dataclass
class Result:
    """Results of the node for one image.

    Attributes:
        messages: Topic in `OUTPUTS` → message.
    """

    messages: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether all outputs have arrived."""
        return len(self.messages) == len(OUTPUTS)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """Mask, H×W uint8: 255 rock, 0 not rock."""
        message = self.messages['mask']
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        return rows[:, : message.width]

    @property
    def rocks(self) -> int:
        """Number of rocks."""
        return int(self.messages['rocks'].width)


class Recorder:
    """Subscribes to the outputs and the diagnostics of a node.

    Attributes:
        results: Stamp (s, ns) of an image → its results.
        diagnostics: Keys and values of the latest diagnostics; empty before the first.
        error_message: Message of the latest diagnostics if their level is ERROR, else empty.
        report_count: Number of diagnostics that arrived.
    """

    def __init__(self, node: Node, source: str, bag: BagWriter, check: Callable[[], None]) -> None:
        """Subscribes.

        Args:
            node: ROS node that subscribes; only the recorder may spin it.
            source: Fully qualified name of the node to record.
            bag: Bag that is open for writing; every message is written to it.
            check: Called at least ten times per second while waiting; raises to end the wait.
        """
        self.results: dict[Stamp, Result] = {}
        self.diagnostics: dict[str, str] = {}
        self.error_message = ''
        self.report_count = 0
        self._source = source
        self._bag = bag
        self._check = check
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._subscriptions: list[Any] = []
        for output, (name, kind) in OUTPUTS.items():
            topic = f'{source}/{output}'
            bag.add_topic(topic, name)
            on_output = partial(self._on_output, output, topic, kind)
            self._subscriptions.append(
                node.create_subscription(kind, topic, on_output, QoSProfile(depth=DEPTH), raw=True)
            )
        bag.add_topic(DIAGNOSTICS, 'diagnostic_msgs/msg/DiagnosticArray')
        node.create_subscription(
            DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, QoSProfile(depth=DEPTH), raw=True
        )

    def connected(self) -> bool:
        """Returns whether every subscription to an output has a publisher."""
        return all(each.get_publisher_count() for each in self._subscriptions)

    def spin_until(self, moment: float) -> None:
        """Receives messages until `time.monotonic()` reaches `moment`."""
        while (remaining := moment - time.monotonic()) > 0:
            self._spin(remaining)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Receives messages until the condition holds; returns False after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not condition():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            self._spin(remaining)
        return True

    def wait_for_report(self, timeout: float) -> bool:
        """Waits for new diagnostics; returns False after `timeout` s."""
        before = self.report_count
        return self.wait_for(lambda: self.report_count > before, timeout)

    def close(self) -> None:
        """Shuts the executor down."""
        self._executor.shutdown()

    def _spin(self, timeout: float) -> None:
        self._check()
        self._executor.spin_once(timeout_sec=min(timeout, SPIN_TIMEOUT))

    def _on_output(self, output: str, topic: str, kind: Any, data: bytes) -> None:
        self._bag.write(topic, time.time_ns(), data)
        message = deserialize_message(data, kind)
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        self.results.setdefault(stamp, Result({})).messages[output] = message

    def _on_diagnostics(self, data: bytes) -> None:
        self._bag.write(DIAGNOSTICS, time.time_ns(), data)
        for status in deserialize_message(data, DiagnosticArray).status:
            if status.name.startswith(self._source.lstrip('/') + ':'):
                self.diagnostics = {value.key: value.value for value in status.values}
                self.error_message = (
                    status.message if status.level == DiagnosticStatus.ERROR else ''
                )
                self.report_count += 1
