# SPDX-License-Identifier: Apache-2.0
"""The node in this process, on real DDS, with a network that classifies bright pixels as rock."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from rock_seg_ros.node.images import to_message
from rock_seg_ros.node.outputs import Output
from rock_seg_ros.node.seg_node import SegNode
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.tools.local_domain import LocalDomain

PATIENCE = 20.0


class BrightSegmenter:
    """Classifies pixels with red above 127 as rock; it can be slow, be blocked and fail."""

    metadata = ModelMetadata(output_stride=16)
    device = 'cpu'
    precision = 'fp32'
    backend = 'torch'

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seconds = 0.0
        self.error: Exception | None = None
        self.error_of_batch: Exception | None = None
        self.images: list[np.ndarray] = []
        self.starts: list[float] = []
        self.batches: list[int] = []
        self.warmed_up: list[tuple[int, int, int]] = []

    def warm_up(self, height: int, width: int, max_batch: int = 1) -> None:
        self.warmed_up.append((height, width, max_batch))

    def segment(self, image: np.ndarray, threshold: float | None = None) -> Segmentation:
        return self.segment_batch([image], threshold)[0]

    def segment_batch(
        self, images: list[np.ndarray], threshold: float | None = None
    ) -> list[Segmentation]:
        self.starts.append(time.monotonic())
        self.batches.append(len(images))
        self.images.extend(image.copy() for image in images)
        self.go.wait(PATIENCE)
        time.sleep(self.seconds)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if len(images) > 1 and self.error_of_batch is not None:
            raise self.error_of_batch
        return [self._find(image, threshold) for image in images]

    def capture_pending(self) -> None:
        pass

    def _find(self, image: np.ndarray, threshold: float | None) -> Segmentation:
        rock = image[..., 0] > 255 * (0.5 if threshold is None else threshold)
        return Segmentation(rock.astype(np.uint8), np.full(rock.shape, 200, np.uint8), (1,))


class Bench:
    """The node under test and a node that tests it, each spinning in its own thread."""

    def __init__(self) -> None:
        # An own domain, in which the nodes of earlier tests are not visible.
        self.domain = LocalDomain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain.number)
        self.tester = rclpy.create_node('tester', context=self.context)
        self.executors = [self._spin(self.tester)]
        self.received: dict[str, list[Any]] = defaultdict(list)
        self.segmenter = BrightSegmenter()
        self.node: SegNode
        self._changed = threading.Condition()

    def _spin(self, node: Any) -> tuple[SingleThreadedExecutor, threading.Thread]:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        return executor, thread

    def start(self, *ros_args: str, load: Any = None, **parameters: Any) -> SegNode:
        self.node = SegNode(
            load or (lambda _: self.segmenter),
            context=self.context,
            cli_args=['--ros-args', *ros_args],
            parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()],
        )
        self.executors.append(self._spin(self.node))
        self.publisher = self.tester.create_publisher(Image, '/image', 1)
        self.listen(DiagnosticArray, '/diagnostics')
        return self.node

    def listen(self, kind: Any, topic: str, qos: QoSProfile | int = 5) -> None:
        def record(message: Any) -> None:
            with self._changed:
                self.received[topic].append(message)
                self._changed.notify_all()

        self.tester.create_subscription(kind, topic, record, qos)

    def wait(self, happened: Callable[[], Any], what: str) -> Any:
        """Waits until `happened()` is true and returns its value."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while not (result := happened()):
                assert time.monotonic() < deadline, f'waited {PATIENCE} s for {what}'
                self._changed.wait(0.02)
        return result

    def wait_active(self, *topics: str) -> None:
        """Waits until the node is active and the outputs are matched with their subscribers."""
        self.wait(lambda: self.node.state == 'active', 'active')
        self.wait(lambda: self.publisher.get_subscription_count(), 'the subscription to image')
        own = {output.topic: output for output in self.outputs}
        for topic in topics:
            self.wait(lambda topic=topic: own[topic].has_subscribers, f'{topic} to be matched')

    @property
    def outputs(self) -> list[Output]:
        """The outputs of the only camera."""
        (camera,) = self.node._cameras
        return camera.outputs

    def send(self, image: np.ndarray | Image, encoding: str = 'rgb8', stamp: int = 1) -> Image:
        """Publishes an image with this stamp (s)."""
        message = image
        if isinstance(image, np.ndarray):
            message = to_message(image, encoding, Image().header)
        message.header.stamp.sec = stamp
        message.header.stamp.nanosec = 123456789
        message.header.frame_id = 'camera_optical_frame'
        self.publisher.publish(message)
        return message

    def _client(self, kind: Any, name: str) -> Any:
        """Returns a client that is matched with its service; DDS may not match the first one."""
        for _ in range(4):
            client = self.tester.create_client(kind, name)
            if client.wait_for_service(PATIENCE / 4):
                return client
            self.tester.destroy_client(client)
        raise AssertionError(f'{name} was not found')

    def ask(self, kind: Any, name: str, request: Any) -> Any:
        """Sends a request; returns the future of the response."""
        return self._client(kind, name).call_async(request)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        future = self.ask(kind, name, request)
        return self.wait(lambda: future.done() and future.result(), name)

    def ask_for_state(self, label: str = '', number: int = 0) -> Any:
        request = ChangeState.Request()
        request.transition.label, request.transition.id = label, number
        return self.ask(ChangeState, '/rock_seg/change_state', request)

    def change_state(self, label: str = '', number: int = 0) -> bool:
        future = self.ask_for_state(label, number)
        return self.wait(lambda: future.done() and future.result(), 'change_state').success

    def get_state(self) -> str:
        return self.call(GetState, '/rock_seg/get_state', GetState.Request()).current_state.label

    def diagnosed(self, key: str, value: str) -> dict[str, str]:
        """Waits for diagnostics with this value; returns all values."""

        def latest() -> dict[str, str]:
            reports = self.received['/diagnostics']
            values = {v.key: v.value for v in reports[-1].status[0].values} if reports else {}
            return values if values.get(key) == value else {}

        return self.wait(latest, f'{key} = {value} in /diagnostics')

    def close(self) -> None:
        self.segmenter.go.set()
        for executor, thread in self.executors:
            executor.shutdown()
            thread.join(PATIENCE)
        if hasattr(self, 'node'):
            self.node.destroy_node()
        self.tester.destroy_node()
        rclpy.shutdown(context=self.context)
        self.domain.release()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def scene() -> np.ndarray:
    """48×64 RGB: a bright 20×10 rock with its corner at (8, 4), and a 10×12 one at (40, 30)."""
    image = np.full((48, 64, 3), 60, np.uint8)
    image[4:14, 8:28] = 220
    image[30:42, 40:50] = 230
    return image
