# SPDX-License-Identifier: Apache-2.0
"""A bag's messages → images to be worked on, with what tells metres in them."""

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
from rock_seg_ros.perception.geometry.projection import Plane, View
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.tracking import Tracker
from rock_seg_ros.tools.bag.frames import Frame
from rock_seg_ros.tools.bag.topics import INFO, CameraTopics, read_message

# What may go wrong with an image. RuntimeError: torch has no memory left.
IMAGE_ERRORS = (ValueError, RuntimeError, MemoryError, cv2.error)


class BagImageReader:
    """Makes images of a camera's messages, in their order.

    Attributes:
        set_aside: Reason → images that went on without their depth or camera_info.
        target: Id of the rock that was the target last.
    """

    def __init__(
        self,
        sources: CameraTopics,
        segmenter: Segmenter,
        settings: Settings,
        ground: Plane | None = None,
        rectified: bool = False,
        images: ImageReader | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Starts with no image read.

        Args:
            sources: The camera's topics.
            segmenter: The network that is asked.
            settings: How it is asked.
            ground: That the camera is above, where known.
            rectified: Whether the images are.
            images: Makes arrays of the messages.
            tell: Told in one line, once, why camera_info or depth is not used.
        """
        self.set_aside: Counter[str] = Counter()
        self.target: int | None = None
        self._sources = sources
        self._segmenter = segmenter
        self._settings = settings
        self._tracker = Tracker()
        self._ground = ground
        self._rectified = rectified
        self._images = images or ImageReader(lambda _: None)
        self._tell = tell

    def read(self, frame: Frame) -> Analysis:
        """Reads an image.

        Raises:
            InvalidImageError: It is no image, or in an unknown encoding.
            ValueError: It does not have the ignore mask's size.
        """
        message = read_message(frame.message.data, self._sources.image.type)
        image = self._images.read(message)
        return Analysis(
            image,
            self._segmenter,
            self._settings,
            message.header,
            self._tracker,
            frame.stamp / NS,
            self._view(frame, message.header, image.shape[:2]),
            self.target if self._settings.track else None,
        )

    def _view(self, frame: Frame, header: Header, shape: tuple[int, int]) -> View | None:
        """Returns what tells metres in an image; what cannot be used is counted."""
        topic = self._sources.info.name if self._sources.info else ''
        try:
            if frame.info is None:
                if self._sources.depth or self._ground:
                    raise UnusableInput('camera_info: there is none', '--camera-info names it')
                return None
            lens = read_image_intrinsics(
                _read(frame.info, INFO, 'camera_info'), shape, self._rectified
            )
        except UnusableInput as reason:
            self._set_aside(reason, topic)
            return None
        depth = None
        try:
            depth = self._depth(frame.depth, header, shape)
        except UnusableInput as reason:
            self._set_aside(reason, self._sources.depth.name if self._sources.depth else '')
        return View(lens, depth, self._ground)

    def _set_aside(self, reason: UnusableInput, topic: str) -> None:
        """Counts what cannot be used, and tells of the first one of each reason."""
        self.set_aside[str(reason)] += 1
        if self.set_aside[str(reason)] == 1:
            self._tell(reason.line(topic))

    def _depth(
        self, data: bytes | None, header: Header, shape: tuple[int, int]
    ) -> NDArray[np.float32] | None:
        """Reads the depth (m) of an image with some header, height and width."""
        if self._sources.depth is None:
            return None
        if data is None:
            raise UnusableInput('depth: of another time')
        message = _read(data, self._sources.depth.type, 'depth')
        return read_registered(message, header, shape, self._sources.registered)


def _read(data: bytes, kind: str, name: str) -> Any:
    """Reads what came with an image; raises UnusableInput where it is damaged."""
    try:
        return read_message(data, kind)
    except InvalidImageError as refusal:
        raise UnusableInput(f'{name}: {refusal.reason}') from None


def reason_of(error: Exception) -> str:
    """Returns what is counted of what went wrong."""
    return error.reason if isinstance(error, InvalidImageError) else first_line(error)
