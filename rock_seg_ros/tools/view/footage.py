# SPDX-License-Identifier: Apache-2.0
"""Images of files, a video, a bag or a camera, in their order and with their times."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import MAX_PIXELS, read_rgb
from rock_seg_ros.perception.image_io.image_files import SUFFIXES
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.tracking import Tracker
from rock_seg_ros.tools.image_results import find_images

BAG_ENDINGS = ('.mcap', '.db3', '.zstd', '.bag')
IMAGE_PERIOD = 1.0  # time that each image file is shown while playing, s
MAX_GAP = 2.0  # longer gaps between the images of a bag are skipped, s
CAMERA_TIMEOUT = 5.0
RELEASE_TIMEOUT = 0.5
NS = 10**9


@dataclass(frozen=True)
class Moment:
    """An image that has been read.

    Attributes:
        name: Name of the image.
        time: Time of the image, s.
        stamp: Time that it has in a recording, ns since the epoch.
        after: Time since the image before, s.
        analyse: Analyses it.
    """

    name: str
    time: float
    stamp: int
    after: float
    analyse: Callable[[Settings], Analysis]


class Footage(ABC):
    """The interface of image sources.

    Attributes:
        title: Name of the source.
        detail: Further text on the page, such as a topic.
        moving: Whether it starts playing automatically.
        tracked: Whether rocks can keep their ids from image to image.
        dropped: Number of images that were not analysed because newer ones had come.
        problem: One line about images that could not be read; empty if there are none.
    """

    moving = True
    tracked = True

    def __init__(self, title: str) -> None:
        """Stores the title; the images are read later."""
        self.title = title
        self.detail = ''
        self.dropped = 0
        self.problem = ''
        self._stack = ExitStack()  # closes files and devices

    @abstractmethod
    def moments(self) -> Iterator[Moment]:
        """Yields the images from the beginning.

        Raises:
            ValueError: The images cannot be read; the message is one line.
            OSError: A file cannot be read.
        """

    def close(self) -> None:
        """Closes files and devices."""
        self._stack.close()


class ImageFiles(Footage):
    """Image files, one after another."""

    moving = False
    tracked = False

    def __init__(
        self, inputs: Sequence[str], segmenter: Segmenter, bits: int = 0, pixels: int = MAX_PIXELS
    ) -> None:
        """Lists the images.

        Args:
            inputs: Files, folders or globs.
            segmenter: The network.
            bits: Number of bits that 16-bit images use; 0 = found from the values.
            pixels: Maximum number of pixels of an image.

        Raises:
            ImageError: There are no images.
            OSError: A file does not exist.
        """
        super().__init__(' '.join(inputs))
        self._files = find_images(inputs)
        for file in self._files:
            file.stat()
        self._segmenter = segmenter
        self._bits = bits
        self._pixels = pixels

    def moments(self) -> Iterator[Moment]:
        """Yields the images. An unreadable image raises an error when it is analysed."""
        for number, file in enumerate(self._files):
            yield Moment(
                file.name,
                number * IMAGE_PERIOD,
                time.time_ns(),
                IMAGE_PERIOD,
                self._analyser(file),
            )

    def _analyser(self, file: Path) -> Callable[[Settings], Analysis]:
        images: list[NDArray[np.uint8]] = []

        def analyse(settings: Settings) -> Analysis:
            if not images:  # read once, however often the settings change
                images.append(read_rgb(file, BitDepth(self._bits), self._pixels))
            return Analysis(images[0], self._segmenter, settings)

        return analyse


class Stream(Footage):
    """Images of one camera, whose rocks are tracked."""

    def __init__(self, title: str, segmenter: Segmenter) -> None:
        """Starts without tracks."""
        super().__init__(title)
        self._segmenter = segmenter
        self._tracker = Tracker()

    def _moment(self, image: NDArray[np.uint8], moment: float, after: float) -> Moment:
        return Moment(
            f'{Path(self.title).name} {moment:.3f} s',
            moment,
            time.time_ns(),
            after,
            lambda settings: Analysis(
                image, self._segmenter, settings, tracker=self._tracker, time=moment
            ),
        )


class VideoFile(Stream):
    """A video, played at its native speed."""

    def __init__(
        self, path: Path, segmenter: Segmenter, bits: int = 0, pixels: int = MAX_PIXELS
    ) -> None:
        """Checks that the file is a video.

        Raises:
            VideoError: It is not.
            OSError: The file cannot be read.
        """
        from rock_seg_ros.tools.video import Video

        super().__init__(str(path), segmenter)
        self._open = lambda: Video(path, BitDepth(bits), pixels)
        with self._open():
            pass

    def moments(self) -> Iterator[Moment]:
        """Yields the frames."""
        with self._open() as video:
            last: float | None = None
            for frame in video.frames():
                moment = float(frame.stamp * video.time_base)
                yield self._moment(frame.image, moment, 0.0 if last is None else moment - last)
                last = moment
            self.problem = video.problem


class BagFile(Footage):
    """The images of a camera in a bag, with camera_info and depth, played at native speed."""

    def __init__(
        self,
        path: Path,
        topic: str | None,
        segmenter: Segmenter,
        bits: int = 0,
        pixels: int = MAX_PIXELS,
    ) -> None:
        """Opens the bag.

        Args:
            path: The bag.
            topic: Image topic; None = the only one.
            segmenter: The network.
            bits: Number of bits that 16-bit images use; 0 = found from the values.
            pixels: Maximum number of pixels of an image.

        Raises:
            BagError: The bag cannot be read.
            UsageError: The bag has several cameras, or not this topic.
        """
        from rock_seg_ros.node.images import ImageReader
        from rock_seg_ros.tools.bag.files import Bag
        from rock_seg_ros.tools.bag.images import BagImageReader
        from rock_seg_ros.tools.bag.topics import find_camera_topics

        super().__init__(str(path))
        self._bag = self._stack.enter_context(Bag(path))
        self._topics = find_camera_topics(self._bag, '/rock_seg', topic)
        self.detail = self._topics.image.name
        images = ImageReader(lambda _: None, bits, pixels)
        self._reader = BagImageReader(self._topics, segmenter, Settings(), images=images)

    def moments(self) -> Iterator[Moment]:
        """Yields the images."""
        from rock_seg_ros.node.parameters import Parameters
        from rock_seg_ros.tools.bag.frames import frames
        from rock_seg_ros.tools.bag.topics import first_intact_message

        name = Path(self.title).name
        info = self._topics.info
        first_info = first_intact_message(self._bag, info) if info else None
        messages = self._bag.messages(self._topics.topics)
        last: int | None = None
        for frame in frames(messages, self._topics, Parameters.depth_tolerance, first_info):
            stamp = frame.message.stamp
            gap = 0.0 if last is None else (stamp - last) / NS
            last = stamp
            yield Moment(
                f'{name} {frame.stamp / NS:.3f} s',
                frame.stamp / NS,
                stamp,
                min(max(gap, 0.0), MAX_GAP),
                lambda settings, frame=frame: self._analyse(frame, settings),  # type: ignore[misc]
            )

    def _analyse(self, frame: Any, settings: Settings) -> Analysis:
        self._reader.settings = settings
        analysis = self._reader.read(frame)
        self._reader.target = analysis.current_target
        return analysis


class Camera(Stream):
    """A camera of this machine. Only the newest image is processed; others are dropped."""

    def __init__(self, number: int, segmenter: Segmenter, capture: Any = None) -> None:
        """Opens the camera.

        Args:
            number: Number of the camera: 0 is /dev/video0.
            segmenter: The network.
            capture: A cv2.VideoCapture; None = the one of the number.

        Raises:
            ValueError: There is no such camera, or it is in use.
        """
        super().__init__(f'camera {number}', segmenter)
        self._capture = cv2.VideoCapture(number) if capture is None else capture
        if not self._capture.isOpened():
            raise ValueError(
                f'camera {number} cannot be opened; check that /dev/video{number} exists and that'
                ' no other program uses it'
            )
        self._newest: tuple[float, NDArray[np.uint8]] | None = None
        self._came = threading.Condition()
        self._closed = False
        thread = threading.Thread(target=self._grab, name='camera', daemon=True)
        self._stack.callback(self._release, thread)
        thread.start()

    def _grab(self) -> None:
        while not self._closed:
            done, bgr = self._capture.read()
            with self._came:
                if not done:
                    self._closed = True
                else:
                    self.dropped += self._newest is not None
                    self._newest = time.time(), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
                self._came.notify_all()

    def moments(self) -> Iterator[Moment]:
        """Yields the newest image at each iteration."""
        while True:
            with self._came:
                self._came.wait_for(lambda: self._newest or self._closed, CAMERA_TIMEOUT)
                newest, self._newest = self._newest, None
            if newest is None:
                raise ValueError(f'{self.title} gives no images')
            yield self._moment(newest[1], newest[0], 0.0)

    def _release(self, thread: threading.Thread) -> None:
        self._closed = True
        thread.join(RELEASE_TIMEOUT)
        self._capture.release()


def open_footage(
    inputs: Sequence[str],
    segmenter: Segmenter,
    topic: str | None = None,
    bits: int = 0,
    pixels: int = MAX_PIXELS,
) -> Footage:
    """Opens files: images, a video or a bag.

    Args:
        inputs: One file or folder, or several images.
        segmenter: The network.
        topic: Image topic of a bag; None = the only one.
        bits: Number of bits that 16-bit images use; 0 = found from the values.
        pixels: Maximum number of pixels of an image.

    Raises:
        ValueError: It is none of these, or cannot be read.
        OSError: A file cannot be read.
    """
    path = Path(inputs[0])
    if len(inputs) == 1 and path.exists():
        if is_bag(path):
            return BagFile(path, topic, segmenter, bits, pixels)
        if path.is_file() and path.suffix.lower() not in SUFFIXES:
            return VideoFile(path, segmenter, bits, pixels)
    return ImageFiles(inputs, segmenter, bits, pixels)


def is_bag(path: Path) -> bool:
    """Returns whether an existing file or folder is a bag, from its name or its content."""
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.suffix.lower() in BAG_ENDINGS for file in files)
