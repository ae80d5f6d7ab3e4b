# SPDX-License-Identifier: Apache-2.0
"""Finds the topics of a camera in a bag: images, camera_info and depth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rock_seg_ros.node.images import InvalidImageError
from rock_seg_ros.perception.image_io.depth import ENCODINGS, TRANSPORTS, is_depth
from rock_seg_ros.tools.bag.files import Bag, BagError, BagMessage, BagTopic
from rock_seg_ros.tools.main import UsageError

RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
INFO = 'sensor_msgs/msg/CameraInfo'
CLASSES: dict[str, Any] = {RAW: Image, COMPRESSED: CompressedImage, INFO: CameraInfo}
ENDING = '/compressed'


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera.

    Attributes:
        image: Images, raw or compressed.
        info: camera_info; None = not in the bag.
        depth: Depth images that are registered to the images; None = not in the bag.
        registered: Whether depth counts as registered even if its frame_id differs.
        unused: One line per depth topic that is not used, with the reason.
    """

    image: BagTopic
    info: BagTopic | None
    depth: BagTopic | None
    registered: bool = False
    unused: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """The names of the topics; '' for one that the bag does not have."""
        topics = {'image': self.image, 'camera_info': self.info, 'depth': self.depth}
        return {name: topic.name if topic else '' for name, topic in topics.items()}

    @property
    def topics(self) -> list[BagTopic]:
        """The topics of the camera that the bag has."""
        return [topic for topic in (self.image, self.info, self.depth) if topic is not None]


def find_camera_topics(
    bag: Bag,
    own: str,
    image: str | None = None,
    info: str | None = None,
    depth: str | None = None,
) -> CameraTopics:
    """Finds the topics of a camera.

    Args:
        bag: An open bag.
        own: Namespace of the results of this package; its topics are not those of a camera.
        image: Image topic, with or without '/compressed'; None = the only one.
        info: camera_info topic; None = `camera_info` in the namespace of the images, '' = none.
        depth: Depth topic, with or without its transport; None = the only one with the frame_id
            of the images, '' = none.

    Raises:
        BagError: The bag has no images, or is damaged.
        UsageError: The bag does not have a given topic, or several topics match.
    """
    usable = {
        topic.name: topic
        for topic in bag.topics
        if topic.type in CLASSES and topic.count and bag.has_ros2_form(topic)
    }
    chosen = _named(bag, usable, image) if image else _only(bag, usable, own)
    default = chosen.name.removesuffix(ENDING).rpartition('/')[0] + '/camera_info'
    if info is None:
        info = default if default in usable and usable[default].type == INFO else ''
    registered = bool(depth)
    unused: tuple[str, ...] = ()
    if depth is None:
        depth, unused = _depth_of(bag, usable.values(), chosen)
    return CameraTopics(
        chosen,
        _named(bag, usable, info, (INFO,)) if info else None,
        _named(bag, usable, depth, endings=TRANSPORTS) if depth else None,
        registered,
        unused,
    )


def _named(
    bag: Bag,
    usable: dict[str, BagTopic],
    name: str,
    types: tuple[str, ...] = (RAW, COMPRESSED),
    endings: tuple[str, ...] = ('compressed',),
) -> BagTopic:
    """Returns the topic with this name, or with this name and an image transport."""
    candidates = {key: topic for key, topic in usable.items() if topic.type in types}
    for full in (name, *(f'{name}/{ending}' for ending in endings)):
        if full in candidates:
            return candidates[full]
    names = ', '.join(candidates) or 'none'
    raise UsageError(f'{bag.path}: has no {types[0]} topic {name}; topics of this type: {names}')


def _only(bag: Bag, usable: dict[str, BagTopic], own: str) -> BagTopic:
    """Returns the only image topic. Raw is preferred to compressed of the same name."""
    found: dict[str, BagTopic] = {}
    for name, topic in sorted(usable.items()):  # raw comes before compressed
        if topic.type != INFO and not name.startswith(f'{own}/') and _has_images(bag, topic):
            found.setdefault(name.removesuffix(ENDING), topic)
    if not found:
        for topic in usable.values():
            bag.first(topic)  # raises if the images cannot be read because of damage
        raise BagError(f'{bag.path}: has no images')
    if len(found) > 1:
        names = ', '.join(topic.name for topic in found.values())
        raise UsageError(f'{bag.path}: has several cameras; choose one with --image: {names}')
    return next(iter(found.values()))


def _has_images(bag: Bag, topic: BagTopic) -> bool:
    return first_intact_message(bag, topic) is not None and not _is_depth(first_message(bag, topic))


def _is_depth(message: Any) -> bool:
    """Returns whether an image, raw or compressed, is a depth image."""
    if isinstance(message, CompressedImage):
        return is_depth(message.format)
    return isinstance(message, Image) and message.encoding.upper() in ENCODINGS


def _depth_of(bag: Bag, topics: Iterable[BagTopic], image: BagTopic) -> tuple[str, tuple[str, ...]]:
    """Returns the only depth topic with the frame_id of the images, or ''.

    If there is none, it also returns one line per depth topic with another frame_id.
    """
    images = first_message(bag, image)
    frame = '' if images is None else images.header.frame_id
    found: dict[str, str] = {}  # name without transport → topic
    unregistered: dict[str, str] = {}  # name without transport → line for the log
    for topic in sorted(topics, key=_transport):
        if topic.type == INFO or topic is image:
            continue
        first = first_message(bag, topic)
        if not _is_depth(first):
            continue
        name, other = _without_transport(topic.name), first.header.frame_id
        if images is not None and other == frame:
            found.setdefault(name, topic.name)
        else:
            line = (
                f'depth: {topic.name} is ignored, because its frame_id is {other} and that of the'
                f' images is {frame}; use --depth {topic.name} if it is registered to the images'
            )
            unregistered.setdefault(name, line)
    if len(found) > 1:
        names = ', '.join(found.values())
        raise UsageError(
            f"{bag.path}: has several depth topics; choose one with --depth ('' = none): {names}"
        )
    return ''.join(found.values()), () if found else tuple(unregistered.values())


def _transport(topic: BagTopic) -> int:
    """Returns the rank of the image transport of a topic; raw is preferred."""
    return ('', *TRANSPORTS).index(topic.name[len(_without_transport(topic.name)) :].lstrip('/'))


def _without_transport(name: str) -> str:
    base, _, ending = name.rpartition('/')
    return base if ending in TRANSPORTS else name


def first_intact_message(bag: Bag, topic: BagTopic) -> BagMessage | None:
    """Returns the first message of a topic; None if the topic is empty or begins with damage."""
    try:
        return bag.first(topic)
    except BagError:
        return None


def first_message(bag: Bag, topic: BagTopic) -> Any:
    """Reads the first message of a topic; None if it is missing or damaged."""
    message = first_intact_message(bag, topic)
    try:
        return message and read_message(message.data, topic.type)
    except InvalidImageError:
        return None


def read_message(data: bytes, kind: str) -> Any:
    """Deserializes a message in CDR; `kind` is a type in `CLASSES`.

    Raises:
        InvalidImageError: The message is truncated or damaged.
    """
    try:
        return deserialize_message(data, CLASSES[kind])
    except RuntimeError:
        raise InvalidImageError('damaged message', f'{len(data)} bytes') from None
