# SPDX-License-Identifier: Apache-2.0
"""Measures nodes through DDS for `rock_seg bench`. Each node runs in its own process."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from rock_seg_ros.node.images import to_message
from rock_seg_ros.tools.bench.contenders import BenchError
from rock_seg_ros.tools.bench.timing import Run, rss_mb
from rock_seg_ros.tools.node_process import NodeProcess

OUTPUTS = {'mask': Image, 'overlay': Image, 'polygon_points': PointCloud2, 'rocks': PointCloud2}
START_TIMEOUT = 300.0
ANSWER_TIMEOUT = 120.0
REPEAT_AFTER = 5.0
SPIN_TIMEOUT = 0.1
SECONDS_AT = 4  # bytes, after the CDR header: the seconds of the stamp, int32


class BenchNode:
    """A node in its own process, with a publisher of its images and subscribers of its outputs.

    Use it as a context manager, which stops the process.
    """

    def __init__(
        self,
        name: str,
        program: Sequence[str],
        parameters: Mapping[str, str] = MappingProxyType({}),
        outputs: Sequence[str] = ('mask',),
    ) -> None:
        """Starts the process, and creates the publisher and the subscribers.

        Args:
            name: Unique namespace of the node.
            program: Arguments of the Python interpreter.
            parameters: Parameters of the node.
            outputs: Topics in `OUTPUTS` that are subscribed to, each with one message per image.
        """
        self.name = name
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node(
            f'bench_{name}', context=self._context, start_parameter_services=False
        )
        self._publisher = node.create_publisher(Image, f'/{name}/image', 1)
        # Raw, because deserialization is not part of the measurement.
        self._subscriptions = [
            node.create_subscription(
                OUTPUTS[topic], f'/{name}/rock_seg/{topic}', self._on_output, 10, raw=True
            )
            for topic in outputs
        ]
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._sent: list[float] = []  # the stamp of an image is its place in this list
        self._arrived: Counter[int] = Counter()  # stamp → number of outputs
        self._done: dict[int, Run] = {}  # stamp → result, once all outputs have arrived
        # With best-effort reliability, DDS loses most messages above 0.5 MB.
        reliable = {f'qos_overrides./{name}/image.subscription.reliability': 'reliable'}
        self._folder = TemporaryDirectory()
        self._process = NodeProcess(
            {**parameters, **reliable},
            {'__ns': f'/{name}', '__node': 'rock_seg'},
            Path(self._folder.name) / 'log',
            program,
        )

    def __enter__(self) -> BenchNode:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stop()
        self._context.try_shutdown()
        self._folder.cleanup()

    def await_ready(self, image: NDArray[np.uint8]) -> None:
        """Publishes H×W×3 uint8 RGB until all outputs have arrived for it.

        It is repeated, because DDS loses images until both sides have discovered each other.

        Raises:
            BenchError: They do not arrive; the message has the reason.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self._spin(SPIN_TIMEOUT)
            if self._connected():
                self._send(_message(image))
                if self._await(0, REPEAT_AFTER):
                    return
        raise BenchError(
            f'{self.name}: no results after {START_TIMEOUT:.0f} s: {self._process.last_lines()}'
        )

    def run(self, image: NDArray[np.uint8]) -> Run:
        """Measures the time from the publication of H×W×3 uint8 RGB to the last output.

        Raises:
            BenchError: An output did not arrive.
        """
        stamp = self._send(_message(image))
        if not self._await(stamp, ANSWER_TIMEOUT):
            raise BenchError(f'{self.name}: an output did not arrive within {ANSWER_TIMEOUT:.0f} s')
        return self._done[stamp]

    def overload(self, image: NDArray[np.uint8], rate: float, images: int) -> list[Run]:
        """Publishes an image at a fixed rate, without waiting for the results.

        Args:
            image: H×W×3 uint8 RGB.
            rate: Images per second.
            images: Number of images.

        Returns:
            The age of the outputs when they were complete, for each image that was not dropped.
        """
        self._done.clear()
        message = _message(image)
        start = time.perf_counter()
        for turn in range(1, images + 1):
            self._send(message)
            self._spin(0.0)  # at least once per image, even if publishing is slow
            while (remaining := start + turn / rate - time.perf_counter()) > 0:
                self._spin(remaining)
        return list(self._done.values())

    def _connected(self) -> bool:
        has_publishers = all(s.get_publisher_count() for s in self._subscriptions)
        return has_publishers and self._publisher.get_subscription_count() > 0

    def _send(self, message: Image) -> int:
        """Publishes an image with a new stamp; returns the stamp, s."""
        message.header.stamp.sec = stamp = len(self._sent)
        serialized = serialize_message(message)  # not timed, because a camera driver does it
        self._sent.append(time.perf_counter())
        self._publisher.publish(serialized)
        return stamp

    def _await(self, first: int, timeout: float) -> bool:
        """Waits for the outputs of image `first` or a later one; returns False on timeout."""
        deadline = time.monotonic() + timeout
        while (missing := max(self._done, default=-1) < first) and time.monotonic() < deadline:
            self._spin(SPIN_TIMEOUT)
        return not missing

    def _spin(self, timeout: float) -> None:
        """Receives outputs; raises BenchError if the node has ended."""
        if self._process.status() is not None:
            raise BenchError(f'{self.name}: the node ended: {self._process.last_lines()}')
        self._executor.spin_once(timeout_sec=timeout)

    def _on_output(self, serialized: bytes) -> None:
        arrival = time.perf_counter()
        (stamp,) = struct.unpack_from('<i', serialized, SECONDS_AT)
        self._arrived[stamp] += 1
        if self._arrived[stamp] == len(self._subscriptions):
            self._done[stamp] = Run(arrival - self._sent[stamp], rss_mb(self._process.pid))


def _message(image: NDArray[np.uint8]) -> Image:
    return to_message(image, 'rgb8', Header(frame_id='bench'))
