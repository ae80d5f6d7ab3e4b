# SPDX-License-Identifier: Apache-2.0
"""Reads and analyses the images of a bag, with their camera_info and depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from rock_seg_ros.node.camera_geometry import UnusableInput, read_image_intrinsics, read_registered
from rock_seg_ros.node.images import ImageReader, InvalidImageError
from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.pairing import NS
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.tracking import Tracker
from rock_seg_ros.tools.bag.frames import Frame
from rock_seg_ros.tools.bag.topics import INFO, CameraTopics, read_message

# Errors that reject a single image. torch raises RuntimeError when it is out of memory.
IMAGE_ERRORS = (ValueError, RuntimeError, MemoryError, cv2.error)


class BagImageReader:
    """Analyses the images of a camera in their order.

    Attributes:
        ignored: Reason → number of images whose depth or camera_info was ignored.
        target: Rock id of the last target.
        settings: Settings of the analysis; may be changed between images.
    """

    def __init__(
        self,
        topics: CameraTopics,
        segmenter: Segmenter,
        settings: Settings,
        ground: Plane | None = None,
        rectified: bool = False,
        images: ImageReader | None = None,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Starts with no image read.

        Args:
            topics: Topics of the camera.
            segmenter: The network.
            settings: Settings of the analysis.
            ground: Ground plane below the camera; None = unknown.
            rectified: Whether the images are rectified.
            images: Converts messages to arrays.
            report: Called once per reason with a line that says why camera_info or depth is
                ignored.
        """
        self.ignored: Counter[str] = Counter()
        self.target: int | None = None
        self._topics = topics
        self._segmenter = segmenter
        self.settings = settings
        self._tracker = Tracker()
        self._ground = ground
        self._rectified = rectified
        self._images = images or ImageReader(lambda _: None)
        self._report = report

    def read(self, frame: Frame) -> Analysis:
        """Reads and analyses an image.

        Raises:
            InvalidImageError: The image is invalid, or its encoding is unknown.
            ValueError: Its size differs from that of the ignore mask.
        """
        message = read_message(frame.message.data, self._topics.image.type)
        image = self._images.read(message)
        return Analysis(
            image,
            self._segmenter,
            self.settings,
            message.header,
            self._tracker,
            frame.stamp / NS,
            self._view(frame, message.header, image.shape[:2]),
            self.target if self.settings.track else None,
        )

    def _view(self, frame: Frame, header: Header, shape: tuple[int, int]) -> View | None:
        """Returns the camera geometry of an image; unusable inputs are ignored and counted."""
        topic = self._topics.info.name if self._topics.info else ''
        try:
            if frame.info is None:
                if self._topics.depth or self._ground:
                    raise UnusableInput('camera_info: missing', 'choose a topic with --camera-info')
                return None
            lens = read_image_intrinsics(
                _read(frame.info, INFO, 'camera_info'), shape, self._rectified
            )
        except UnusableInput as reason:
            self._ignore(reason, topic)
            return None
        depth = None
        try:
            depth = self._depth(frame.depth, header, shape)
        except UnusableInput as reason:
            self._ignore(reason, self._topics.depth.name if self._topics.depth else '')
        return View(lens, depth, self._ground)

    def _ignore(self, reason: UnusableInput, topic: str) -> None:
        """Counts an ignored input, and reports the first one of each reason."""
        self.ignored[str(reason)] += 1
        if self.ignored[str(reason)] == 1:
            self._report(reason.line(topic))

    def _depth(
        self, data: bytes | None, header: Header, shape: tuple[int, int]
    ) -> NDArray[np.float32] | None:
        """Reads the depth (m) of an image with this header, height and width."""
        if self._topics.depth is None:
            return None
        if data is None:
            raise UnusableInput('depth: none at the time of the image')
        message = _read(data, self._topics.depth.type, 'depth')
        return read_registered(message, header, shape, self._topics.registered)


def _read(data: bytes, kind: str, name: str) -> Any:
    """Reads a camera_info or depth message; raises UnusableInput if it is damaged."""
    try:
        return read_message(data, kind)
    except InvalidImageError as error:
        raise UnusableInput(f'{name}: {error.reason}') from None


def reason_of(error: Exception) -> str:
    """Returns the reason under which an error is counted."""
    return error.reason if isinstance(error, InvalidImageError) else first_line(error)
