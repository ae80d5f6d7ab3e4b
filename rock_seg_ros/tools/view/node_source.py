# SPDX-License-Identifier: Apache-2.0
"""Shows the results of a running node: its topics, diagnostics and parameters through rclpy.

Topics are subscribed to only while viewers display or record them. The node computes nothing for a
page without viewers.
"""

from __future__ import annotations

import math
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import PointCloud2

from rock_seg_ros.node.images import ImageReader
from rock_seg_ros.node.outputs.clouds import POLYGON_POINT, ROCK_POINT
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bag.command import CHOICES, DEFAULT_OUTPUTS
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.view.controls import NODE_CONTROLS, describe, find_control
from rock_seg_ros.tools.view.feed import Feed, Result
from rock_seg_ros.tools.view.recording import Recording, TopicRecording
from rock_seg_ros.tools.view.sources import Point, Source

# Layer → the output that has it.
LAYER_OUTPUTS = {'overlay': 'overlay/compressed', 'mask': 'mask', 'confidence': 'confidence'}
ROCK_OUTPUTS = ('rocks', 'polygon_points')
MAX_PENDING = 4  # images whose messages have not all arrived
ANSWER_TIMEOUT = 3.0
SILENCE = 3.0  # time without diagnostics after which the node is reported as gone, s
STOP_TIMEOUT = 1.0

Stamp = tuple[int, int]


class NodeSource(Source):
    """The topics of one camera of a node."""

    layers = tuple(LAYER_OUTPUTS)
    measurable = False

    def __init__(
        self, feed: Feed, namespace: str, record_folder: Path, context: rclpy.Context | None = None
    ) -> None:
        """Creates a ROS node that subscribes to the diagnostics only.

        Args:
            feed: Receives the results.
            namespace: Full name of the node, such as '/rock_seg'. With several cameras, the name
                of a camera follows: '/rock_seg/front'.
            record_folder: Folder of the recordings.
            context: Context of rclpy; None = a new one.

        Raises:
            UsageError: The namespace is not a valid name.
        """
        self._namespace = '/' + namespace.strip('/')
        try:
            validate_full_topic_name(self._namespace)
        except InvalidTopicNameException as error:
            raise UsageError(f'--node {namespace}: {first_line(error)}') from None
        super().__init__(feed, self._namespace, record_folder)
        self.line = 'waiting for the node'
        self._own_context = context is None
        self._context = context or rclpy.Context()
        if self._own_context:
            rclpy.init(
                args=[], context=self._context, signal_handler_options=SignalHandlerOptions.NO
            )
        self._node = rclpy.create_node(
            'rock_seg_view', context=self._context, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name='view node', daemon=True)
        self._subscriptions: dict[str, Any] = {}
        self._wanted: set[str] = set()
        self._displayed: set[str] = set()  # changed in the executor's thread
        self._pending: dict[Stamp, dict[str, Any]] = {}
        self._steps = 0
        self._stopped = False
        self._images = ImageReader(lambda _: None)
        # With several cameras, the node has the name without the camera.
        parent = self._namespace.rpartition('/')[0]
        self._clients = [
            AsyncParameterClient(self._node, name) for name in (self._namespace, parent) if name
        ]
        self._values: dict[str, Any] = {}
        self._asked: Any = None
        self._asked_at = 0.0
        self._heard = 0.0
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnosed, 10)
        self._node.create_timer(1.0, self._look_at_node)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and completes a recording."""
        self.stop_recording()
        self._stopped = True
        self._executor.shutdown(0)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)
        self._node.destroy_node()
        if self._own_context:
            rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        while not self._stopped and self._context.ok():
            try:
                self._executor.spin()
            except ExternalShutdownException:
                return
            except Exception as error:  # noqa: BLE001  (the view must continue)
                self.problem = f'{type(error).__name__}: {first_line(error)}'
                self._feed.notify()

    # Topics

    def want(self, layers: frozenset[str] | None) -> None:
        """Subscribes to the layers that viewers display; None = to nothing."""
        named = (LAYER_OUTPUTS[name] for name in layers or ())
        self._wanted = set() if layers is None else {*ROCK_OUTPUTS, *named}
        self._recording_changed()

    def _subscribe(self) -> None:
        """Subscribes to the outputs that are displayed or recorded, and to no others."""
        displayed = self._wanted
        needed = displayed if self._recording is None else displayed.union(DEFAULT_OUTPUTS)
        for name in set(self._subscriptions) - needed:
            self._node.destroy_subscription(self._subscriptions.pop(name))
        for name in needed - set(self._subscriptions):
            output = CHOICES[name]
            self._subscriptions[name] = self._node.create_subscription(
                output.message_type,
                f'{self._namespace}/{name}',
                partial(self._take, name),
                QoSProfile(depth=output.depth),
                raw=True,
            )
        self._displayed = displayed

    def _take(self, name: str, data: bytes) -> None:
        """Receives a message; the messages with one stamp are one result."""
        if name in DEFAULT_OUTPUTS:
            topic = f'{self._namespace}/{name}'
            self._write(lambda recording: recording.write_message(topic, time.time_ns(), data))
        if name not in self._displayed or not (self.playing or self._steps):
            return
        message = deserialize_message(data, CHOICES[name].message_type)
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        messages = self._pending.setdefault(stamp, {})
        messages[name] = message
        # Layers without a publisher are not waited for.
        published = {n for n in self._displayed if self._subscriptions[n].get_publisher_count()}
        if published <= set(messages):
            self._pending.clear()
            self._show(stamp, messages)
        while len(self._pending) > MAX_PENDING:
            self._pending.pop(next(iter(self._pending)))

    def _show(self, stamp: Stamp, messages: dict[str, Any]) -> None:
        self._steps = max(0, self._steps - 1)
        seconds = stamp[0] + stamp[1] * 1e-9
        try:
            layer = partial(self._layer, messages)
            base = next((a for name in self.layers if (a := layer(name)) is not None), None)
            height, width = (0, 0) if base is None else base.shape[:2]
            rocks = read_rocks(messages.get('rocks'), messages.get('polygon_points'))
        except (ValueError, cv2.error) as error:
            self.problem = first_line(error)
            return
        record = {'image': f'{seconds:.3f} s', 'width': width, 'height': height, 'rocks': rocks}
        self._feed.show(Result(record, seconds, layer))

    def _layer(self, messages: dict[str, Any], name: str) -> NDArray[np.uint8] | None:
        message = messages.get(LAYER_OUTPUTS.get(name, ''))
        if message is None:
            return None
        image = self._images.read(message)
        return image if name == 'overlay' else image[..., 0]

    # Play, pause, step

    def play(self) -> None:
        """Shows each image again."""
        self.playing = True
        self._feed.notify()

    def pause(self) -> None:
        """Keeps the current image on the page; the node continues."""
        self.playing, self._steps = False, 0
        self._feed.notify()

    def step(self) -> None:
        """Shows the next image that arrives."""
        self.playing, self._steps = False, self._steps + 1
        self._feed.notify()

    # Parameters and diagnostics

    def controls(self) -> list[dict[str, Any]]:
        """Returns the parameters that the node has reported."""
        values = self._values
        return describe([c for c in NODE_CONTROLS if c.name in values], values.__getitem__)

    def set(self, name: str, value: Any) -> None:
        """Sets a live parameter of the node."""
        value = find_control(NODE_CONTROLS, name).convert(value)
        client = self._client()
        if client is None:
            raise ValueError(f'the node {self._namespace} does not answer')
        answered = threading.Event()
        future = client.set_parameters(
            [Parameter(name, value=value)], callback=lambda _: answered.set()
        )
        if not answered.wait(ANSWER_TIMEOUT):
            raise ValueError(f'the node {self._namespace} did not answer in {ANSWER_TIMEOUT:g} s')
        (result,) = future.result().results
        if not result.successful:
            raise ValueError(result.reason or f'the node rejects {name} {value}')
        self._values = {**self._values, name: value}
        self._feed.notify()

    def set_scale(self, first: Point, second: Point, mm: float) -> None:
        """Raises ValueError, because the node measures the sizes."""
        raise ValueError('the node measures the sizes; a scale cannot be set')

    def _client(self) -> AsyncParameterClient | None:
        return next((client for client in self._clients if client.services_are_ready()), None)

    def _look_at_node(self) -> None:
        """Requests the parameters, which others may change, and checks that the node is alive."""
        if self._heard and time.monotonic() - self._heard > SILENCE:
            self._heard, self.line = 0.0, 'the node is gone'
            self._feed.notify()
        client, now = self._client(), time.monotonic()
        if self._asked is not None and (client is None or now - self._asked_at > ANSWER_TIMEOUT):
            self._asked.cancel()  # a node that was killed does not answer
            self._asked = None
        if client is not None and (self._asked is None or self._asked.done()):
            names = [control.name for control in NODE_CONTROLS]
            self._asked_at = now
            self._asked = client.get_parameters(names, callback=partial(self._got, names))

    def _got(self, names: list[str], future: Any) -> None:
        if future.cancelled():
            return
        values = map(parameter_value_to_python, future.result().values)
        found = {n: v for n, v in zip(names, values, strict=False) if v is not None}
        if found != self._values:
            self._values = found
            self._feed.notify()

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if self._is_own(status.name):
                self._report(status)

    def _is_own(self, name: str) -> bool:
        """Returns whether a status is that of the node or of the camera."""
        parent, _, camera = self._namespace.lstrip('/').rpartition('/')
        own = f'{self._namespace.lstrip("/")}: rock segmentation'
        return name in (own, f'{parent}: rock segmentation {camera}')

    def _report(self, status: DiagnosticStatus) -> None:
        values = {value.key: value.value for value in status.values}
        about = (values.get(key, '') for key in ('weights', 'device', 'precision'))
        line = ', '.join(filter(None, (values.get('state', ''), *about)))
        problem = '' if status.level == DiagnosticStatus.OK else status.message
        self._heard = time.monotonic()
        self._measure(values)
        if (line, problem) != (self.line, self.problem):
            self.line, self.problem = line, problem
        self._feed.notify()

    def _measure(self, values: dict[str, str]) -> None:
        """Adds the median latency and the counter of dropped images to the plots."""
        latency = values.get('latency total p50 ms')
        if latency is not None:
            self._feed.measure(float(latency), int(values.get('frames dropped', '0')))

    # Recording

    def _open_recording(self) -> Recording:
        return TopicRecording(self._record_folder, self._namespace)

    def _recording_changed(self) -> None:
        if not self._stopped:
            self._executor.create_task(self._subscribe)
        self._feed.notify()


def read_rocks(rocks: PointCloud2 | None, polygons: PointCloud2 | None) -> list[dict[str, Any]]:
    """Reads the rocks of an image, in the form of `image_record`.

    Args:
        rocks: `~/rocks`; None = not published.
        polygons: `~/polygon_points` of the same image; None = not published.
    """
    if rocks is None:
        return []
    points = np.frombuffer(rocks.data, ROCK_POINT)
    vertices = np.frombuffer(b'' if polygons is None else polygons.data, POLYGON_POINT)
    found = []
    for point in points:
        own = vertices[vertices['id'] == point['id']]
        corners = np.stack([own['x'], own['y']], axis=1)
        width, height = float(point['width']), float(point['height'])
        first = (
            corners.min(axis=0)
            if len(corners)
            else (
                point['u'] - width / 2,
                point['v'] - height / 2,
            )
        )
        diameter, area = float(point['diameter']), int(point['area'])
        rock = {
            'id': int(point['id']),
            'class_id': int(point['class_id']),
            'score': round(float(point['score']), 4),
            'area': area,
            'bbox': [round(float(v)) for v in (*first, width, height)],
            'polygon': corners.tolist(),
            'diameter': round(math.sqrt(4 * area / math.pi), 2),
            'diameter_mm': round(1000 * diameter, 1) if math.isfinite(diameter) else None,
        }
        found.append(rock)
    return found
