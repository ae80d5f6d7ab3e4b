# SPDX-License-Identifier: Apache-2.0
"""The steps of the demo: a simulated camera publishes images and receives the results."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import decode_rgb, read_label_image
from rock_seg_ros.perception.image_io.image_files import image_files
from rock_seg_ros.tools.bag.files import Bag, BagTopic, BagWriter
from rock_seg_ros.tools.demo.recorder import Recorder, Result, Stamp
from rock_seg_ros.tools.node_process import NodeProcess
from rock_seg_ros.tools.play import Player

NODE = '/rock_seg'
IMAGE = '/camera/image_raw'
COMPRESSED = f'{IMAGE}/compressed'
START_TIMEOUT = 300.0
REPORT_TIMEOUT = 30.0
MIN_ANSWER_TIMEOUT = 20.0
MAX_ANSWER_TIMEOUT = 60.0
RESULT_GRACE_PERIOD = 0.5
WARM_UP_IMAGES = 3
WANTED_MASKS = 10
MARGIN = 1.4
TRIES = 3


class DemoError(ValueError):
    """The node did not work as expected; the message is one line with the reason."""


@dataclass(frozen=True)
class Sample:
    """A labelled image and its results.

    Attributes:
        name: Stem of the file name.
        truth: Label, H×W uint8, not 0 where there is rock.
        result: Results of the node.
    """

    name: str
    truth: NDArray[np.uint8]
    result: Result


@dataclass(frozen=True)
class Drive:
    """Results of playing the bag.

    Attributes:
        rate: Playback speed relative to the recording.
        played: Number of images that were published.
        results: Stamp of an image → results of the node, in ascending order.
        counts: Increase of each counter of the node, such as 'frames in'.
        diagnostics: Diagnostics of the node at the end.
    """

    rate: float
    played: int
    results: dict[Stamp, Result]
    counts: dict[str, int]
    diagnostics: dict[str, str]


class Camera:
    """A simulated camera driver that also receives the results.

    Attributes:
        node: The ROS node that publishes and subscribes.
        recorder: Receives the outputs and diagnostics of the node.
        sent: Stamp of each published image → the message.
    """

    def __init__(self, node: Node, recorder: Recorder) -> None:
        """Creates the publisher for single images."""
        self.node = node
        self.recorder = recorder
        self.sent: dict[Stamp, CompressedImage] = {}
        self._publisher = node.create_publisher(CompressedImage, COMPRESSED, 1)

    def connected(self) -> bool:
        """Returns whether the images have a subscriber and all outputs have a publisher."""
        return self._publisher.get_subscription_count() > 0 and self.recorder.connected()

    def played(self, data: bytes) -> Stamp:
        """Records an image (CDR) that the bag player published; returns its stamp."""
        return self._record_sent(deserialize_message(data, CompressedImage))

    def process_image(self, image: CompressedImage, timeout: float) -> Result:
        """Publishes an image and waits for its results; publishes it again if it was lost.

        Args:
            image: An image with a new stamp.
            timeout: Maximum waiting time per attempt, s. An attempt ends earlier if the node has
                no pending images.

        Raises:
            DemoError: No results arrived after `TRIES` attempts.
        """
        stamp = self._record_sent(image)
        for attempt in range(TRIES):
            if attempt:
                tqdm.write('no results for an image; publishing it again', file=sys.stderr)
            self._publisher.publish(image)
            if self._answered(stamp, timeout):
                result = self.recorder.results[stamp]
                check_result(image, result)
                return result
        diagnostics = ', '.join(
            f'{name} {value}' for name, value in self.recorder.diagnostics.items()
        )
        raise DemoError(
            f'no results for an image after {TRIES} attempts; diagnostics: {diagnostics}'
        )

    def _answered(self, stamp: Stamp, timeout: float) -> bool:
        recorder, before = self.recorder, self.recorder.report_count

        def complete() -> bool:
            return stamp in recorder.results and recorder.results[stamp].complete

        def idle() -> bool:  # the next diagnostics may be older than the image
            return recorder.report_count > before + 1 and pending_images(recorder.diagnostics) == 0

        recorder.wait_for(lambda: complete() or idle(), timeout)
        # Diagnostics may arrive before a large result.
        return recorder.wait_for(complete, RESULT_GRACE_PERIOD)

    def _record_sent(self, image: CompressedImage) -> Stamp:
        stamp = (image.header.stamp.sec, image.header.stamp.nanosec)
        self.sent[stamp] = image
        return stamp


@contextmanager
def open_camera(process: NodeProcess, recording: BagWriter) -> Iterator[Camera]:
    """Yields a camera with its own ROS node; waiting raises DemoError if the process ends."""

    def check() -> None:
        if process.status() is not None:
            raise DemoError(
                f'the node ended with status {process.status()}: {process.last_lines()}'
            )

    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node('rock_seg_demo', context=context, start_parameter_services=False)
        recorder = Recorder(node, NODE, recording, check)
        yield Camera(node, recorder)
        recorder.close()
    finally:
        context.try_shutdown()


def await_active(camera: Camera, process: NodeProcess, timeout: float = START_TIMEOUT) -> None:
    """Waits until the node is active and all publishers and subscriptions are connected.

    Raises:
        DemoError: The node reports an error, ended, or is not active after `timeout` s.
    """
    recorder = camera.recorder
    recorder.wait_for(
        lambda: recorder.diagnostics.get('state') == 'active' or bool(recorder.error_message),
        timeout,
    )
    if recorder.error_message:
        raise DemoError(
            f'the node is {recorder.diagnostics.get("state")}: {recorder.error_message}'
        )
    if recorder.diagnostics.get('state') != 'active':
        raise DemoError(f'the node is not active after {timeout:.0f} s: {process.last_lines()}')
    if not recorder.wait_for(camera.connected, REPORT_TIMEOUT):
        raise DemoError(
            f'the node does not subscribe to {COMPRESSED}, or an output has no publisher'
        )


def warm_up(camera: Camera, path: Path) -> float:
    """Processes the first images of the bag; returns the median time per image, s."""
    seconds = []
    with Bag(path) as bag:
        for number, message in zip(
            range(WARM_UP_IMAGES), bag.messages([image_topic(bag)]), strict=False
        ):
            image = deserialize_message(message.data, CompressedImage)
            image.header = _header(number, 'warm_up')
            start = time.monotonic()
            camera.process_image(image, MAX_ANSWER_TIMEOUT)
            seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def play_rate(duration: float, seconds: float) -> float:
    """Returns the playback speed, at most 1, at which the node publishes `WANTED_MASKS` masks.

    Args:
        duration: Duration of the bag, s.
        seconds: Processing time per image, s.
    """
    return min(1.0, duration / (WANTED_MASKS * MARGIN * seconds))


def image_topic(bag: Bag) -> BagTopic:
    """Returns the image topic of the bag.

    Raises:
        DemoError: The bag does not have it.
    """
    for topic in bag.topics:
        if topic.name == COMPRESSED:
            return topic
    raise DemoError(f'{bag.path}: has no topic {COMPRESSED}')


def play_drive(camera: Camera, bag: Bag, rate: float, max_images: int | None = None) -> Drive:
    """Plays the bag to the node and waits until the last image is processed.

    Args:
        camera: The simulated camera.
        bag: The bag.
        rate: Playback speed relative to the recording.
        max_images: Number of images after which playing ends; None = all.

    Raises:
        DemoError: The node published nothing, or a result that does not match its image.
    """
    recorder = camera.recorder
    player = Player(camera.node, bag, bag.topics)
    player.wait_for_subscriber(REPORT_TIMEOUT, recorder.spin_until)
    before = wait_until_idle(recorder)
    played: list[Stamp] = []
    messages = player.play(rate, recorder.spin_until)
    for message in tqdm(messages, 'playing', player.count, unit='message', file=sys.stderr):
        if message.topic == COMPRESSED:
            played.append(camera.played(message.data))
            if len(played) == max_images:
                break
    after = wait_until_idle(recorder)
    counts = {
        name: int(value) - int(before[name])
        for name, value in after.items()
        if name.startswith('frames ')
    }
    results = wait_for_results(recorder, played, counts['frames out'])
    for stamp, result in results.items():
        check_result(camera.sent[stamp], result)
    if len(results) < WANTED_MASKS:
        print(f'only {len(results)} masks instead of {WANTED_MASKS} arrived', file=sys.stderr)
    return Drive(rate, len(played), results, counts, after)


def wait_for_results(recorder: Recorder, played: list[Stamp], count: int) -> dict[Stamp, Result]:
    """Waits for the results of `count` images, the number of processed images in diagnostics.

    Raises:
        DemoError: Another number of results arrived, or none.
    """

    def complete() -> dict[Stamp, Result]:
        found = {stamp: recorder.results.get(stamp) for stamp in played}
        return {stamp: result for stamp, result in found.items() if result and result.complete}

    recorder.wait_for(lambda: len(complete()) >= count, REPORT_TIMEOUT)
    results = complete()
    if not results or len(results) != count:
        values = ', '.join(f'{name} {value}' for name, value in recorder.diagnostics.items())
        raise DemoError(
            f'results of {len(results)} of {len(played)} images arrived instead of {count};'
            f' diagnostics: {values}'
        )
    return results


def wait_until_idle(recorder: Recorder) -> dict[str, str]:
    """Returns the diagnostics of the node when it has no pending images.

    Raises:
        DemoError: No diagnostics arrive, or images stay pending.
    """
    recorder.wait_for_report(REPORT_TIMEOUT)  # the next report may be older than this call
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if not recorder.wait_for_report(REPORT_TIMEOUT):
            raise DemoError(f'the node published no diagnostics for {REPORT_TIMEOUT:.0f} s')
        if pending_images(recorder.diagnostics) == 0:
            return dict(recorder.diagnostics)
    raise DemoError(f'the node still has pending images after {START_TIMEOUT:.0f} s')


def pending_images(diagnostics: Mapping[str, str]) -> int:
    """Returns the number of received images that were not processed, dropped or rejected yet."""
    done = ('out', 'dropped', 'failed', 'rejected')
    return int(diagnostics['frames in']) - sum(int(diagnostics[f'frames {name}']) for name in done)


def check_result(image: CompressedImage, result: Result) -> None:
    """Checks that all results have the header of the image, and that the mask has its size.

    Raises:
        DemoError: A header or the size differs.
    """
    for output, message in result.messages.items():
        if message.header != image.header:
            raise DemoError(f'{output} has the header {message.header} instead of {image.header}')
    size = decode(image).shape[:2]
    if result.mask.shape != size:
        raise DemoError(f'a mask has the shape {result.mask.shape}, but its image {size}')


def measure(camera: Camera, folder: Path, seconds: float) -> list[Sample]:
    """Processes the labelled images. Their files are published unchanged.

    Args:
        camera: The simulated camera.
        folder: Folder with images in `images/` and their labels `masks/NAME.png`.
        seconds: Processing time per image, s.

    Raises:
        DemoError: There are no images, or no results arrive.
        ImageError, OSError: A mask cannot be read.
    """
    samples = []
    paths = image_files(folder / 'images')
    if not paths:
        raise DemoError(f'{folder}: has no images in images/')
    for number, path in enumerate(tqdm(paths, 'measuring', unit='image', file=sys.stderr)):
        image = CompressedImage(
            header=_header(WARM_UP_IMAGES + number, f'sample_{path.stem}'), format=path.suffix[1:]
        )
        image.data.frombytes(path.read_bytes())
        result = camera.process_image(image, max(MIN_ANSWER_TIMEOUT, 5 * seconds))
        truth = read_label_image(folder / 'masks' / f'{path.stem}.png')
        samples.append(Sample(path.stem, truth, result))
    return samples


def decode(message: CompressedImage) -> NDArray[np.uint8]:
    """Decodes an image as the node does, ignoring EXIF orientation: H×W×3 uint8 RGB."""
    return decode_rgb(message.data, upright=False)


def _header(second: int, frame_id: str) -> Header:
    """Returns a header with a unique stamp that is earlier than those of bags."""
    header = Header(frame_id=frame_id)
    header.stamp.sec = 1 + second
    return header
