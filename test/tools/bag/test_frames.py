# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from rock_seg_ros.tools.bag.files import BagError, BagMessage
from rock_seg_ros.tools.bag.frames import NS, frames, stamp_of
from rock_seg_ros.tools.bag.topics import CameraTopics

TOPICS = CameraTopics(*(SimpleNamespace(name=name) for name in ('/image', '/info', '/depth')))
WITHOUT_DEPTH = CameraTopics(TOPICS.image, TOPICS.info, None)


def message(topic, stamp, recorded=None, order='<'):
    """Returns a message with a stamp (s) and a topic; the default of `recorded` is the stamp."""
    seconds, rest = int(stamp), round(stamp % 1 * NS)
    data = struct.pack(f'{order}BBHiI', 0, order == '<', 0, seconds, rest) + topic.encode()
    return BagMessage(topic, round((stamp if recorded is None else recorded) * NS), data)


def stamps(found):
    """Returns the stamp of each image, of its camera_info and of its depth, s."""

    def seconds(data):
        return None if data is None else stamp_of(BagMessage('', 0, data)) / NS

    return [(frame.stamp / NS, seconds(frame.info), seconds(frame.depth)) for frame in found]


@pytest.mark.parametrize('order', ['<', '>'])
def test_a_stamp_is_read_in_both_byte_orders(order):
    assert (
        stamp_of(message('/image', 1_700_000_000.25, order=order)) == 1_700_000_000 * NS + NS // 4
    )


def test_the_stamp_of_a_truncated_message_is_its_time_of_recording():
    assert stamp_of(BagMessage('/image', 7, b'\0\1\0\0')) == 7


def test_depth_after_its_image_is_found():
    messages = [
        message('/depth', 0.9),
        message('/image', 1.0),
        message('/image', 1.1),
        message('/depth', 1.0, recorded=1.15),
        message('/depth', 1.1, recorded=1.3),
    ]
    assert stamps(frames(messages, TOPICS, 0.15)) == [(1.0, None, 1.0), (1.1, None, 1.1)]


def test_depth_beyond_the_tolerance_is_not_used():
    messages = [message('/image', 1.0), message('/depth', 1.06)]
    assert stamps(frames(messages, TOPICS, 0.05)) == [(1.0, None, None)]


def test_an_image_without_depth_waits_only_for_the_look_ahead():
    """Otherwise all images after the last depth would be in memory."""
    read = []

    def messages():
        for tenth in range(30):
            read.append(tenth)
            yield message('/image', tenth / 10)

    first = next(frames(messages(), TOPICS, 0.05))
    assert first.stamp == 0
    assert len(read) == 12


def test_all_images_before_damage_are_yielded():
    def messages():
        yield message('/image', 1.0)
        yield message('/image', 1.1)
        raise BagError('damaged')

    found = frames(messages(), TOPICS, 0.05)
    assert [next(found).stamp, next(found).stamp] == [NS, 1_100_000_000]
    with pytest.raises(BagError, match='damaged'):
        next(found)


def test_all_images_at_the_end_are_yielded():
    messages = [message('/image', second / 10) for second in range(5)]
    assert [stamp for stamp, _, _ in stamps(frames(messages, TOPICS, 0.05))] == [
        0.0, 0.1, 0.2, 0.3, 0.4,
    ]  # fmt: skip


def test_images_do_not_wait_without_a_depth_topic():
    messages = iter([message('/image', 1.0), message('/image', 2.0)])
    next(frames(messages, WITHOUT_DEPTH, 0.05))
    assert len(list(messages)) == 1


def test_an_image_has_the_newest_camera_info_or_the_first_one_of_the_bag():
    messages = [
        message('/image', 1.0),
        message('/info', 1.5),
        message('/image', 1.6),
        message('/info', 2.5),
        message('/image', 2.6),
    ]
    found = frames(messages, WITHOUT_DEPTH, 0.05, first_info=messages[1])
    assert stamps(found) == [(1.0, 1.5, None), (1.6, 1.5, None), (2.6, 2.5, None)]


def test_all_images_are_yielded_if_time_jumps_back():
    recorded = [message('/image', 9.0, 1.0), message('/depth', 9.0, 1.1)]
    again = [message('/image', 0.5, 2.0), message('/depth', 0.5, 2.1)]
    found = stamps(frames([*recorded, *again], TOPICS, 0.05))
    assert found == [(9.0, None, 9.0), (0.5, None, 0.5)]
