# SPDX-License-Identifier: Apache-2.0
"""A bag's images in order, each with the camera_info and the depth that belong to it."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rock_seg_ros.perception.geometry.pairing import NS, Pairing
from rock_seg_ros.tools.bag.files import BagError, BagMessage
from rock_seg_ros.tools.bag.topics import CameraTopics

# s in the bag that an image waits for its depth, whose registration takes a while.
LOOK_AHEAD = 1
STAMP_END = 12


@dataclass(frozen=True)
class Frame:
    """An image of a bag and what belongs to it.

    Attributes:
        message: The image.
        stamp: Of its header, ns.
        info: Its camera_info in CDR; None = there is none.
        depth: Its depth in CDR; None = there is none.
    """

    message: BagMessage
    stamp: int
    info: bytes | None
    depth: bytes | None


def frames(
    messages: Iterable[BagMessage],
    sources: CameraTopics,
    tolerance: float,
    first_info: BagMessage | None = None,
) -> Iterator[Frame]:
    """Joins images with their camera_info (the nearest) and depth.

    An image waits until depth of its own stamp or a later one has come, which may lie after it,
    or `LOOK_AHEAD` has passed.

    Args:
        messages: Of the sources, in the order of the bag; others are passed over.
        sources: The topics.
        tolerance: How far the stamps of depth and image may be apart, s.
        first_info: For the images before the first camera_info.

    Yields:
        Each image, in order.

    Raises:
        BagError: The bag is damaged; all images that came before were yielded.
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
        if message.topic == sources.image.name:
            waiting.append((stamp, message))
        elif sources.info and message.topic == sources.info.name:
            infos.put(stamp, message.data)
        elif sources.depth and message.topic == sources.depth.name:
            depths.put(stamp, message.data)
            newest_depth = stamp
        while waiting and (
            sources.depth is None
            or 0 <= newest_depth - waiting[0][0] <= LOOK_AHEAD * NS  # else time has jumped back
            or message.stamp - waiting[0][1].stamp > LOOK_AHEAD * NS
        ):
            yield frame()
    while waiting:
        yield frame()
    for error in damage:
        raise error


def _before_damage(messages: Iterable[BagMessage], damage: list[BagError]) -> Iterator[BagMessage]:
    """Yields messages until damage ends them, which is appended to the list."""
    try:
        yield from messages
    except BagError as error:
        damage.append(error)


def stamp_of(message: BagMessage) -> int:
    """Returns the stamp (ns) of a message that begins with a header; when recorded if cut short."""
    if len(message.data) < STAMP_END:
        return message.stamp
    order = '<' if message.data[1] & 1 else '>'  # CDR's second byte tells
    seconds, rest = struct.unpack_from(f'{order}iI', message.data, 4)
    return int(seconds * NS + rest)
