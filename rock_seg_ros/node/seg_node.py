# SPDX-License-Identifier: Apache-2.0
"""The node: lifecycle, subscription, the way of a picture through the house."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from rock_seg_ros.node.health import Health
from rock_seg_ros.node.images import ImageReader, PictureRefused, decode
from rock_seg_ros.node.outputs import OUTPUTS, Output, publish_label_info
from rock_seg_ros.node.parameters import (
    PARAMETERS,
    Parameters,
    declare_parameters,
    first_fixed,
    read_parameters,
)
from rock_seg_ros.node.worker import Worker
from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.decoding import read_grey
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.rocks import RockSettings
from rock_seg_ros.perception.segmenter import Segmenter, SizeError
from rock_seg_ros.perception.weights_file import load_weights

Loader = Callable[[Parameters], Segmenter]
WARM_UP_SIDE = 64
SILENCE = 5.0


@dataclass(frozen=True)
class Arrival:
    """A message and the `time.monotonic()` of its receipt."""

    message: Any
    received: float


def load_segmenter(parameters: Parameters) -> Segmenter:
    """Loads the network that the parameters name and runs it once.

    Raises:
        ValueError: With one line that names what is wrong.
    """
    segmenter = Segmenter(
        load_weights(parameters.weights),
        device=parameters.device,
        precision=parameters.precision,
        backend=parameters.backend,
        output_stride=parameters.output_stride,
        input_size=(parameters.input_width, parameters.input_height),
    )
    segmenter.segment(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8))
    return segmenter


class SegNode(LifecycleNode):
    """Subscribes to a camera and publishes its rocks."""

    def __init__(self, load: Loader = load_segmenter, **node_arguments: Any) -> None:
        """Declares the parameters; nothing is loaded before configure.

        Args:
            load: Makes the network that the parameters name.
            node_arguments: Passed on to rclpy's node.

        Raises:
            rclpy.exceptions.ParameterException: A given parameter is not legal.
        """
        super().__init__('rock_seg', **node_arguments)
        declare_parameters(self)
        self._load = load
        self._health = Health()
        self._reader = ImageReader(self.get_logger().warning)
        self._segmenter: Segmenter | None = None
        self._loaded = ''
        self._trouble = ''
        self._silence = ''
        self._keep: NDArray[np.uint8] | None = None
        self._outputs: list[Output] = []
        self._label_info: Any = None
        self._image_subscription: Any = None
        self._worker: Worker[Arrival] | None = None
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._parameters_view = Parameters()
        self.create_service(Trigger, '~/reload_weights', self._on_reload_weights)
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # Steady, since simulated time may stand still or not have begun.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        if self.get_parameter('autostart').value:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    @property
    def state(self) -> str:
        """The lifecycle state, such as 'active'."""
        return str(self._state_machine.current_state[1])

    # Lifecycle

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the network; on any failure the node stays unconfigured."""
        try:
            self._parameters_view = parameters = read_parameters(self)
            self._keep = read_grey(parameters.ignore_mask) if parameters.ignore_mask else None
            self._take_network(parameters)
            for kind in OUTPUTS:
                self._outputs.append(kind(self))
        except Exception as error:  # noqa: BLE001  (whatever it is, the node must stay usable)
            self._unload()
            return self._fail('cannot be configured', error)
        self._trouble = ''
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the worker and subscribes to the camera."""
        try:
            self._worker = Worker(self._work, self._shortest_period)
            topic = self._subscribe()
        except Exception as error:  # noqa: BLE001  (such as a QoS override that is none)
            self._pause()
            return self._fail('cannot be activated', error)
        self._trouble = ''
        self.get_logger().info(f'active: pictures from {topic}')
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the worker and unsubscribes; the network stays loaded."""
        self._pause()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets the network and the topics go."""
        self._unload()
        self._trouble = ''
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops everything."""
        self._pause()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Goes back to unconfigured."""
        return self.on_shutdown(state)

    def destroy_node(self) -> None:
        """Ends the worker before the node's handles go."""
        self._pause()
        super().destroy_node()

    def _fail(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._trouble = f'{what}: {first_line(error)}'
        self.get_logger().error(self._trouble)
        return TransitionCallbackReturn.FAILURE

    def _subscribe(self) -> str:
        """Subscribes to the camera; returns the topic's full name."""
        self._health.new_subscription()
        compressed = self._parameters_view.image_transport == 'compressed'
        topic = self.resolve_topic_name('image') + ('/compressed' if compressed else '')
        self._image_subscription = self.create_subscription(
            CompressedImage if compressed else Image,
            topic,
            self._on_image,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        return topic

    def _pause(self) -> None:
        if self._image_subscription is not None:
            self.destroy_subscription(self._image_subscription)
            self._image_subscription = None
        if self._worker is not None:
            if self._worker.stop():
                self._health.dropped()
            self._worker = None

    def _unload(self) -> None:
        for output in self._outputs:
            output.destroy()
        self._outputs = []
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
            self._label_info = None
        self._segmenter = None
        self._keep = None

    def _LifecycleNodeMixin__on_change_state(  # noqa: N802  (overrides rclpy's private callback)
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Answers a transition that the state does not allow; rclpy 7.1 would end the process."""
        wanted = request.transition
        allowed = {t[1]: t[0] for t in self._state_machine.available_transitions}
        number = allowed.get(wanted.label) if wanted.label else wanted.id
        response.success = False
        if number not in allowed.values():
            asked = wanted.label or wanted.id
            legal = ', '.join(f'{label} ({n})' for label, n in sorted(allowed.items()))
            self.get_logger().warning(
                f'transition {asked} is not possible while {self.state}; possible are {legal}'
            )
            return response
        outcome = self._LifecycleNodeMixin__change_state(number)
        response.success = outcome == TransitionCallbackReturn.SUCCESS
        return response

    # Parameters

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        if not _concerns(changed):
            return SetParametersResult(successful=True)
        fixed = first_fixed(changed)
        if fixed and self._state_machine.current_state[0] != State.PRIMARY_STATE_UNCONFIGURED:
            reason = f'{fixed} cannot change while {self.state}; deactivate and clean up first'
            return SetParametersResult(successful=False, reason=reason)
        try:
            read_parameters(self, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changed: list[Parameter]) -> None:
        if not _concerns(changed):
            return
        before, self._parameters_view = self._parameters_view, read_parameters(self)
        if self._segmenter is not None and before.threshold != self._parameters_view.threshold:
            self._tell_labels(self._segmenter)

    def _shortest_period(self) -> float:
        rate = self._parameters_view.max_rate
        return 1.0 / rate if rate > 0 else 0.0

    def _on_reload_weights(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if self._segmenter is None:
            response.message = f'nothing is loaded while {self.state}; configure first'
            return response
        try:
            self._take_network(self._parameters_view)
        except Exception as error:  # noqa: BLE001  (the running network stays, whatever it is)
            response.message = f'the running weights stay: {first_line(error)}'
            return response
        response.success = True
        response.message = f'now: {self._loaded}'
        return response

    def _take_network(self, parameters: Parameters) -> None:
        """Loads the network beside the running one, swaps, and tells the log and label_info."""
        segmenter = self._load(parameters)
        self._segmenter = segmenter
        self._loaded = parameters.weights or 'embedded'
        self._tell_labels(segmenter)
        self.get_logger().info(
            f'weights {self._loaded} on {segmenter.device}, {segmenter.precision}'
        )

    def _tell_labels(self, segmenter: Segmenter) -> None:
        """Publishes label_info anew."""
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
        threshold = self._parameters_view.threshold or segmenter.card.threshold
        self._label_info = publish_label_info(self, segmenter.card, threshold)

    # Pictures

    def _on_image(self, message: Any, info: Any) -> None:
        self._health.received(info.get('publication_sequence_number'))
        if self._worker is not None and self._worker.mailbox.put(
            Arrival(message, time.monotonic())
        ):
            self._health.dropped()

    def _work(self, arrival: Arrival) -> None:
        """Works on one picture; whatever goes wrong costs this picture only."""
        try:
            self._process(arrival)
        except PictureRefused as refusal:
            self._health.refused(refusal.reason)
            self.get_logger().warning(f'picture refused, {refusal}', throttle_duration_sec=1.0)
        except Exception as error:  # noqa: BLE001  (the next picture may do)
            if not self.context.ok() or isinstance(error, InvalidHandle):
                return
            self._health.failed()
            self.get_logger().error(f'picture lost, {first_line(error)}', throttle_duration_sec=1.0)

    def _process(self, arrival: Arrival) -> None:
        parameters = self._parameters_view
        wanted = [output for output in self._outputs if output.wanted]
        if not wanted or self._segmenter is None:
            self._health.dropped()
            return
        started = time.monotonic()
        header = arrival.message.header
        if 0 < parameters.max_image_age < (age := self._age(header)):
            raise PictureRefused(
                'too old', f'{age:.3f} s, max_image_age is {parameters.max_image_age} s'
            )
        analysis = self._open(arrival.message, parameters, self._segmenter)
        read = time.monotonic()
        _ = analysis.segmentation
        segmented = time.monotonic()
        for output in wanted:
            output.publish(analysis, parameters)
        done = time.monotonic()
        self._health.published(
            {
                'wait': started - arrival.received,
                'read': read - started,
                'network': segmented - read,
                'publish': done - segmented,
                'total': done - arrival.received,
            },
            self._age(header),
        )

    def _open(self, message: Any, parameters: Parameters, segmenter: Segmenter) -> Analysis:
        if isinstance(message, Image):
            _limit(message.width, message.height, parameters.max_pixels)
            picture = self._reader.read(message)
        else:
            picture = decode(message)
            _limit(picture.shape[1], picture.shape[0], parameters.max_pixels)
        settings = Settings(
            threshold=parameters.threshold or None,
            rocks=RockSettings(
                parameters.min_area,
                parameters.max_rocks,
                parameters.polygon_tolerance,
                parameters.split_touching,
            ),
            overlay_alpha=parameters.overlay_alpha,
            keep=self._keep,
        )
        try:
            return Analysis(picture, segmenter, settings, message.header)
        except SizeError as error:
            raise PictureRefused('not the size of ignore_mask', str(error)) from None

    def _age(self, header: Any) -> float:
        """Returns seconds since the header's stamp."""
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec  # rclpy's Time takes none below 0
        return float(self.get_clock().now().nanoseconds - stamp) / 1e9

    # Diagnostics

    def _about(self) -> dict[str, str]:
        about = {'state': self.state}
        if self._segmenter is not None:
            about['device'] = str(self._segmenter.device)
            about['precision'] = self._segmenter.precision
            about['backend'] = self._segmenter.backend
            about['weights'] = self._loaded
        return about

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')
        before, self._silence = self._silence, self._why_silent()
        if self._silence and not before:
            self.get_logger().warning(self._silence)
        message.status = [
            self._health.status(
                f'{name}: rock segmentation', self._about(), self._trouble, self._silence
            )
        ]
        self._diagnostics.publish(message)

    def _why_silent(self) -> str:
        """Returns why no pictures come, as far as the graph tells; empty while they do."""
        subscription = self._image_subscription
        if subscription is None or self._health.silence() < SILENCE:
            return ''
        topic = subscription.topic_name
        publishers = self.get_publishers_info_by_topic(topic)
        own = 'sensor_msgs/msg/' + subscription.msg_type.__name__
        if not publishers:
            return f'no pictures: nobody publishes {topic}'
        if all(publisher.topic_type != own for publisher in publishers):
            return (
                f'no pictures: {topic} is {publishers[0].topic_type}, but image_transport'
                f' {self._parameters_view.image_transport} wants {own}'
            )
        return (
            f'no pictures from {topic}, though it has a publisher: where they are large, DDS may'
            f' lose all of them on best effort; see qos_overrides.{topic}.subscription.reliability'
        )


def _concerns(changed: list[Parameter]) -> bool:
    """Whether one of the parameters is the node's own, no QoS override or use_sim_time."""
    return any(parameter.name in PARAMETERS for parameter in changed)


def _limit(width: int, height: int, most: int) -> None:
    if width * height > most:
        raise PictureRefused('too large', f'{width}×{height}, max_pixels is {most}')


def main(arguments: list[str] | None = None) -> int:
    """Runs the node until it is interrupted; returns the exit status."""
    given = sys.argv if arguments is None else ['seg_node', *arguments]
    parser = argparse.ArgumentParser(
        prog='seg_node',
        usage='seg_node [-h] [--ros-args -p PARAMETER:=VALUE -r image:=TOPIC ...]',
        description='Finds rocks in the pictures of a topic and publishes masks and polygons.',
        epilog='Parameters: ros2 param describe, config/seg.yaml, README.',
    )
    try:
        try:
            parser.parse_args(remove_ros_args(given)[1:])
            rclpy.init(args=given)
            node = SegNode()
        except (ParameterException, RuntimeError) as error:
            print(f'seg_node: {first_line(error)}', file=sys.stderr)  # noqa: T201
            return 1
        try:
            _spin(node)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            node.destroy_node()
            rclpy.try_shutdown()
    except KeyboardInterrupt:
        pass
    return 0


def _spin(node: SegNode) -> None:
    """Spins until somebody shuts the context down."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except RuntimeError:  # a transition that a shutdown cut short
        if node.context.ok():
            raise
