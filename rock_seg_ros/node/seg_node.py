# SPDX-License-Identifier: Apache-2.0
"""The node: lifecycle, parameters, services, diagnostics."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import remove_ros_args
from std_srvs.srv import Trigger

from rock_seg_ros.node.camera import Camera, IncomingImage, Size, camera_names
from rock_seg_ros.node.camera_geometry import CameraGeometry
from rock_seg_ros.node.diagnostics import CameraStatistics
from rock_seg_ros.node.lifecycle import AsyncLifecycleNode
from rock_seg_ros.node.outputs.vision import publish_label_info
from rock_seg_ros.node.parameters import (
    PARAMETERS,
    Parameters,
    declare_parameters,
    first_not_settable,
    read_parameters,
)
from rock_seg_ros.node.processing import Processor
from rock_seg_ros.node.transforms import CameraTransforms
from rock_seg_ros.node.worker import Mailbox, Worker
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from rock_seg_ros.perception.instances.tracking import Tracker

Loader = Callable[[Parameters], Segmenter]
WARM_WIDTH, WARM_HEIGHT = 640, 480
LOAD_LOG_INTERVAL = 5.0  # s, from one line in the log that says so to the next
LOAD_TIMEOUT = 600.0  # s
DEACTIVATE_TIMEOUT = 60.0  # s that deactivate waits for the images in work
SHUTDOWN_TIMEOUT = 1.0  # s that the end of the node waits for them


def load_segmenter(parameters: Parameters) -> Segmenter:
    """Loads the network that the parameters name.

    Raises:
        ValueError: With one line that names what is wrong.
    """
    return Segmenter(
        load_weights(
            parameters.weights_path, parameters.device, parameters.backend, parameters.precision
        ),
        device=parameters.device,
        precision=parameters.precision,
        backend=parameters.backend,
        output_stride=parameters.output_stride,
        input_size=(parameters.input_width, parameters.input_height),
        preset=parameters.preset,
        tile=parameters.tile,
        tile_overlap=parameters.tile_overlap,
    )


def warm(segmenter: Segmenter, parameters: Parameters, last_sizes: Iterable[Size]) -> None:
    """Warms a network for the images to come, and for as many of one size at once as may.

    Args:
        segmenter: The network.
        parameters: Tell the input size.
        last_sizes: Height and width (px) of each camera's last image; () where there was none,
            which is taken for one of the input size, or VGA.

    Raises:
        ScoresError: What the network gave is not finite.
    """
    usual = parameters.input_height or WARM_HEIGHT, parameters.input_width or WARM_WIDTH
    for (height, width), cameras in Counter(size or usual for size in last_sizes).items():
        segmenter.warm(height, width, cameras)


class SegNode(AsyncLifecycleNode):
    """Subscribes to cameras and publishes their rocks."""

    def __init__(
        self,
        load: Loader = load_segmenter,
        illegal: Mapping[str, str] | None = None,
        **node_arguments: Any,
    ) -> None:
        """Declares the parameters; nothing is loaded before configure.

        Args:
            load: Makes the network that the parameters name.
            illegal: Parameters of rclpy's own that were given an illegal value, and why it is.
            node_arguments: Passed on to rclpy's node.

        Raises:
            rclpy.exceptions.ParameterException: `use_sim_time`, which rclpy declares, is illegal.
        """
        super().__init__('rock_seg', **node_arguments)
        self._illegal = {**(illegal or {}), **declare_parameters(self)}
        self._load = load
        # These outlive their cameras: counts go on, no id is given twice, and the next network is
        # warmed for the images to come.
        self._statistics: dict[str, CameraStatistics] = defaultdict(CameraStatistics)
        self._trackers: dict[str, Tracker] = defaultdict(Tracker)
        self._last_sizes: dict[str, Size] = {}
        self._cameras: list[Camera] = []
        self._processor = Processor(self)
        self._segmenter: Segmenter | None = None
        self._loaded = ''
        self._trouble = ''
        self._label_info: Any = None
        self._frames: CameraTransforms | None = None
        self._loading: tuple[str, float] | None = None  # what, and since when
        self._worker: Worker[IncomingImage] | None = None
        self._deaths = 0  # of workers
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self._parameters_view = Parameters()
        for name, answer in (
            ('~/reload_weights', self._on_reload_weights),
            ('~/reset_tracks', self._on_reset_tracks),
            ('~/rock_abundance', self._on_rock_abundance),
        ):
            self.create_service(Trigger, name, answer, callback_group=self.reentrant_group)
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # Steady, since simulated time may stand still or not have begun.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        self._autostart_timer = self.create_timer(
            0.0, self._autostart, callback_group=self.reentrant_group, clock=self._steady
        )
        if not self.get_parameter('autostart').value:
            self._autostart_timer.cancel()

    # Lifecycle

    async def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if await self.change_state(Transition.TRANSITION_CONFIGURE):
            await self.change_state(Transition.TRANSITION_ACTIVATE)

    async def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the network; on any failure the node stays unconfigured."""
        try:
            if self._illegal:
                reasons = list(self._illegal.values())
                more = [f'and {len(reasons) - 3} more'] if reasons[3:] else []
                raise ValueError('; '.join(reasons[:3] + more))
            self._parameters_view = parameters = read_parameters(self)
            self._cameras = self._make_cameras(parameters)
            self._take_network(await self._load_in_thread(parameters), parameters)
            for camera in self._cameras:
                camera.advertise()
        except Exception as error:  # noqa: BLE001  (whatever it is, the node must stay usable)
            self._unload()
            return self._fail('cannot be configured', error)
        self._trouble = ''
        return super().on_configure(state)

    async def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Starts the worker and subscribes to the cameras."""
        try:
            mailbox = Mailbox[IncomingImage](len(self._cameras), lambda incoming: incoming.size)
            self._worker = self._start_worker(mailbox)
            topics = [
                camera.subscribe(partial(mailbox.put, number))
                for number, camera in enumerate(self._cameras)
            ]
        except Exception as error:  # noqa: BLE001  (such as a QoS override that is none)
            await self._pause()
            return self._fail('cannot be activated', error)
        self._trouble = ''
        self.get_logger().info(f'active: images from {", ".join(topics)}')
        return super().on_activate(state)

    async def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the worker and unsubscribes; the network stays loaded."""
        await self._pause()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets the network and the topics go."""
        self._unload()
        self._trouble = ''
        return TransitionCallbackReturn.SUCCESS

    async def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops everything."""
        await self._pause()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    async def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Goes back to unconfigured."""
        return await self.on_shutdown(state)

    def destroy_node(self) -> None:
        """Ends the worker before the node's handles go; waits for it a moment at most."""
        self._unsubscribe()
        if self._worker is not None:
            self._count_lost(self._worker, self._worker.stop(SHUTDOWN_TIMEOUT))
            self._worker = None
        super().destroy_node()

    def _fail(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._trouble = f'{what}: {first_line(error)}'
        self.get_logger().error(self._trouble)
        return TransitionCallbackReturn.FAILURE

    def _make_cameras(self, parameters: Parameters) -> list[Camera]:
        """Returns the cameras of the parameters; those of `image_topics` have names."""
        topics = [self._resolve(topic) for topic in parameters.image_topics or ('image',)]
        names, infos, depths = [''], ['camera_info'], ['depth']
        if parameters.image_topics:
            names = camera_names(topics)
            infos = [topic.rpartition('/')[0] + '/camera_info' for topic in topics]
            depths = list(parameters.depth_topics) or [''] * len(topics)
        self._frames = frames = CameraTransforms(self, parameters)
        return [
            Camera(
                self,
                name,
                topic,
                parameters,
                self._statistics[name],
                CameraGeometry(self, info, depth, parameters, frames, self._statistics[name]),
                self._trackers[name],
                self._last_sizes.get(name, ()),
            )
            for name, topic, info, depth in zip(names, topics, infos, depths, strict=True)
        ]

    def _resolve(self, topic: str) -> str:
        """Returns the full name of a topic, with substitutions and remappings made."""
        try:
            return self.resolve_topic_name(topic)
        except RuntimeError as error:
            reason = first_line(error).removeprefix('failed to resolve name: ')
            raise ValueError(f'image_topics has {topic!r}: {reason.split(", at ")[0]}') from None

    def _start_worker(self, mailbox: Mailbox[IncomingImage]) -> Worker[IncomingImage]:
        return Worker(mailbox, self._work, self._shortest_period, self._catch_up)

    def _unsubscribe(self) -> None:
        for camera in self._cameras:
            camera.unsubscribe()

    async def _pause(self) -> None:
        """Unsubscribes, and waits for the images in work beside the executor."""
        self._unsubscribe()
        worker, self._worker = self._worker, None
        if worker is not None:
            left = await self.run_in_thread(
                lambda: worker.stop(DEACTIVATE_TIMEOUT), 'end of worker'
            )
            self._count_lost(worker, left)
        for camera in self._cameras:
            camera.release()

    def _count_lost(self, worker: Worker[IncomingImage], left: list[IncomingImage]) -> None:
        """Counts the images that a worker left in the mailbox, and those that it died of."""
        for incoming in left:
            incoming.camera.statistics.dropped()
        if worker.error is not None:
            for incoming in worker.current_items:
                incoming.camera.statistics.failed(first_line(worker.error))

    def _check_worker(self) -> None:
        """Starts a worker that died again, and says why it did."""
        worker = self._worker
        if worker is None or worker.error is None:
            return
        self.get_logger().error(f'the worker died and is started again: {first_line(worker.error)}')
        self._count_lost(worker, [])
        self._deaths += 1
        self._worker = self._start_worker(worker.mailbox)

    def _unload(self) -> None:
        for camera in self._cameras:
            camera.withdraw()
            self._last_sizes[camera.name] = camera.last_size
        self._cameras = []
        if self._frames is not None:
            self._frames.close()
            self._frames = None
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
            self._label_info = None
        self._segmenter = None

    # Parameters

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        if not _concerns(changed):
            return SetParametersResult(successful=True)
        fixed = first_not_settable(changed)
        if fixed and self.state_number != State.PRIMARY_STATE_UNCONFIGURED:
            reason = f'{fixed} cannot change while {self.state}; deactivate and clean up first'
            return SetParametersResult(successful=False, reason=reason)
        try:
            read_parameters(self, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changed: list[Parameter]) -> None:
        for parameter in changed:
            self._illegal.pop(parameter.name, None)
            if parameter.name == 'autostart' and parameter.value:
                self._autostart_timer.reset()
        if not _concerns(changed):
            return
        before, self._parameters_view = self._parameters_view, read_parameters(self)
        if self._segmenter is not None and before.threshold != self._parameters_view.threshold:
            self._publish_label_info(self._segmenter)

    def _shortest_period(self) -> float:
        rate = self._parameters_view.max_rate
        return 1.0 / rate if rate > 0 else 0.0

    async def _on_reload_weights(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        running, parameters = self._segmenter, self._parameters_view
        if running is None:
            response.message = f'nothing is loaded while {self.state}; configure first'
            return response
        if self._loading is not None:
            response.message = 'weights are being loaded already'
            return response
        try:
            segmenter = await self._load_in_thread(parameters)
            if self._segmenter is not running:
                raise ValueError(f'meanwhile the node is {self.state} with others, or none')
            self._take_network(segmenter, parameters)
        except Exception as error:  # noqa: BLE001  (the running network stays, whatever it is)
            response.message = f'the running weights stay: {first_line(error)}'
            self.get_logger().error(response.message)
            return response
        response.success = True
        response.message = f'now: {self._loaded}'
        return response

    async def _load_in_thread(self, parameters: Parameters) -> Segmenter:
        """Loads and warms a network in a thread of its own, and says so as long as that takes."""
        last_sizes = [camera.last_size for camera in self._cameras]

        def load() -> Segmenter:
            segmenter = self._load(parameters)
            warm(segmenter, parameters, last_sizes)
            return segmenter

        what = f'weights {parameters.weights_name} for device {parameters.device}'
        began = time.monotonic()
        log = self.get_logger()
        log.info(f'loading {what}')
        loaded = self.run_in_thread(load, 'loader')

        def remind() -> None:
            seconds = time.monotonic() - began
            if seconds < LOAD_TIMEOUT:
                log.info(f'still loading {what}, {seconds:.0f} s so far')
            elif not loaded.done():
                loaded.set_exception(TimeoutError(f'loading {what} took over {seconds:.0f} s'))

        timer = self.create_timer(
            LOAD_LOG_INTERVAL, remind, callback_group=self.reentrant_group, clock=self._steady
        )
        self._loading = what, began
        try:
            return await loaded
        finally:
            self._loading = None
            self.destroy_timer(timer)

    def _on_reset_tracks(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        for camera in self._cameras:
            camera.reset_requested = True
        response.success = bool(self._cameras)
        response.message = (
            'rocks get new ids from now on'
            if self._cameras
            else f'nothing is followed while {self.state}'
        )
        return response

    async def _on_rock_abundance(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Answers with JSON: of the newest image, or of each camera's by its name."""
        tolerance = self._parameters_view.depth_tolerance
        cameras = list(self._cameras)
        try:
            found = await self.run_in_thread(
                lambda: {c.name: c.abundance(tolerance) for c in cameras if c.last is not None},
                'abundance',
            )
        except Exception as error:  # noqa: BLE001  (a service must answer, whatever it is)
            response.message = first_line(error)
            return response
        if not found:
            response.message = f'no image was worked on yet while {self.state}'
            return response
        response.success = True
        response.message = json.dumps(found.get('', found))
        return response

    def _take_network(self, segmenter: Segmenter, parameters: Parameters) -> None:
        """Puts a network in the running one's place, and tells the log and label_info."""
        self._segmenter = segmenter
        self._loaded = parameters.weights_name
        self._publish_label_info(segmenter)
        self.get_logger().info(
            f'weights {self._loaded} on {segmenter.device}, {segmenter.precision}'
        )

    def _publish_label_info(self, segmenter: Segmenter) -> None:
        """Publishes label_info anew."""
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
        threshold = self._parameters_view.threshold or segmenter.card.threshold
        self._label_info = publish_label_info(self, segmenter.card, threshold)

    # Images

    def _work(self, incoming_images: list[IncomingImage]) -> None:
        segmenter = self._segmenter
        if segmenter is not None:
            self._processor.process(incoming_images, segmenter, self._parameters_view)

    def _catch_up(self) -> None:
        """Has the network make ready what the last images lacked."""
        try:
            if self._segmenter is not None:
                self._segmenter.capture_pending()
        except Exception as error:  # noqa: BLE001  (the images are worked on all the same)
            self.get_logger().warning(
                f'images of this size stay slower: {first_line(error)}', throttle_duration_sec=1.0
            )

    # Diagnostics

    def _about(self) -> dict[str, str]:
        about = {'state': self.state}
        if self._segmenter is not None:
            about['device'] = str(self._segmenter.device)
            about['precision'] = self._segmenter.precision
            about['backend'] = self._segmenter.backend
            about['weights'] = self._loaded
        if self._loading is not None:
            what, began = self._loading
            about['loading'] = f'{what}, {time.monotonic() - began:.0f} s so far'
        if self._deaths:
            about['worker restarts'] = str(self._deaths)
        return about

    def _publish_diagnostics(self) -> None:
        self._check_worker()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        told = f'{self.get_fully_qualified_name().lstrip("/")}: rock segmentation'
        about = self._about()
        message.status = [
            camera.statistics.status(
                f'{told} {camera.name}'.rstrip(), about, self._trouble, camera.silence()
            )
            for camera in self._cameras
        ] or [self._statistics[''].status(told, about, self._trouble)]
        self._diagnostics.publish(message)


def _concerns(changed: list[Parameter]) -> bool:
    """Whether one of the parameters is the node's own, no QoS override or use_sim_time."""
    return any(parameter.name in PARAMETERS for parameter in changed)


def main(arguments: list[str] | None = None, load: Loader = load_segmenter) -> int:
    """Runs the node until it is interrupted; returns the exit status."""
    given = sys.argv if arguments is None else ['seg_node', *arguments]
    parser = argparse.ArgumentParser(
        prog='seg_node',
        usage='seg_node [-h] [--ros-args -p PARAMETER:=VALUE -r image:=TOPIC ...]',
        description='Finds rocks in the images of a topic and publishes masks and polygons.',
        epilog='See `ros2 param describe` and docs/interfaces.md for the parameters.',
    )
    try:
        try:
            parser.parse_args(remove_ros_args(given)[1:])
            rclpy.init(args=given)
            node = _make_node(load)
        except RuntimeError as error:
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


def _make_node(load: Loader) -> SegNode:
    """Makes the node, also where `use_sim_time` is no truth value."""
    name = 'use_sim_time'
    try:
        return SegNode(load)
    except InvalidParameterTypeException as error:
        default = Parameter(name, value=False)
        return SegNode(load, {name: first_line(error)}, parameter_overrides=[default])


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
