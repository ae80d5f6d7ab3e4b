# SPDX-License-Identifier: Apache-2.0
"""The demo's doings: a camera that shows images to the node and listens to what it says."""

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

from rock_seg_ros.perception.image_io.decoding import decode_rgb, read_grey
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
    """The demo did not show what it should; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A labelled image that was measured on.

    Attributes:
        name: Its file's stem.
        truth: H×W uint8, not 0 where there is rock.
        result: What the node said.
    """

    name: str
    truth: NDArray[np.uint8]
    result: Result


@dataclass(frozen=True)
class Drive:
    """What came of the bag.

    Attributes:
        rate: Times as fast as recorded.
        played: Images that were published.
        results: What the node said, by stamp, ascending.
        counts: How much each of the node's counters rose, such as 'frames in'.
        diagnostics: The node's diagnostics at the end.
    """

    rate: float
    played: int
    results: dict[Stamp, Result]
    counts: dict[str, int]
    diagnostics: dict[str, str]


class Camera:
    """Stands in for a camera driver, and listens to what the node makes of its images.

    Attributes:
        node: The ROS node that publishes and subscribes.
        recorder: What came back.
        sent: Stamp of each published image → the message.
    """

    def __init__(self, node: Node, recorder: Recorder) -> None:
        """Creates the publisher for single images."""
        self.node = node
        self.recorder = recorder
        self.sent: dict[Stamp, CompressedImage] = {}
        self._publisher = node.create_publisher(CompressedImage, COMPRESSED, 1)

    def connected(self) -> bool:
        """Whether the node subscribes to the images, and its outputs come here."""
        return self._publisher.get_subscription_count() > 0 and self.recorder.connected()

    def played(self, data: bytes) -> Stamp:
        """Notes an image that somebody published, in CDR; returns its stamp."""
        return self._note(deserialize_message(data, CompressedImage))

    def process_image(self, image: CompressedImage, timeout: float) -> Result:
        """Publishes an image and waits for its results; asks again, since images may be lost.

        Args:
            image: With a stamp that was not used before.
            timeout: Most seconds to wait each time, which is while the node has images in hand.

        Raises:
            DemoError: There is no answer.
        """
        stamp = self._note(image)
        for attempt in range(TRIES):
            if attempt:
                tqdm.write('no answer to an image, asking again', file=sys.stderr)
            self._publisher.publish(image)
            if self._answered(stamp, timeout):
                result = self.recorder.results[stamp]
                check_result(image, result)
                return result
        diagnostics = ', '.join(
            f'{name} {value}' for name, value in self.recorder.diagnostics.items()
        )
        raise DemoError(f'the node published nothing for an image; its diagnostics: {diagnostics}')

    def _answered(self, stamp: Stamp, timeout: float) -> bool:
        recorder, before = self.recorder, self.recorder.report_count

        def whole() -> bool:
            return stamp in recorder.results and recorder.results[stamp].complete

        def idle() -> bool:  # the next report may have been written before the image came
            return recorder.report_count > before + 1 and pending_images(recorder.diagnostics) == 0

        recorder.wait_for(lambda: whole() or idle(), timeout)
        return recorder.wait_for(whole, RESULT_GRACE_PERIOD)  # a report may overtake a large result

    def _note(self, image: CompressedImage) -> Stamp:
        stamp = (image.header.stamp.sec, image.header.stamp.nanosec)
        self.sent[stamp] = image
        return stamp


@contextmanager
def listening(process: NodeProcess, recording: BagWriter) -> Iterator[Camera]:
    """Yields a camera on a ROS node of its own, for as long as the process lives."""

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
    """Waits until the node says that it is active and both sides have found each other.

    Raises:
        DemoError: It could not be configured, ended, or took longer than `timeout` s.
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
        raise DemoError(f'the node does not subscribe to {COMPRESSED} or publishes too little')


def warm_up(camera: Camera, path: Path) -> float:
    """Has the node work on the bag's first images; returns its usual seconds an image."""
    seconds = []
    with Bag(path) as bag:
        for number, message in zip(
            range(WARM_UP_IMAGES), bag.messages([image_topic(bag)]), strict=False
        ):
            image = deserialize_message(message.data, CompressedImage)
            image.header = _header(number, 'warm_up')
            began = time.monotonic()
            camera.process_image(image, MAX_ANSWER_TIMEOUT)
            seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def play_rate(duration: float, seconds: float) -> float:
    """Returns how fast a bag may be played so that `WANTED_MASKS` come out; never above 1.

    Args:
        duration: Of the bag, s.
        seconds: An image.
    """
    return min(1.0, duration / (WANTED_MASKS * MARGIN * seconds))


def image_topic(bag: Bag) -> BagTopic:
    """Returns the topic of the bag's images.

    Raises:
        DemoError: The bag has none.
    """
    for topic in bag.topics:
        if topic.name == COMPRESSED:
            return topic
    raise DemoError(f'{bag.path}: has no topic {COMPRESSED}')


def play_drive(camera: Camera, bag: Bag, rate: float) -> Drive:
    """Plays the bag into the node and waits until the last image is done.

    Raises:
        DemoError: The node published nothing, or a mask that does not fit its image.
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
        print(f'only {len(results)} masks came out, not {WANTED_MASKS}', file=sys.stderr)
    return Drive(rate, len(played), results, counts, after)


def wait_for_results(recorder: Recorder, played: list[Stamp], count: int) -> dict[Stamp, Result]:
    """Waits for the results of as many of the played images as the node counts.

    Raises:
        DemoError: Other than so many arrived, or none.
    """

    def complete() -> dict[Stamp, Result]:
        found = {stamp: recorder.results.get(stamp) for stamp in played}
        return {stamp: result for stamp, result in found.items() if result and result.complete}

    recorder.wait_for(lambda: len(complete()) >= count, REPORT_TIMEOUT)
    results = complete()
    if not results or len(results) != count:
        told = ', '.join(f'{name} {value}' for name, value in recorder.diagnostics.items())
        raise DemoError(f'of {len(played)} images, {len(results)} came back; the node says: {told}')
    return results


def wait_until_idle(recorder: Recorder) -> dict[str, str]:
    """Returns the node's diagnostics once every image that it has is accounted for.

    Raises:
        DemoError: There are no diagnostics, or images stay in hand.
    """
    recorder.wait_for_report(REPORT_TIMEOUT)  # the next may have been written before this call
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if not recorder.wait_for_report(REPORT_TIMEOUT):
            raise DemoError(f'the node sent no diagnostics for {REPORT_TIMEOUT:.0f} s')
        if pending_images(recorder.diagnostics) == 0:
            return dict(recorder.diagnostics)
    raise DemoError(f'the node did not finish its images within {START_TIMEOUT:.0f} s')


def pending_images(diagnostics: Mapping[str, str]) -> int:
    """Returns how many images came to the node that its diagnostics do not account for yet."""
    done = ('out', 'dropped', 'failed', 'refused')
    return int(diagnostics['frames in']) - sum(int(diagnostics[f'frames {name}']) for name in done)


def check_result(image: CompressedImage, result: Result) -> None:
    """Checks that all results carry the image's header and the mask its size.

    Raises:
        DemoError: They do not.
    """
    for output, message in result.messages.items():
        if message.header != image.header:
            raise DemoError(f'{output} has the header {message.header}, not {image.header}')
    size = decode(image).shape[:2]
    if result.mask.shape != size:
        raise DemoError(f'a mask is {result.mask.shape}, its image {size}')


def measure(camera: Camera, folder: Path, seconds: float) -> list[Sample]:
    """Has the node work on the labelled images, sent as their files.

    Args:
        camera: Publishes them.
        folder: With images in `images/`, and `masks/NAME.png` of each.
        seconds: That an image usually takes.

    Raises:
        DemoError: The node gives no answer, or there are no images.
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
        truth = read_grey(folder / 'masks' / f'{path.stem}.png')
        samples.append(Sample(path.stem, truth, result))
    return samples


def decode(message: CompressedImage) -> NDArray[np.uint8]:
    """Decodes an image as the node does, not turned: H×W×3 uint8 RGB."""
    return decode_rgb(message.data, upright=False)


def _header(second: int, frame_id: str) -> Header:
    """Returns a header with a stamp of its own, long before any bag's."""
    header = Header(frame_id=frame_id)
    header.stamp.sec = 1 + second
    return header
