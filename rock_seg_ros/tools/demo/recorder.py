# SPDX-License-Identifier: Apache-2.0
"""Listens to the node: writes what comes into a bag and sorts it by image."""

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

# Topic of the node's own → message type. `rocks` closes an image.
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
    """What the node said of one image.

    Attributes:
        messages: Topic of `OUTPUTS` → message.
    """

    messages: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether nothing is outstanding."""
        return len(self.messages) == len(OUTPUTS)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """H×W uint8, 255 rock."""
        message = self.messages['mask']
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        return rows[:, : message.width]

    @property
    def rocks(self) -> int:
        """How many rocks."""
        return int(self.messages['rocks'].width)


class Recorder:
    """Subscribes to a node's outputs and its diagnostics.

    Attributes:
        results: Stamp (s, ns) of an image → what was said of it.
        diagnostics: The newest diagnostics' keys and values; empty before the first.
        error_message: Why the node does not work at all; empty if it does, or has said nothing yet.
        report_count: How many diagnostics came.
    """

    def __init__(self, node: Node, source: str, bag: BagWriter, check: Callable[[], None]) -> None:
        """Subscribes.

        Args:
            node: Which subscribes; nobody else may spin it.
            source: Fully qualified name of the node that is listened to.
            bag: Open for writing; gets every message as it came.
            check: Called at least ten times a second; raises when waiting makes no sense any more.
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
            take = partial(self._on_output, output, topic, kind)
            self._subscriptions.append(
                node.create_subscription(kind, topic, take, QoSProfile(depth=DEPTH), raw=True)
            )
        bag.add_topic(DIAGNOSTICS, 'diagnostic_msgs/msg/DiagnosticArray')
        node.create_subscription(
            DiagnosticArray, DIAGNOSTICS, self._on_diagnostics, QoSProfile(depth=DEPTH), raw=True
        )

    def connected(self) -> bool:
        """Whether every subscription to an output has found its publisher."""
        return all(found.get_publisher_count() for found in self._subscriptions)

    def spin_until(self, moment: float) -> None:
        """Takes what comes until `time.monotonic()` is `moment`."""
        while (left := moment - time.monotonic()) > 0:
            self._spin(left)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Takes what comes until the condition holds; returns whether it did within `timeout` s."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._spin(left)
        return True

    def wait_for_report(self, timeout: float) -> bool:
        """Waits for diagnostics newer than this call; returns whether they came."""
        before = self.report_count
        return self.wait_for(lambda: self.report_count > before, timeout)

    def close(self) -> None:
        """Ends the executor."""
        self._executor.shutdown()

    def _spin(self, most: float) -> None:
        self._check()
        self._executor.spin_once(timeout_sec=min(most, SPIN_TIMEOUT))

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
