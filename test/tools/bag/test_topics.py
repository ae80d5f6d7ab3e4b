# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import count

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from rock_seg_ros.node.images import InvalidImageError
from rock_seg_ros.tools.bag.files import Bag, BagError, BagWriter
from rock_seg_ros.tools.bag.topics import find_camera_topics, read_message
from rock_seg_ros.tools.main import UsageError

OWN = '/rock_seg'


def raw(encoding='rgb8', frame='camera'):
    return Image(header=Header(frame_id=frame), encoding=encoding)


def coded(kind='jpeg'):
    return CompressedImage(header=Header(frame_id='camera'), format=kind)


@pytest.fixture
def choose(tmp_path):
    """Names the topics that are chosen in a bag of one message a topic; None = no message."""

    numbers = count()

    def run(topics, **asked):
        path = tmp_path / f'in{next(numbers)}'
        with BagWriter(path) as writer:
            for name, message in topics.items():
                kind = type(message).__name__ if message else 'Image'
                writer.add_topic(name, f'sensor_msgs/msg/{kind}')
                if message:
                    writer.write(name, 1, serialize_message(message))
        with Bag(path) as bag:
            run.found = found = find_camera_topics(bag, OWN, **asked)
        return tuple(topic and topic.name for topic in (found.image, found.info, found.depth))

    return run


def test_a_camera_is_chosen_by_itself_with_what_lies_beside_it(choose):
    topics = {
        '/cam/image_raw/compressed': coded(),
        '/cam/camera_info': CameraInfo(),
        '/other/camera_info': CameraInfo(),
        '/aligned/depth': raw('16UC1'),
        '/aligned/depth/compressedDepth': coded('16UC1; compressedDepth'),
        '/own/depth': raw('32FC1', frame='depth'),
    }
    assert choose(topics) == ('/cam/image_raw/compressed', '/cam/camera_info', '/aligned/depth')


def test_a_topic_without_messages_is_not_chosen(choose):
    assert choose({'/empty/image': None, '/image': raw()})[0] == '/image'


def test_what_was_found_earlier_is_no_camera(choose):
    topics = {'/image': raw(), f'{OWN}/mask': raw('mono8'), f'{OWN}/overlay/compressed': coded()}
    assert choose(topics)[0] == '/image'


def test_of_several_depths_one_must_be_named(choose):
    topics = {'/image': raw(), '/a': raw('16UC1'), '/b': raw('32FC1')}
    with pytest.raises(UsageError, match=r"choose one with --depth \('' = none\): /a, /b"):
        choose(topics)


@pytest.mark.parametrize('depth', ['/b', ''])
def test_a_named_depth_or_none_is_taken(choose, depth):
    topics = {'/image': raw(), '/a': raw('16UC1'), '/b': raw('32FC1', frame='other')}
    assert choose(topics, depth=depth)[2] == (depth or None)


def test_depth_that_is_named_may_be_in_another_frame_but_is_not_guessed(choose):
    topics = {'/image': raw(), '/aligned': raw('16UC1', frame='depth_optical')}
    assert choose(topics)[2] is None
    assert choose.found.unused == (
        'depth: /aligned is ignored, because its frame_id is depth_optical and that of the images'
        ' is camera; use --depth /aligned if it is registered to the images',
    )
    assert not choose.found.registered


def test_depth_that_is_named_counts_as_registered(choose):
    topics = {'/image': raw(), '/aligned': raw('16UC1', frame='depth_optical')}
    assert choose(topics, depth='/aligned')[2] == '/aligned'
    assert choose.found.registered
    assert choose.found.unused == ()


@pytest.mark.parametrize('depth', [None, ''])
def test_of_depth_in_another_frame_nothing_is_said_where_other_depth_or_none_is_used(choose, depth):
    topics = {'/image': raw(), '/a': raw('16UC1'), '/b': raw('32FC1', frame='depth_optical')}
    choose(topics, depth=depth)
    assert choose.found.unused == ()


def frame_of(message, frame):
    message.header.frame_id = frame
    return message


@pytest.mark.parametrize(
    ('ending', 'kind'),
    [
        ('/compressedDepth', '16UC1; compressedDepth png'),
        ('/compressedDepth', '32FC1; compressedDepth'),
        ('/compressed', '16UC1; png compressed '),
    ],
)
def test_compressed_depth_is_depth_and_no_camera(choose, ending, kind):
    topics = {'/image': raw(), f'/depth{ending}': coded(kind)}
    assert choose(topics) == ('/image', None, f'/depth{ending}')
    other = {'/image': raw(), f'/depth{ending}': frame_of(coded(kind), 'depth_optical')}
    assert choose(other)[2] is None
    assert f'/depth{ending} is ignored, because its frame_id' in choose.found.unused[0]
    assert choose(other, depth='/depth')[2] == f'/depth{ending}'


def test_of_one_depth_in_several_transports_the_raw_one_is_taken_then_compressed_depth(choose):
    topics = {
        '/image': raw(),
        '/depth/compressed': coded('16UC1; png compressed '),
        '/depth/compressedDepth': coded('16UC1; compressedDepth png'),
    }
    assert choose(topics)[2] == '/depth/compressedDepth'
    assert choose(topics | {'/depth': raw('16UC1')})[2] == '/depth'


def test_camera_info_may_be_named_or_left_out(choose):
    topics = {'/cam/image': raw(), '/cam/camera_info': CameraInfo(), '/info': CameraInfo()}
    assert choose(topics, info='/info')[1] == '/info'


def test_a_topic_of_another_type_is_refused_with_those_that_fit(choose):
    topics = {'/cam/image': raw(), '/cam/camera_info': CameraInfo()}
    with pytest.raises(
        UsageError, match='has no sensor_msgs/msg/Image topic /cam/camera_info; topics'
    ):
        choose(topics, image='/cam/camera_info')


def test_depth_alone_is_no_image(choose):
    with pytest.raises(BagError, match='has no images'):
        choose({'/depth': raw('16UC1')})


def test_damage_is_told_only_where_it_hides_the_images(tmp_path, monkeypatch):
    with BagWriter(tmp_path / 'in') as writer:
        for name, message in (('/image', raw()), ('/late/depth', raw('16UC1'))):
            writer.add_topic(name, 'sensor_msgs/msg/Image')
            writer.write(name, 1, serialize_message(message))
    first, damaged = Bag.first, {'/late/depth'}

    def fail(bag, topic):
        if topic.name in damaged:
            raise BagError('in: damaged')
        return first(bag, topic)

    monkeypatch.setattr(Bag, 'first', fail)
    with Bag(tmp_path / 'in') as bag:
        assert find_camera_topics(bag, OWN).image.name == '/image'
        damaged.add('/image')
        with pytest.raises(BagError, match='in: damaged'):
            find_camera_topics(bag, OWN)


def test_a_message_that_is_cut_short_is_refused():
    with pytest.raises(InvalidImageError, match='damaged message: 10 bytes'):
        read_message(serialize_message(raw())[:10], 'sensor_msgs/msg/Image')
