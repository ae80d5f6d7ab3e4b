# SPDX-License-Identifier: Apache-2.0
"""`rock_seg bag`: writes a new bag with the messages that the node would publish for a bag."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

from rclpy.serialization import serialize_message

from rock_seg_ros.node.images import ImageReader
from rock_seg_ros.node.outputs import OUTPUTS, Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.pairing import NS
from rock_seg_ros.perception.geometry.view import level_ground
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.writing import temporary_folder
from rock_seg_ros.tools.bag import foxglove
from rock_seg_ros.tools.bag.files import (
    RELIABLE,
    TYPES,
    Bag,
    BagError,
    BagMessage,
    BagTopic,
    BagWriter,
)
from rock_seg_ros.tools.bag.frames import Frame, frames
from rock_seg_ros.tools.bag.images import IMAGE_ERRORS, BagImageReader, reason_of
from rock_seg_ros.tools.bag.records import FILE_NAME, results_of
from rock_seg_ros.tools.bag.storage import BAG_HELP
from rock_seg_ros.tools.bag.topics import CameraTopics, find_camera_topics, first_intact_message
from rock_seg_ros.tools.jobs import add_job_options
from rock_seg_ros.tools.main import FAILED, print_message
from rock_seg_ros.tools.network_options import (
    BITS_HINT,
    add_network_options,
    add_track_option,
    segmenter_of,
    settings_of,
)
from rock_seg_ros.tools.progress import progress
from rock_seg_ros.tools.results.exports import (
    add_export_options,
    check_exports,
    chosen_exports,
    write_exports,
)
from rock_seg_ros.tools.results.ground import ground_of
from rock_seg_ros.tools.results.record_file import RecordWriter
from rock_seg_ros.tools.results.recorder import Recorder, add_scale_options
from rock_seg_ros.tools.resume import add_resume_option

NODE = '/rock_seg'
MADE_BY = 'rock_seg'  # key of the metadata
PROBLEMS = 'rock_seg_problems'  # key of the metadata: the lines that --resume reports again
# Options of this command that change the results.
SETTINGS = (
    'outputs', 'copy', 'image', 'camera_info', 'rectified', 'depth', 'depth_tolerance',
    'camera_height', 'camera_tilt', 'camera_roll',
)  # fmt: skip
DEFAULT_OUTPUTS = ('mask', 'overlay/compressed', 'polygon_points', 'rocks')


def type_name(output: type[Output]) -> str:
    """Returns the message type of an output, such as 'sensor_msgs/msg/Image'."""
    kind = output.message_type
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


# Outputs whose message type can be written: rosbags does not know vision_msgs.
CHOICES = {
    output.topic.removeprefix('~/'): output
    for output in OUTPUTS
    if type_name(output) in TYPES.fielddefs
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg bag`."""
    node = Parameters()
    parser.add_argument('inputs', nargs='+', type=Path, metavar='IN', help=BAG_HELP)
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='OUT',
        help='output bag (mcap) with the messages that the node would publish; must not exist; of'
        ' several IN the folder of their output bags, which have their names',
    )  # fmt: skip
    add_resume_option(parser)
    add_job_options(parser, 'bag')
    add_export_options(parser)
    add_scale_options(
        parser,
        note='; instead of sizes from camera_info and depth, but not in the messages of OUT',
    )
    parser.add_argument(
        '--outputs', nargs='+', choices=CHOICES, default=DEFAULT_OUTPUTS, metavar='NAME',
        help=f'topics to write, of {", ".join(CHOICES)} (default: {" ".join(DEFAULT_OUTPUTS)})',
    )  # fmt: skip
    parser.add_argument(
        '--annotations',
        action='store_true',
        help='also write the rocks for Foxglove: polygons with labels over the images'
        f' ({NODE}/annotations), and in metres where they are known ({NODE}/scene)',
    )
    parser.add_argument(
        '--copy',
        action='store_true',
        help='also copy the messages of IN to OUT (default: only the results)',
    )
    parser.add_argument(
        '--image',
        metavar='TOPIC',
        help='image topic; required if the bag has several cameras (default: the only image topic)',
    )
    parser.add_argument(
        '--camera-info',
        metavar='TOPIC',
        help="camera_info topic, '' = none (default: camera_info in the namespace of the images)",
    )
    parser.add_argument(
        '--rectified',
        action='store_true',
        help='use the projection matrix P of camera_info without distortion, for images that are'
        ' rectified (default: K with distortion)',
    )
    parser.add_argument(
        '--depth',
        metavar='TOPIC',
        help='topic of depth that is registered to the images: raw, compressed or compressedDepth;'
        " '' = none (default: the only depth topic with the frame_id of the images)",
    )
    for name, default, text in (
        (
            '--depth-tolerance',
            node.depth_tolerance,
            'maximum difference between the stamps of image and depth, s',
        ),
        (
            '--camera-height',
            node.camera_height,
            'height of the camera above level ground, m, which gives sizes in metres without depth;'
            ' 0 = unknown',
        ),
        (
            '--camera-tilt',
            node.camera_tilt,
            'angle of the optical axis below the horizon, rad; used with --camera-height',
        ),
        (
            '--camera-roll',
            node.camera_roll,
            'rotation of the camera about its optical axis, rad; used with --camera-height',
        ),
    ):
        text = f'{text} (default: {default})'
        parser.add_argument(name, type=float, default=default, metavar='X', help=text)
    add_track_option(parser)
    add_network_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Processes one bag in this process, or several bags, or with several workers."""
    from rock_seg_ros.tools.bag.many import outputs_of, run_many  # which imports this module

    outputs = outputs_of(arguments.inputs, arguments.output)
    check_exports(arguments, None, outputs.values())
    if len(outputs) > 1 or arguments.resume or arguments.jobs or arguments.ray:
        status = run_many(arguments, outputs)
    else:
        status = process(arguments.inputs[0], arguments, lambda: load(arguments))
    return status if write_bag_exports(outputs.values(), arguments) else FAILED


def write_bag_exports(bags: Iterable[Path], arguments: argparse.Namespace) -> bool:
    """Writes the exports of output bags; returns whether all of them are written."""
    if not chosen_exports(arguments):
        return True
    results, problems = results_of(bags, arguments)
    problems += write_exports(results, arguments)
    for line in problems:
        print_message('bag', line)
    return not problems


def load(arguments: argparse.Namespace) -> tuple[Segmenter, Recorder]:
    """Loads the network that the options name; returns it and what makes its records.

    Raises:
        ValueError: The weights or the scale cannot be used.
    """
    segmenter = segmenter_of(arguments)
    return segmenter, Recorder(arguments, segmenter, SETTINGS)


def process(
    path: Path,
    arguments: argparse.Namespace,
    load_network: Callable[[], tuple[Segmenter, Recorder]],
) -> int:
    """Processes all images. An image that fails is reported and counted, and the next one follows.

    Args:
        path: The bag.
        arguments: The options of the command.
        load_network: Returns the network, and what makes its records.

    Returns:
        The exit status.

    Raises:
        BagError: The input cannot be read, or the output cannot be written.
    """
    output: Path = arguments.output
    if output.exists():
        raise BagError(f'{output}: exists; choose another output or delete it')
    outputs = [CHOICES[name] for name in CHOICES if name in arguments.outputs]
    with Bag(path) as bag:
        camera = find_camera_topics(
            bag, NODE, arguments.image, arguments.camera_info, arguments.depth
        )
        for line in camera.unused:
            print_message('bag', line)
        segmenter, recorder = load_network()
        reader = _reader(arguments, camera, segmenter)
        with _atomic_bag(output) as (writer, folder), ExitStack() as stack:
            writer.add_metadata(MADE_BY, json.dumps(recorder.made_by))
            records = None
            if chosen_exports(arguments) or recorder.has_scale:
                about = {'bag': path.name, 'topics': camera.names}
                file = folder / FILE_NAME
                records = RecordWriter(file, path.name, recorder, arguments.labelme, about)
                stack.enter_context(records)
            results = Results(writer, outputs, arguments.annotations, records)
            copied = _add_copied(bag, writer, results.names) if arguments.copy else []
            with closing(_frames(bag, camera, arguments.depth_tolerance, writer, copied)) as found:
                damage = results.write_all(found, reader)
            problems = [f'{line}; the results before the damage are kept' for line in damage]
            if records:
                records.finish(rejected=results.rejected, ignored=reader.ignored, damage=damage)
                if line := records.scale_line('images'):
                    problems.append(f'{path}: {line}')
            counts = summary(results.done, results.rejected, reader.ignored)
            without_scale = records and records.count and records.without_scale == records.count
            failed = bool(results.rejected or damage or without_scale)
            if failed:
                writer.add_metadata(PROBLEMS, json.dumps([*problems, f'{path}: {counts}']))
    for line in problems:
        print_message('bag', line)
    print(f'{output}: {counts}')
    return FAILED if failed else 0


def _reader(
    arguments: argparse.Namespace, camera: CameraTopics, segmenter: Segmenter
) -> BagImageReader:
    ground = None
    if arguments.camera_height:
        ground = level_ground(arguments.camera_height, arguments.camera_tilt, arguments.camera_roll)
    images = ImageReader(
        lambda text: print_message('bag', f'{camera.image.name}: {text}; {BITS_HINT}'),
        arguments.significant_bits,
        arguments.max_pixels,
    )
    return BagImageReader(
        camera,
        segmenter,
        settings_of(arguments),
        ground,
        arguments.rectified,
        images,
        partial(print_message, 'bag'),
    )


def _frames(
    bag: Bag, camera: CameraTopics, tolerance: float, writer: BagWriter, copied: Sequence[BagTopic]
) -> Generator[Frame, None, None]:
    """Yields the images with a progress bar, and writes the messages of the `copied` topics."""
    topics = {topic.name: topic for topic in (*camera.topics, *copied)}
    messages = _copying(bag.messages(topics.values()), writer, copied)
    first_info = first_intact_message(bag, camera.info) if camera.info else None
    found = frames(messages, camera, tolerance, first_info)
    with progress(found, total=camera.image.count, unit='image') as shown:
        yield from shown


class Results:
    """Writes the results of images to a bag.

    Attributes:
        done: Number of images with results.
        rejected: Reason → number of rejected images.
        topics: Topic → its output.
        names: All topics of the results.
    """

    def __init__(
        self,
        writer: BagWriter,
        outputs: Sequence[type[Output]],
        annotations: bool = False,
        records: RecordWriter | None = None,
    ) -> None:
        """Adds the topics of the results to the bag.

        Args:
            writer: The bag.
            outputs: Outputs of the node that are written.
            annotations: Whether the messages for Foxglove are written.
            records: Writes the records of the images for exports.
        """
        self.done = 0
        self.rejected: Counter[str] = Counter()
        self.topics = {output.topic.replace('~', NODE): output for output in outputs}
        self._writer = writer
        self._records = records
        self._parameters = Parameters()
        for topic, output in self.topics.items():
            writer.add_topic(topic, type_name(output), RELIABLE._replace(depth=output.depth))
        self._annotations = annotations
        self.names = {*self.topics}
        for name, kind in foxglove.TOPICS.items() if annotations else ():
            writer.add_topic(f'{NODE}/{name}', kind)
            self.names.add(f'{NODE}/{name}')

    def write_all(self, frames: Iterable[Frame], reader: BagImageReader) -> list[str]:
        """Writes the results of all images before any damage; returns a line for each damage.

        Raises:
            BagError: The input is damaged before its first image.
            OSError: The output bag cannot be written.
        """
        try:
            for frame in frames:
                self.add(frame, reader)
        except BagError as error:
            if not self.done and not self.rejected:
                raise
            return list(error.args)
        return []

    def add(self, frame: Frame, reader: BagImageReader) -> None:
        """Writes all results of an image, or none of them if an error occurs.

        Raises:
            OSError: The output bag cannot be written.
        """
        try:
            analysis = reader.read(frame)
            results = self.serialize(analysis)
            reader.target = analysis.current_target
            if self._records:
                time = round(frame.message.stamp / NS, 6)
                self._records.add(analysis, time=time, ground=ground_of(analysis))
        except IMAGE_ERRORS as error:
            self._reject(frame, error)
            return
        for topic, data in results:
            self._writer.write(topic, frame.message.stamp, data)
        self.done += 1

    def serialize(self, analysis: Analysis) -> list[tuple[str, bytes]]:
        """Returns the topics and the messages, in CDR, of the results of an image."""
        results = [
            (topic, serialize_message(message))
            for topic, output in self.topics.items()
            for message in output.messages(analysis, self._parameters)
        ]
        if self._annotations:
            results += [(f'{NODE}/{name}', data) for name, data in foxglove.serialize(analysis)]
        return results

    def _reject(self, frame: Frame, error: Exception) -> None:
        """Counts a rejected image, and reports the first one of each reason."""
        reason = reason_of(error)
        self.rejected[reason] += 1
        if self.rejected[reason] == 1:
            number = self.done + self.rejected.total()
            print_message('bag', f'image {number} ({frame.stamp / NS:.3f} s): {first_line(error)}')


def summary(done: int, rejected: Mapping[str, int], ignored: Mapping[str, int]) -> str:
    """Returns one line with the number of results, and the number of images for each reason."""
    parts = [f'{done} images with results']
    for name, counted in (('rejected', rejected), ('without depth or camera_info', ignored)):
        if counted:
            reasons = ', '.join(f'{reason} ({count})' for reason, count in counted.items())
            parts.append(f'{name}: {reasons}')
    return '; '.join(parts)


@contextmanager
def _atomic_bag(output: Path) -> Iterator[tuple[BagWriter, Path]]:
    """Yields a bag and its folder, which gets its name only when everything is written."""
    try:
        with temporary_folder(output) as folder:
            temporary = folder / output.name
            with BagWriter(temporary) as writer:
                yield writer, temporary
            temporary.rename(output)
    except OSError as error:
        raise BagError(f'{output}: {error.strerror or first_line(error)}') from None


def _add_copied(bag: Bag, writer: BagWriter, results: Collection[str]) -> list[BagTopic]:
    """Adds the topics of the input to the output, and reports those that cannot be copied."""
    copied = []
    for topic in bag.topics:
        reason = ''
        if topic.name in results:
            reason = 'a topic of the results has the same name'
        elif topic.type not in bag.types.fielddefs or not bag.has_ros2_form(topic):
            reason = f'{topic.type} is unknown or has other fields in ROS 2'
        if reason:
            print_message('bag', f'{topic.name} is not copied: {reason}')
        else:
            writer.add_topic_of(bag, topic)
            copied.append(topic)
    return copied


def _copying(
    messages: Iterable[BagMessage], writer: BagWriter, copied: Iterable[BagTopic]
) -> Iterator[BagMessage]:
    """Yields all messages, and writes those of the `copied` topics."""
    names = {topic.name for topic in copied}
    for message in messages:
        if message.topic in names:
            writer.write(message.topic, message.stamp, message.data)
        yield message
