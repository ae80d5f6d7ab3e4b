# SPDX-License-Identifier: Apache-2.0
"""The way of images through the house, in the worker's thread."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.node import Node

from rock_seg_ros.node.camera import Camera, IncomingImage
from rock_seg_ros.node.camera_geometry import nanoseconds
from rock_seg_ros.node.diagnostics import format_age
from rock_seg_ros.node.images import InvalidImageError
from rock_seg_ros.node.outputs import Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis, Settings, segment_together
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.target import TargetRule
from rock_seg_ros.perception.inference.segmenter import Segmenter, SizeError
from rock_seg_ros.perception.instances.rocks import RockSettings


@dataclass
class ImageJob:
    """An image that was read, the outputs that are wanted of it, and when: `time.monotonic()`.

    `publishing` is how long its outputs have taken so far, s.
    """

    incoming: IncomingImage
    analysis: Analysis
    outputs: Sequence[Output]
    started: float
    read: float
    publishing: float = 0.0


class Processor:
    """Reads images, asks the network, publishes."""

    def __init__(self, node: Node) -> None:
        """Takes the node's clock and log."""
        self._node = node

    def process(
        self, incoming_images: Sequence[IncomingImage], segmenter: Segmenter, parameters: Parameters
    ) -> None:
        """Works on images of several cameras, in one run of the network where there are more.

        Whatever goes wrong with an image costs that image only.
        """
        images = []
        for incoming in incoming_images:
            with self._isolate_errors(incoming.camera):
                outputs = [o for o in incoming.camera.outputs if o.has_subscribers]
                if outputs:
                    images.append(self._open(incoming, outputs, segmenter, parameters))
                else:
                    incoming.camera.statistics.dropped()
        begun = time.monotonic()
        images = self._segment(images)
        network = time.monotonic() - begun
        through = []
        for image in images:  # of all cameras, before one of them waits for depth or TF
            with self._isolate_errors(image.incoming.camera):
                self._publish_pixels(image, parameters)
                through.append(image)
        deadline = time.monotonic() + parameters.depth_tolerance  # one, so that waits do not add up
        for image in through:
            with self._isolate_errors(image.incoming.camera):
                self._publish(image, network, parameters, deadline)

    @contextmanager
    def _isolate_errors(self, camera: Camera) -> Iterator[None]:
        """Counts and logs what goes wrong with an image of a camera."""
        whose = f' of {camera.name}' if camera.name else ''
        log = self._node.get_logger()
        try:
            yield
        except InvalidImageError as refusal:
            camera.statistics.refused(refusal.reason)
            log.warning(f'image{whose} refused, {refusal}', throttle_duration_sec=1.0)
        except Exception as error:  # noqa: BLE001  (the next image may do)
            if not self._node.context.ok() or isinstance(error, InvalidHandle):
                camera.statistics.dropped()  # the node ends, or its topics went meanwhile
                return
            reason = first_line(error)
            camera.statistics.failed(reason)
            log.error(f'image{whose} lost, {reason}', throttle_duration_sec=1.0)

    def _open(
        self,
        incoming: IncomingImage,
        outputs: Sequence[Output],
        segmenter: Segmenter,
        parameters: Parameters,
    ) -> ImageJob:
        started = time.monotonic()
        message = incoming.message
        if 0 < parameters.max_image_age < (age := self._age(message.header)):
            raise InvalidImageError(
                'too old',
                f'age in s {format_age(age)}, max_image_age is {parameters.max_image_age} s',
            )
        reader = incoming.camera.reader
        reader.depth.given = parameters.significant_bits
        reader.max_pixels = parameters.max_pixels
        pixels = reader.read(message)
        incoming.camera.last_size = pixels.shape[:2]
        incoming.camera.geometry.hold(message.header)
        if incoming.camera.reset_requested:  # here, since the tracker is this thread's
            incoming.camera.reset_requested = False
            incoming.camera.tracker.reset()
        settings = Settings(
            threshold=parameters.threshold or None,
            rocks=RockSettings(
                parameters.min_area,
                parameters.max_rocks,
                parameters.polygon_tolerance,
                parameters.split_touching,
            ),
            overlay_alpha=parameters.overlay_alpha,
            track=parameters.track,
            target=TargetRule(
                parameters.target_min_diameter,
                parameters.target_max_diameter,
                parameters.target_min_distance,
                parameters.target_max_distance,
                parameters.target_min_score,
            ),
            valid_mask=incoming.camera.valid_mask,
        )
        try:
            analysis = Analysis(
                pixels,
                segmenter,
                settings,
                message.header,
                tracker=incoming.camera.tracker,
                time=nanoseconds(message.header) / 1e9,
                previous_target=incoming.camera.target if parameters.track else None,
            )
        except SizeError as error:
            raise InvalidImageError('not the size of ignore_mask', str(error)) from None
        return ImageJob(incoming, analysis, outputs, started, time.monotonic())

    def _segment(self, images: list[ImageJob]) -> list[ImageJob]:
        """Runs the network; returns the images that came through."""
        if len(images) > 1:
            try:
                segment_together([image.analysis for image in images])
            except Exception as error:  # noqa: BLE001  (such as too little memory for so many)
                self._node.get_logger().warning(
                    f'{len(images)} images at once: {first_line(error)}; now one by one',
                    throttle_duration_sec=1.0,
                )
        through = []
        for image in images:
            with self._isolate_errors(image.incoming.camera):
                _ = image.analysis.segmentation
                through.append(image)
        return through

    def _publish_pixels(self, image: ImageJob, parameters: Parameters) -> None:
        """Publishes what tells of pixels alone."""
        begun = time.monotonic()
        for output in image.outputs:
            if not output.needs_rocks:
                output.publish(image.analysis, parameters)
        image.publishing = time.monotonic() - begun

    def _publish(
        self, image: ImageJob, network: float, parameters: Parameters, deadline: float
    ) -> None:
        """Publishes what tells of rocks; waits for depth and TF until then (`time.monotonic()`)."""
        begun = time.monotonic()
        camera, analysis = image.incoming.camera, image.analysis
        if any(output.needs_geometry for output in image.outputs):  # may wait for depth
            analysis.view = camera.geometry.view(
                analysis.header, analysis.image.shape[:2], parameters.depth_tolerance, deadline
            )
            if analysis.view is not None and analysis.view.depth is not None:
                analysis.pose = camera.geometry.pose(analysis.header, deadline)
        for output in image.outputs:
            if output.needs_rocks:
                output.publish(analysis, parameters)
        done = time.monotonic()
        camera.last, camera.target = analysis, analysis.current_target
        received = image.incoming.received
        camera.statistics.published(
            {
                'wait': image.started - received,
                'read': image.read - image.started,
                'network': network,
                'publish': image.publishing + done - begun,
                'total': done - received,
            },
            self._age(image.incoming.message.header),
        )

    def _age(self, header: Any) -> float:
        """Returns seconds since the header's stamp."""
        return float(self._node.get_clock().now().nanoseconds - nanoseconds(header)) / 1e9
