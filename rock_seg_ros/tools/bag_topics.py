# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag belong together: pictures, their camera_info, their depth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rock_seg_ros.node.images import PictureRefused
from rock_seg_ros.tools.bags import Bag, BagError, BagTopic
from rock_seg_ros.tools.main import UsageError

RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
INFO = 'sensor_msgs/msg/CameraInfo'
CLASSES: dict[str, Any] = {RAW: Image, COMPRESSED: CompressedImage, INFO: CameraInfo}
DEPTH_ENCODINGS = ('16UC1', '32FC1')
ENDING = '/compressed'


@dataclass(frozen=True)
class Sources:
    """Topics of one camera.

    Attributes:
        image: Its pictures, raw or compressed.
        info: Its camera_info; None = there is none.
        depth: Depth images that are registered to the pictures; None = there are none.
    """

    image: BagTopic
    info: BagTopic | None
    depth: BagTopic | None

    @property
    def topics(self) -> list[BagTopic]:
        """Those that there are."""
        return [topic for topic in (self.image, self.info, self.depth) if topic is not None]


def choose_sources(
    bag: Bag,
    own: str,
    image: str | None = None,
    info: str | None = None,
    depth: str | None = None,
) -> Sources:
    """Finds a camera's topics.

    Args:
        bag: Open.
        own: What results' topics begin with; those are no camera's.
        image: Topic of the pictures, '/compressed' may be left out; None = the only one.
        info: Topic of the camera_info; None = `camera_info` beside the pictures, '' = none.
        depth: Topic of the depth; None = the only one in the pictures' frame, '' = none.

    Raises:
        BagError: There are no pictures, or the bag is damaged.
        UsageError: There is no such topic, or several could be meant.
    """
    usable = {
        topic.name: topic
        for topic in bag.topics
        if topic.type in CLASSES and topic.count and bag.has_ros2_form(topic)
    }
    chosen = _named(bag, usable, image, RAW, COMPRESSED) if image else _only(bag, usable, own)
    beside = chosen.name.removesuffix(ENDING).rpartition('/')[0] + '/camera_info'
    if info is None:
        info = beside if beside in usable and usable[beside].type == INFO else ''
    if depth is None:
        depth = _depth_of(bag, usable.values(), chosen)
    return Sources(
        chosen,
        _named(bag, usable, info, INFO) if info else None,
        _named(bag, usable, depth, RAW) if depth else None,
    )


def _named(bag: Bag, usable: dict[str, BagTopic], name: str, *types: str) -> BagTopic:
    fitting = {key: topic for key, topic in usable.items() if topic.type in types}
    found = fitting.get(name) or fitting.get(name + ENDING)
    if found is None:
        has = f'it has {", ".join(fitting)}' if fitting else 'nor another'
        raise UsageError(f'{bag.path}: has no {types[0]} {name}; {has}')
    return found


def _only(bag: Bag, usable: dict[str, BagTopic], own: str) -> BagTopic:
    """Returns the only topic of pictures; raw wins over compressed of the same name."""
    found: dict[str, BagTopic] = {}
    for name, topic in sorted(usable.items()):  # a raw one before its compressed one
        if topic.type != INFO and not name.startswith(f'{own}/') and _has_pictures(bag, topic):
            found.setdefault(name.removesuffix(ENDING), topic)
    if not found:
        raise BagError(f'{bag.path}: has no pictures')
    if len(found) > 1:
        names = ', '.join(topic.name for topic in found.values())
        raise UsageError(f'{bag.path}: has several cameras; name one with --image: {names}')
    return next(iter(found.values()))


def _has_pictures(bag: Bag, topic: BagTopic) -> bool:
    first = first_message(bag, topic)
    if topic.type == COMPRESSED:
        return 'compressedDepth' not in getattr(first, 'format', '')
    return getattr(first, 'encoding', '') not in DEPTH_ENCODINGS


def _depth_of(bag: Bag, topics: Iterable[BagTopic], image: BagTopic) -> str:
    """Returns the only depth topic in the frame of the pictures, '' for none."""
    pictures = first_message(bag, image)
    found = []
    for topic in topics:
        first = first_message(bag, topic) if topic.type == RAW and topic is not image else None
        if (
            first is not None
            and pictures is not None
            and first.encoding in DEPTH_ENCODINGS
            and first.header.frame_id == pictures.header.frame_id
        ):
            found.append(topic.name)
    if len(found) > 1:
        raise UsageError(
            f"{bag.path}: has several depths; name one with --depth ('' = none): {', '.join(found)}"
        )
    return ''.join(found)


def first_message(bag: Bag, topic: BagTopic) -> Any:
    """Reads the first message of a topic; None if there is none that is whole.

    Raises:
        BagError: The bag is damaged.
    """
    message = bag.first(topic)
    try:
        return message and read_message(message.data, topic.type)
    except PictureRefused:
        return None


def read_message(data: bytes, kind: str) -> Any:
    """Reads a message in CDR; `kind` is a type in `CLASSES`.

    Raises:
        PictureRefused: It is cut short, or the like.
    """
    try:
        return deserialize_message(data, CLASSES[kind])
    except RuntimeError:
        raise PictureRefused('damaged message', f'{len(data)} bytes') from None
