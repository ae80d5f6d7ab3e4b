# SPDX-License-Identifier: Apache-2.0
"""Processing of images in the worker thread: reading, segmentation, publication."""

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
from rock_seg_ros.perception.geometry.target import TargetLimits
from rock_seg_ros.perception.inference.segmentation import SizeError
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import RockSettings


@dataclass
class ImageJob:
    """An image that is being processed. Times are from `time.monotonic()`.

    Attributes:
        incoming: The message.
        analysis: The results, which are computed when they are first used.
        outputs: The outputs that have a subscriber.
        started: When reading the message began.
        read: When reading the message ended.
        publishing: Time that the publication has taken so far, s.
    """

    incoming: IncomingImage
    analysis: Analysis
    outputs: Sequence[Output]
    started: float
    read: float
    publishing: float = 0.0


class Processor:
    """Reads images, segments them and publishes the results."""

    def __init__(self, node: Node) -> None:
        """Stores the node, whose clock and logger are used."""
        self._node = node

    def process(
        self, incoming_images: Sequence[IncomingImage], segmenter: Segmenter, parameters: Parameters
    ) -> None:
        """Processes one image each of one or more cameras; several run as one batch.

        An error in one image does not affect the others.
        """
        jobs = []
        for incoming in incoming_images:
            with self._isolate_errors(incoming.camera):
                outputs = [o for o in incoming.camera.outputs if o.has_subscribers]
                if outputs:
                    jobs.append(self._open(incoming, outputs, segmenter, parameters))
                else:
                    incoming.camera.statistics.dropped()
        begun = time.monotonic()
        jobs = self._segment(jobs)
        network_time = time.monotonic() - begun
        remaining = []
        for job in jobs:  # of all cameras, before one of them waits for depth or TF
            with self._isolate_errors(job.incoming.camera):
                self._publish_pixels(job, parameters)
                remaining.append(job)
        # One deadline for all images, so that the waiting times do not add up.
        deadline = time.monotonic() + parameters.depth_tolerance
        for job in remaining:
            with self._isolate_errors(job.incoming.camera):
                self._publish_rocks(job, network_time, parameters, deadline)

    @contextmanager
    def _isolate_errors(self, camera: Camera) -> Iterator[None]:
        """Counts and logs an error in the processing of a camera's image."""
        log = self._node.get_logger()
        try:
            yield
        except InvalidImageError as error:
            camera.statistics.rejected(error.reason)
            log.warning(f'{camera.topic}: image rejected: {error}', throttle_duration_sec=1.0)
        except Exception as error:  # noqa: BLE001  (the next image may succeed)
            if not self._node.context.ok() or isinstance(error, InvalidHandle):
                camera.statistics.dropped()  # the node or its publishers are being destroyed
                return
            reason = first_line(error)
            camera.statistics.failed(reason)
            log.error(
                f'{camera.topic}: processing of an image failed: {reason}',
                throttle_duration_sec=1.0,
            )

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
        camera = incoming.camera
        camera.reader.bit_depth.significant_bits = parameters.significant_bits
        camera.reader.max_pixels = parameters.max_pixels
        pixels = camera.reader.read(message)
        camera.last_size = pixels.shape[:2]
        camera.geometry.hold_depth(message.header)
        if camera.reset_requested:  # reset here, because only this thread uses the tracker
            camera.reset_requested = False
            camera.tracker.reset()
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
            target=TargetLimits(
                parameters.target_min_diameter,
                parameters.target_max_diameter,
                parameters.target_min_distance,
                parameters.target_max_distance,
                parameters.target_min_score,
            ),
            valid_mask=camera.valid_mask,
        )
        try:
            analysis = Analysis(
                pixels,
                segmenter,
                settings,
                message.header,
                tracker=camera.tracker,
                time=nanoseconds(message.header) / 1e9,
                previous_target=camera.target if parameters.track else None,
            )
        except SizeError as error:
            raise InvalidImageError('not the size of ignore_mask', str(error)) from None
        return ImageJob(incoming, analysis, outputs, started, time.monotonic())

    def _segment(self, jobs: list[ImageJob]) -> list[ImageJob]:
        """Runs the network; returns the images that were segmented without an error."""
        if len(jobs) > 1:
            try:
                segment_together([job.analysis for job in jobs])
            except Exception as error:  # noqa: BLE001  (such as too little memory for the batch)
                self._node.get_logger().warning(
                    f'a batch of {len(jobs)} images failed, processing them one by one:'
                    f' {first_line(error)}',
                    throttle_duration_sec=1.0,
                )
        segmented = []
        for job in jobs:
            with self._isolate_errors(job.incoming.camera):
                _ = job.analysis.segmentation
                segmented.append(job)
        return segmented

    def _publish_pixels(self, job: ImageJob, parameters: Parameters) -> None:
        """Publishes the outputs that do not need the rocks."""
        begun = time.monotonic()
        for output in job.outputs:
            if not output.needs_rocks:
                output.publish(job.analysis, parameters)
        job.publishing = time.monotonic() - begun

    def _publish_rocks(
        self, job: ImageJob, network_time: float, parameters: Parameters, deadline: float
    ) -> None:
        """Publishes the outputs that need the rocks.

        Args:
            job: The image.
            network_time: Time that the network took, s.
            parameters: The parameters of the node.
            deadline: `time.monotonic()` until which depth and TF are waited for.
        """
        begun = time.monotonic()
        camera, analysis = job.incoming.camera, job.analysis
        if any(output.needs_geometry for output in job.outputs):
            analysis.view = camera.geometry.view(
                analysis.header, analysis.image.shape[:2], parameters.depth_tolerance, deadline
            )
            if analysis.view is not None and analysis.view.depth is not None:
                analysis.pose = camera.geometry.pose(analysis.header, deadline)
        for output in job.outputs:
            if output.needs_rocks:
                output.publish(analysis, parameters)
        done = time.monotonic()
        camera.last_analysis, camera.target = analysis, analysis.current_target
        received = job.incoming.received
        camera.statistics.published(
            {
                'wait': job.started - received,
                'read': job.read - job.started,
                'network': network_time,
                'publish': job.publishing + done - begun,
                'total': done - received,
            },
            self._age(job.incoming.message.header),
        )

    def _age(self, header: Any) -> float:
        """Returns the seconds since the header's stamp."""
        return float(self._node.get_clock().now().nanoseconds - nanoseconds(header)) / 1e9
