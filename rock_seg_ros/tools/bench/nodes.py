# SPDX-License-Identifier: Apache-2.0
"""Measures nodes through DDS for `rock_seg bench`. Each node runs in its own process."""

from __future__ import annotations

import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
STAMP = struct.Struct('<i')  # the seconds; the nanoseconds stay 0
STAMP_AT = 4  # bytes, after the CDR header


def serialize_image(rgb: NDArray[np.uint8]) -> bytearray:
    """Serializes H×W×3 uint8 RGB in advance, because a camera driver does this untimed."""
    return bytearray(serialize_message(to_message(rgb, 'rgb8', Header(frame_id='bench'))))


@dataclass(frozen=True)
class NodeProgram:
    """How a node is started.

    Attributes:
        name: Unique namespace of the node.
        program: Arguments of the Python interpreter.
        parameters: Parameters of the node.
        outputs: Topics in `OUTPUTS` that are subscribed to, each with one message per image.
    """

    name: str
    program: Sequence[str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ('mask',)


class BenchNode:
    """A node in its own process, with a publisher of its images and subscribers of its outputs."""

    def __init__(self, program: NodeProgram, context: rclpy.Context, folder: Path) -> None:
        """Starts the process, and creates the publisher and the subscribers.

        Args:
            program: How the node is started.
            context: ROS context of the publisher and the subscribers.
            folder: Folder of the log file.
        """
        self.name = name = program.name
        # A node per instance, so that spinning does not become slower with more instances.
        self._node = rclpy.create_node(
            f'bench_{name}', context=context, start_parameter_services=False
        )
        self._publisher = self._node.create_publisher(Image, f'/{name}/image', 1)
        # Raw, because deserialization is not part of the measurement.
        self._subscriptions = [
            self._node.create_subscription(
                OUTPUTS[topic], f'/{name}/rock_seg/{topic}', self._on_output, 10, raw=True
            )
            for topic in program.outputs
        ]
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._sent: list[float] = []  # the stamp of an image is its place in this list
        self._arrived: Counter[int] = Counter()
        self._done: dict[int, float] = {}  # stamp → seconds until the last output
        self.process = NodeProcess(
            {
                **program.parameters,
                # With best-effort reliability, DDS loses most messages above 0.5 MB.
                f'qos_overrides./{name}/image.subscription.reliability': 'reliable',
            },
            {'__ns': f'/{name}', '__node': 'rock_seg'},
            folder / f'{name}.log',
            tuple(program.program),
        )

    def await_ready(self, image: bytearray) -> None:
        """Publishes a serialized Image until all outputs have arrived for it.

        It is repeated, because DDS loses images until both sides have discovered each other.

        Raises:
            BenchError: They do not arrive; the message has the reason.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._connected():
                self._send(image)
                if self._await(0, REPEAT_AFTER):
                    return
            elif 'cannot be ' in self.process.last_lines():
                raise BenchError(f'{self.name}: {self.process.last_lines()}')
            else:
                self._spin(SPIN_TIMEOUT)
        raise BenchError(
            f'{self.name}: no results after {START_TIMEOUT:.0f} s: {self.process.last_lines()}'
        )

    def run(self, image: bytearray) -> Run:
        """Measures the time from the publication of an image to the last output.

        Raises:
            BenchError: An output did not arrive.
        """
        self._done.clear()
        stamp = self._send(image)
        if not self._await(stamp, ANSWER_TIMEOUT):
            raise BenchError(f'{self.name}: an output did not arrive within {ANSWER_TIMEOUT:.0f} s')
        return Run(self._done[stamp], rss_mb(self.process.pid))

    def overload(self, image: bytearray, rate: float, images: int) -> list[Run]:
        """Publishes images at a fixed rate, without waiting for their results.

        Args:
            image: Serialized Image that is published repeatedly.
            rate: Images per second.
            images: Number of images.

        Returns:
            The age of the outputs when they were complete, for each image that was not dropped.
        """
        self._done.clear()
        runs: list[Run] = []
        start = time.perf_counter()
        for turn in range(1, images + 1):
            self._send(image)
            remaining = 1 / rate
            while remaining > 0:  # at least once per image, even if publishing is slow
                self._spin(remaining)
                runs += [Run(seconds, rss_mb(self.process.pid)) for seconds in self._done.values()]
                self._done.clear()
                remaining = start + turn / rate - time.perf_counter()
        return runs

    def _connected(self) -> bool:
        has_publishers = all(s.get_publisher_count() for s in self._subscriptions)
        return has_publishers and self._publisher.get_subscription_count() > 0

    def _send(self, image: bytearray) -> int:
        stamp = len(self._sent)
        STAMP.pack_into(image, STAMP_AT, stamp)
        message = bytes(image)
        self._sent.append(time.perf_counter())
        self._publisher.publish(message)
        return stamp

    def _await(self, first: int, timeout: float) -> bool:
        """Waits for the outputs of image `first` or a later one; returns False on timeout."""
        deadline = time.monotonic() + timeout
        while (missing := max(self._done, default=-1) < first) and time.monotonic() < deadline:
            self._spin(SPIN_TIMEOUT)
        return not missing

    def _spin(self, timeout: float) -> None:
        """Receives outputs; raises BenchError if the node has ended."""
        if self.process.status() is not None:
            raise BenchError(f'{self.name}: the node ended: {self.process.last_lines()}')
        self._executor.spin_once(timeout_sec=timeout)

    def _on_output(self, data: bytes) -> None:
        arrival = time.perf_counter()
        (stamp,) = STAMP.unpack_from(data, STAMP_AT)
        self._arrived[stamp] += 1
        if self._arrived[stamp] == len(self._subscriptions):
            self._done[stamp] = arrival - self._sent[stamp]


@contextmanager
def start_nodes(programs: Sequence[NodeProgram], image: bytearray) -> Iterator[list[BenchNode]]:
    """Starts nodes, and yields them once they have answered an image; stops them at the end."""
    with ExitStack() as stack:
        context = rclpy.Context()
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(context.try_shutdown)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = []
        for program in programs:
            nodes.append(BenchNode(program, context, folder))
            stack.callback(nodes[-1].process.stop)
        for node in nodes:
            node.await_ready(image)
        yield nodes
