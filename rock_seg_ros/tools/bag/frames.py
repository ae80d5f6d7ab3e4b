# SPDX-License-Identifier: Apache-2.0
"""Pairs each image of a bag with its camera_info and its depth."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rock_seg_ros.perception.geometry.pairing import NS, Pairing
from rock_seg_ros.tools.bag.files import BagError, BagMessage
from rock_seg_ros.tools.bag.topics import CameraTopics

# Maximum time in the bag by which depth may follow its image, s; registration delays depth.
LOOK_AHEAD = 1
STAMP_END = 12


@dataclass(frozen=True)
class Frame:
    """An image of a bag with its camera_info and depth.

    Attributes:
        message: The image.
        stamp: Stamp in its header, ns.
        info: Its camera_info in CDR; None = the bag has none.
        depth: Its depth in CDR; None = no depth within the tolerance.
    """

    message: BagMessage
    stamp: int
    info: bytes | None
    depth: bytes | None


def frames(
    messages: Iterable[BagMessage],
    topics: CameraTopics,
    tolerance: float,
    first_info: BagMessage | None = None,
) -> Iterator[Frame]:
    """Pairs images with the camera_info and the depth whose stamps are nearest.

    Depth may follow its image in the bag. An image therefore waits until depth with its stamp or a
    later one was read, or until `LOOK_AHEAD` has passed.

    Args:
        messages: Messages in the order of the bag; those of other topics are skipped.
        topics: Topics of the camera.
        tolerance: Maximum difference between the stamps of depth and image, s.
        first_info: camera_info for the images before the first camera_info message.

    Yields:
        Each image, in order.

    Raises:
        BagError: The bag is damaged; all images before the damage were yielded.
    """
    infos: Pairing[bytes] = Pairing()
    depths: Pairing[bytes] = Pairing()
    waiting: deque[tuple[int, BagMessage]] = deque()
    newest_depth = float('-inf')

    def frame() -> Frame:
        stamp, message = waiting.popleft()
        info = infos.nearest(stamp, float('inf'))
        return Frame(message, stamp, info, depths.nearest(stamp, tolerance))

    damage: list[BagError] = []
    if first_info:
        infos.put(stamp_of(first_info), first_info.data)
    for message in _before_damage(messages, damage):
        stamp = stamp_of(message)
        if message.topic == topics.image.name:
            waiting.append((stamp, message))
        elif topics.info and message.topic == topics.info.name:
            infos.put(stamp, message.data)
        elif topics.depth and message.topic == topics.depth.name:
            depths.put(stamp, message.data)
            newest_depth = stamp
        while waiting and (
            topics.depth is None
            or 0 <= newest_depth - waiting[0][0] <= LOOK_AHEAD * NS  # negative if time jumped back
            or message.stamp - waiting[0][1].stamp > LOOK_AHEAD * NS
        ):
            yield frame()
    while waiting:
        yield frame()
    for error in damage:
        raise error


def _before_damage(messages: Iterable[BagMessage], damage: list[BagError]) -> Iterator[BagMessage]:
    """Yields messages up to the first damage, whose error is appended to `damage`."""
    try:
        yield from messages
    except BagError as error:
        damage.append(error)


def stamp_of(message: BagMessage) -> int:
    """Returns the stamp (ns) in the header of a message; for a truncated one its recording time."""
    if len(message.data) < STAMP_END:
        return message.stamp
    order = '<' if message.data[1] & 1 else '>'  # the second byte of CDR is the byte order
    seconds, rest = struct.unpack_from(f'{order}iI', message.data, 4)
    return int(seconds * NS + rest)
