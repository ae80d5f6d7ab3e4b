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

from rock_seg_ros.node.camera import Camera, IncomingImage, Size, camera_names, derived_topic
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
    unknown_overrides,
)
from rock_seg_ros.node.processing import Processor
from rock_seg_ros.node.transforms import CameraTransforms
from rock_seg_ros.node.worker import Mailbox, Worker
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from rock_seg_ros.perception.instances.tracking import Tracker

Loader = Callable[[Parameters], Segmenter]
WARM_UP_WIDTH, WARM_UP_HEIGHT = 640, 480
LOAD_LOG_INTERVAL = 5.0  # s between two log lines while weights are being loaded
LOAD_TIMEOUT = 600.0  # s
DEACTIVATE_TIMEOUT = 60.0  # s that deactivate waits for the images that are being processed
SHUTDOWN_TIMEOUT = 1.0  # s that the end of the node waits for them


def load_segmenter(parameters: Parameters) -> Segmenter:
    """Loads the network that the parameters specify.

    Raises:
        ValueError: The network cannot be loaded; the message is one line.
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


def warm_up(segmenter: Segmenter, parameters: Parameters, last_sizes: Iterable[Size]) -> None:
    """Runs a network once per expected image size and batch size, so that later runs are fast.

    Args:
        segmenter: The network.
        parameters: The parameters of the node.
        last_sizes: Height and width (px) of the last image of each camera; () if there was none.
            Then the input size is assumed, or 640×480.

    Raises:
        LogitsError: The logits of the network are not finite.
    """
    default = parameters.input_height or WARM_UP_HEIGHT, parameters.input_width or WARM_UP_WIDTH
    for (height, width), cameras in Counter(size or default for size in last_sizes).items():
        segmenter.warm_up(height, width, cameras)


class SegNode(AsyncLifecycleNode):
    """Subscribes to the images of cameras and publishes the rocks in them."""

    def __init__(
        self,
        load: Loader = load_segmenter,
        invalid: Mapping[str, str] | None = None,
        **node_arguments: Any,
    ) -> None:
        """Declares the parameters. The network is loaded in `on_configure`.

        Args:
            load: Loads the network that the parameters specify.
            invalid: Parameters of rclpy with an invalid initial value → reason.
            node_arguments: Further arguments of rclpy's node.

        Raises:
            rclpy.exceptions.ParameterException: `use_sim_time`, which rclpy declares, is invalid.
        """
        super().__init__('rock_seg', **node_arguments)
        self._invalid = {**(invalid or {}), **declare_parameters(self)}
        for line in unknown_overrides(self._parameter_overrides):
            self.get_logger().warning(line)
        self._load = load
        # These are kept when the cameras are created again: the counters continue, track ids are
        # not reused, and the next network is warmed up for the sizes of the last images.
        self._statistics: dict[str, CameraStatistics] = defaultdict(CameraStatistics)
        self._trackers: dict[str, Tracker] = defaultdict(Tracker)
        self._last_sizes: dict[str, Size] = {}
        self._cameras: list[Camera] = []
        self._processor = Processor(self)
        self._segmenter: Segmenter | None = None
        self._weights_name = ''
        self._error = ''  # why the last transition failed
        self._label_info: Any = None
        self._transforms: CameraTransforms | None = None
        self._loading: tuple[str, float] | None = None  # description, start (time.monotonic())
        self._worker: Worker[IncomingImage] | None = None
        self._worker_restarts = 0
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._current_parameters = Parameters()
        for name, callback in (
            ('~/reload_weights', self._on_reload_weights),
            ('~/reset_tracks', self._on_reset_tracks),
            ('~/rock_abundance', self._on_rock_abundance),
        ):
            self.create_service(Trigger, name, callback, callback_group=self.reentrant_group)
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # A steady clock, because simulated time may be paused or not have started.
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
        """Loads the network; after any error the node stays unconfigured."""
        try:
            if self._invalid:
                reasons = list(self._invalid.values())
                more = [f'and {len(reasons) - 3} more'] if reasons[3:] else []
                raise ValueError('; '.join(reasons[:3] + more))
            self._current_parameters = parameters = read_parameters(self)
            parameters.check_combination()
            self._cameras = self._make_cameras(parameters)
            self._set_segmenter(await self._load_in_thread(parameters), parameters)
            for camera in self._cameras:
                camera.advertise()
        except Exception as error:  # noqa: BLE001  (the node must stay usable after any error)
            self._unload()
            return self._fail('cannot be configured', error)
        self._error = ''
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
        except Exception as error:  # noqa: BLE001  (such as a QoS override that is not valid)
            await self._stop_processing()
            return self._fail('cannot be activated', error)
        self._error = ''
        self.get_logger().info(f'active: images from {", ".join(topics)}')
        return super().on_activate(state)

    async def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the worker and unsubscribes; the network stays loaded."""
        await self._stop_processing()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Releases the network and destroys the publishers."""
        self._unload()
        self._error = ''
        return TransitionCallbackReturn.SUCCESS

    async def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops the worker, unsubscribes and releases the network."""
        await self._stop_processing()
        self._unload()
        return TransitionCallbackReturn.SUCCESS

    async def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Returns to the state unconfigured."""
        return await self.on_shutdown(state)

    def destroy_node(self) -> None:
        """Stops the worker before the node is destroyed, and waits `SHUTDOWN_TIMEOUT` at most."""
        self._unsubscribe()
        if self._worker is not None:
            self._count_remaining(self._worker, self._worker.stop(SHUTDOWN_TIMEOUT))
            self._worker = None
        super().destroy_node()

    def _fail(self, what: str, error: Exception) -> TransitionCallbackReturn:
        self._error = f'{what}: {first_line(error)}'
        self.get_logger().error(self._error)
        return TransitionCallbackReturn.FAILURE

    def _make_cameras(self, parameters: Parameters) -> list[Camera]:
        """Returns the cameras that the parameters specify; those of `image_topics` have names."""
        given = parameters.image_topics or ('image',)
        topics = [self._resolve(topic) for topic in given]
        names, infos, depths = [''], ['camera_info'], ['depth']
        if parameters.image_topics:
            names = camera_names(topics)
            infos = [
                derived_topic(self, topic, lambda name: name.rpartition('/')[0] + '/camera_info')
                for topic in given
            ]
            depths = list(parameters.depth_topics) or [''] * len(topics)
        self._transforms = transforms = CameraTransforms(self, parameters)
        return [
            Camera(
                self,
                name,
                before_remapping,
                topic,
                parameters,
                self._statistics[name],
                CameraGeometry(self, info, depth, parameters, transforms, self._statistics[name]),
                self._trackers[name],
                self._last_sizes.get(name, ()),
            )
            for name, before_remapping, topic, info, depth in zip(
                names, given, topics, infos, depths, strict=True
            )
        ]

    def _resolve(self, topic: str) -> str:
        """Returns the full name of a topic after substitutions and remappings."""
        try:
            return self.resolve_topic_name(topic)
        except RuntimeError as error:
            reason = first_line(error).removeprefix('failed to resolve name: ')
            raise ValueError(f'image_topics has {topic!r}: {reason.split(", at ")[0]}') from None

    def _start_worker(self, mailbox: Mailbox[IncomingImage]) -> Worker[IncomingImage]:
        return Worker(mailbox, self._process, self._min_interval, self._capture_pending)

    def _unsubscribe(self) -> None:
        for camera in self._cameras:
            camera.unsubscribe()

    async def _stop_processing(self) -> None:
        """Unsubscribes, and stops the worker without blocking the executor."""
        self._unsubscribe()
        worker, self._worker = self._worker, None
        if worker is not None:
            remaining = await self.run_in_thread(
                lambda: worker.stop(DEACTIVATE_TIMEOUT), 'end of worker'
            )
            self._count_remaining(worker, remaining)
        for camera in self._cameras:
            camera.release()

    def _count_remaining(
        self, worker: Worker[IncomingImage], remaining: list[IncomingImage]
    ) -> None:
        """Counts the images in the mailbox, and those during which the worker failed."""
        for incoming in remaining:
            incoming.camera.statistics.dropped()
        if worker.error is not None:
            for incoming in worker.current_items:
                incoming.camera.statistics.failed(first_line(worker.error))

    def _check_worker(self) -> None:
        """Starts a new worker if the current one has failed, and logs the reason."""
        worker = self._worker
        if worker is None or worker.error is None:
            return
        self.get_logger().error(
            f'the worker thread ended with an error and is restarted: {first_line(worker.error)}'
        )
        self._count_remaining(worker, [])
        self._worker_restarts += 1
        self._worker = self._start_worker(worker.mailbox)

    def _unload(self) -> None:
        for camera in self._cameras:
            camera.unadvertise()
            self._last_sizes[camera.name] = camera.last_size
        self._cameras = []
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
            self._label_info = None
        self._segmenter = None

    # Parameters

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        if not _has_own_parameter(changed):
            return SetParametersResult(successful=True)
        fixed = first_not_settable(changed)
        if fixed and self.state_number != State.PRIMARY_STATE_UNCONFIGURED:
            reason = f'{fixed} cannot change in state {self.state}; deactivate and clean up first'
            return SetParametersResult(successful=False, reason=reason)
        try:
            read_parameters(self, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        for parameter in changed:
            self._invalid.pop(parameter.name, None)
            if parameter.name == 'autostart' and parameter.value:
                self._autostart_timer.reset()
        if not _has_own_parameter(changed):
            return
        before, self._current_parameters = self._current_parameters, read_parameters(self)
        if self._segmenter is not None and before.threshold != self._current_parameters.threshold:
            self._publish_label_info(self._segmenter)

    def _min_interval(self) -> float:
        rate = self._current_parameters.max_rate
        return 1.0 / rate if rate > 0 else 0.0

    async def _on_reload_weights(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        current, parameters = self._segmenter, self._current_parameters
        if current is None:
            response.message = f'no weights are loaded in state {self.state}; configure first'
            return response
        if self._loading is not None:
            response.message = 'weights are already being loaded'
            return response
        try:
            segmenter = await self._load_in_thread(parameters)
            if self._segmenter is not current:
                raise ValueError(f'the node was reconfigured in the meantime and is {self.state}')
            self._set_segmenter(segmenter, parameters)
        except Exception as error:  # noqa: BLE001  (the current network stays after any error)
            response.message = f'reload failed, keeping the current weights: {first_line(error)}'
            self.get_logger().error(response.message)
            return response
        response.success = True
        response.message = f'loaded: {self._weights_name}'
        return response

    async def _load_in_thread(self, parameters: Parameters) -> Segmenter:
        """Loads and warms up a network in a separate thread; logs the progress."""
        last_sizes = [camera.last_size for camera in self._cameras]

        def load() -> Segmenter:
            segmenter = self._load(parameters)
            warm_up(segmenter, parameters, last_sizes)
            return segmenter

        what = f'weights {parameters.weights_name} for device {parameters.device}'
        start = time.monotonic()
        log = self.get_logger()
        log.info(f'loading {what}')
        loaded = self.run_in_thread(load, 'loader')

        def check_progress() -> None:
            seconds = time.monotonic() - start
            if seconds < LOAD_TIMEOUT:
                log.info(f'still loading {what} after {seconds:.0f} s')
            elif not loaded.done():
                loaded.set_exception(TimeoutError(f'loading {what} took over {seconds:.0f} s'))

        timer = self.create_timer(
            LOAD_LOG_INTERVAL,
            check_progress,
            callback_group=self.reentrant_group,
            clock=self._steady,
        )
        self._loading = what, start
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
            'tracks reset; the rocks get new ids'
            if self._cameras
            else f'no tracks in state {self.state}'
        )
        return response

    async def _on_rock_abundance(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        """Answers with a JSON object for the last image, or one per camera by its name."""
        tolerance = self._current_parameters.depth_tolerance
        cameras = [camera for camera in self._cameras if camera.last_analysis is not None]
        try:
            abundances = await self.run_in_thread(
                lambda: {camera.name: camera.abundance(tolerance) for camera in cameras},
                'abundance',
            )
        except Exception as error:  # noqa: BLE001  (a service must answer after any error)
            response.message = first_line(error)
            return response
        if not abundances:
            response.message = f'no image was processed yet in state {self.state}'
            return response
        response.success = True
        response.message = json.dumps(abundances.get('', abundances))
        return response

    def _set_segmenter(self, segmenter: Segmenter, parameters: Parameters) -> None:
        """Replaces the network, logs it and publishes label_info."""
        self._segmenter = segmenter
        self._weights_name = parameters.weights_name
        self._publish_label_info(segmenter)
        self.get_logger().info(
            f'loaded: weights {self._weights_name} on {segmenter.device}, {segmenter.precision}'
        )

    def _publish_label_info(self, segmenter: Segmenter) -> None:
        """Publishes label_info with a new publisher."""
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
        threshold = self._current_parameters.threshold or segmenter.metadata.threshold
        self._label_info = publish_label_info(self, segmenter.metadata, threshold)

    # Images

    def _process(self, incoming_images: list[IncomingImage]) -> None:
        segmenter = self._segmenter
        if segmenter is not None:
            self._processor.process(incoming_images, segmenter, self._current_parameters)

    def _capture_pending(self) -> None:
        """Captures the CUDA graphs for image sizes that were not warmed up."""
        try:
            if self._segmenter is not None:
                self._segmenter.capture_pending()
        except Exception as error:  # noqa: BLE001  (images are processed without the graph)
            self.get_logger().warning(
                f'CUDA graph capture failed, running eagerly: {first_line(error)}',
                throttle_duration_sec=1.0,
            )

    # Diagnostics

    def _node_values(self) -> dict[str, str]:
        """Returns the keys and values of the node for `/diagnostics`."""
        values = {'state': self.state}
        if self._segmenter is not None:
            values['device'] = str(self._segmenter.device)
            values['precision'] = self._segmenter.precision
            values['backend'] = self._segmenter.backend
            values['weights'] = self._weights_name
        if self._loading is not None:
            what, start = self._loading
            values['loading'] = f'{what} for {time.monotonic() - start:.0f} s'
        if self._worker_restarts:
            values['worker restarts'] = str(self._worker_restarts)
        return values

    def _publish_diagnostics(self) -> None:
        self._check_worker()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = f'{self.get_fully_qualified_name().lstrip("/")}: rock segmentation'
        values = self._node_values()
        message.status = [
            camera.statistics.status(
                f'{name} {camera.name}'.rstrip(), values, self._error, camera.check_reception()
            )
            for camera in self._cameras
        ] or [self._statistics[''].status(name, values, self._error)]
        self._diagnostics.publish(message)


def _has_own_parameter(changed: list[Parameter]) -> bool:
    """Returns whether a parameter is one of this node, not a QoS override or use_sim_time."""
    return any(parameter.name in PARAMETERS for parameter in changed)


def main(arguments: list[str] | None = None, load: Loader = load_segmenter) -> int:
    """Runs the node until it is interrupted; returns the exit status."""
    argv = sys.argv if arguments is None else ['seg_node', *arguments]
    parser = argparse.ArgumentParser(
        prog='seg_node',
        usage='seg_node [-h] [--ros-args -p PARAMETER:=VALUE -r image:=TOPIC ...]',
        description='Finds rocks in the images of a topic and publishes masks and polygons.',
        epilog='See `ros2 param describe` and docs/interfaces.md for the parameters.',
    )
    try:
        try:
            parser.parse_args(remove_ros_args(argv)[1:])
            rclpy.init(args=argv)
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
    """Creates the node, also if the initial value of `use_sim_time` is not a boolean."""
    name = 'use_sim_time'
    try:
        return SegNode(load)
    except InvalidParameterTypeException as error:
        default = Parameter(name, value=False)
        return SegNode(load, {name: first_line(error)}, parameter_overrides=[default])


def _spin(node: SegNode) -> None:
    """Spins until the context is shut down."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except RuntimeError:  # a shutdown may interrupt a transition
        if node.context.ok():
            raise
