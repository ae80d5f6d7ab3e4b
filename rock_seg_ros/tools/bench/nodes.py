# SPDX-License-Identifier: Apache-2.0
"""Measures nodes through DDS for `rock_seg bench`. Each node runs in its own process."""

from __future__ import annotations

import ctypes
import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PolygonInstanceStamped
from numpy.typing import NDArray
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from rock_seg_ros.node.images import to_message
from rock_seg_ros.tools.bench.implementations import BenchError
from rock_seg_ros.tools.bench.timing import Run, rss_mb
from rock_seg_ros.tools.node_process import NodeProcess

OUTPUTS = {
    'mask': Image,
    'class_ids': Image,
    'confidence': Image,
    'overlay': Image,
    'overlay/compressed': CompressedImage,
    'polygons': PolygonInstanceStamped,
    'polygon_points': PointCloud2,
    'rocks': PointCloud2,
}
NODE_PROGRAM = ('-m', 'rock_seg_ros.node')
DEFAULT_OUTPUTS = ('mask', 'overlay', 'polygon_points', 'rocks')
START_TIMEOUT = 300.0
MIN_ANSWER_TIMEOUT = 3.0
SPIN_TIMEOUT = 0.1
STAMP = struct.Struct('<iI')
STAMP_AT = 4  # bytes, after the CDR header
MAX_ANSWER_TIMEOUT = 120.0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
KEPT_BYTES = 1 << 28


class SerializedImage:
    """A serialized Image whose stamp is changed each time that it is published."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        """Serializes H×W×3 uint8 RGB in advance, because a camera driver does this untimed."""
        self._wire = bytearray(serialize_message(to_message(rgb, 'rgb8', Header(frame_id='bench'))))

    def stamped(self, number: int) -> bytes:
        """Returns the message with a stamp of `number` seconds."""
        STAMP.pack_into(self._wire, STAMP_AT, number, 0)
        return bytes(self._wire)


class BenchNode:
    """A node in its own process, with a publisher of its images and subscribers of its outputs.

    Use it as a context manager, which ends the process.
    """

    def __init__(
        self,
        name: str,
        context: rclpy.Context,
        folder: Path,
        program: Sequence[str] = NODE_PROGRAM,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process.

        Args:
            name: Unique namespace of the node.
            context: ROS context of the publisher and the subscribers.
            folder: Folder of the log file.
            program: Arguments of the Python interpreter.
            parameters: Parameters of the node.
        """
        image = f'/{name}/image'
        self.name = name
        # A node per instance, so that spinning does not become slower with more instances.
        self._node = rclpy.create_node(
            f'bench_{name}', context=context, start_parameter_services=False
        )
        self._publisher = self._node.create_publisher(
            Image, image, 1, event_callbacks=PublisherEventCallbacks(use_default_callbacks=False)
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._subscriptions: list[Any] = []
        self._outputs: Mapping[str, int] = {}
        self._sent: dict[int, float] = {}
        self._missing: dict[int, Counter[str]] = {}
        self._done: dict[int, float] = {}
        # With best-effort reliability, DDS loses most messages above 0.5 MB.
        reliable = {f'qos_overrides.{image}.subscription.reliability': 'reliable'}
        self.process = NodeProcess(
            {**(parameters or {}), **reliable},
            {'__ns': f'/{name}', '__node': 'rock_seg'},
            folder / f'{name}.log',
            tuple(program),
        )

    def __enter__(self) -> BenchNode:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stop()

    def subscribe(
        self,
        outputs: Mapping[str, int],
        image: SerializedImage,
        timeout: float = MIN_ANSWER_TIMEOUT,
    ) -> None:
        """Subscribes only to these outputs, and waits until the node publishes them for an image.

        Args:
            outputs: Topic in `OUTPUTS` → number of messages per image.
            image: Image that is published.
            timeout: Time after which the image is published again, s. DDS loses images until both
                sides have discovered each other.

        Raises:
            BenchError: The node does not publish them; the message has the reason.
        """
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._outputs = outputs
        self._subscriptions = [
            self._node.create_subscription(
                OUTPUTS[topic],
                f'/{self.name}/rock_seg/{topic}',
                partial(self._on_output, topic),
                QoSProfile(depth=max(10, 2 * count)),
                raw=True,  # deserialization is not part of the measurement
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )
            for topic, count in outputs.items()
        ]
        first = len(self._sent)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self._connected():
                if 'cannot be ' in self.process.last_lines():
                    raise BenchError(f'{self.name}: {self.process.last_lines()}')
                self._check()
                self._executor.spin_once(timeout_sec=SPIN_TIMEOUT)
            else:
                self._send(image)
                if self._await(first, max(timeout, MIN_ANSWER_TIMEOUT)):
                    return
        raise BenchError(
            f'{self.name}: no results after {START_TIMEOUT:.0f} s: {self.process.last_lines()}'
        )

    def run(self, image: SerializedImage) -> Run:
        """Measures the time from the publication of an image to the last subscribed output.

        Raises:
            BenchError: An output did not arrive.
        """
        self._done.clear()
        number = self._send(image)
        if not self._await(number, MAX_ANSWER_TIMEOUT):
            topics = ', '.join(self._missing[number])
            raise BenchError(
                f'{self.name}: {topics} did not arrive within {MAX_ANSWER_TIMEOUT:.0f} s'
            )
        return Run(self._done[number] - self._sent[number], rss_mb(self.process.pid))

    def overload(self, image: SerializedImage, rate: float, images: int) -> list[Run]:
        """Publishes images at a fixed rate, without waiting for their results.

        Args:
            image: Image that is published repeatedly.
            rate: Images per second.
            images: Number of images.

        Returns:
            The age of the outputs when they were complete, for each image that was not dropped.
        """
        first = len(self._sent)
        start = time.perf_counter()
        runs: list[Run] = []
        for turn in range(images):
            self._send(image)
            remaining = 1 / rate
            while remaining > 0:  # at least once per image, even if publishing is slow
                self._executor.spin_once(timeout_sec=remaining)
                runs += self._take_done(first)
                remaining = start + (turn + 1) / rate - time.perf_counter()
        return runs

    def _take_done(self, first: int) -> list[Run]:
        done = [number for number in self._done if number >= first]
        return [Run(self._done.pop(n) - self._sent[n], rss_mb(self.process.pid)) for n in done]

    def _connected(self) -> bool:
        has_publishers = all(s.get_publisher_count() for s in self._subscriptions)
        return has_publishers and self._publisher.get_subscription_count() > 0

    def _check(self) -> None:
        """Raises BenchError if the node has ended."""
        if self.process.status() is not None:
            raise BenchError(f'{self.name}: the node ended: {self.process.last_lines()}')

    def _send(self, image: SerializedImage) -> int:
        number = len(self._sent)
        wire = image.stamped(number)
        self._missing[number] = Counter(self._outputs)
        self._sent[number] = time.perf_counter()
        self._publisher.publish(wire)
        return number

    def _await(self, first: int, timeout: float) -> bool:
        """Waits for the outputs of image `first` or a later one; returns False on timeout."""
        deadline = time.monotonic() + timeout
        while (missing := max(self._done, default=-1) < first) and time.monotonic() < deadline:
            self._check()
            self._executor.spin_once(timeout_sec=SPIN_TIMEOUT)
        return not missing

    def _on_output(self, topic: str, data: bytes) -> None:
        arrival = time.perf_counter()
        number, _ = STAMP.unpack_from(data, STAMP_AT)
        missing = self._missing.get(number)
        if missing is None:
            return
        missing[topic] -= 1
        if not +missing:
            self._done[number] = arrival
            del self._missing[number]


def keep_freed_memory() -> None:
    """Makes this process keep freed memory, so that images do not cause page faults again.

    Their cost varies between runs and belongs neither to the node nor to DDS.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(setting, KEPT_BYTES)


@contextmanager
def ros_context() -> Iterator[rclpy.Context]:
    """Yields a ROS context without signal handlers."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield context
    finally:
        context.try_shutdown()
