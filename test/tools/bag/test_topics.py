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
    """Returns the topics that are chosen in a bag with one message or none (None) per topic."""

    numbers = count()

    def run(topics, **options):
        path = tmp_path / f'in{next(numbers)}'
        with BagWriter(path) as writer:
            for name, message in topics.items():
                kind = type(message).__name__ if message else 'Image'
                writer.add_topic(name, f'sensor_msgs/msg/{kind}')
                if message:
                    writer.write(name, 1, serialize_message(message))
        with Bag(path) as bag:
            run.found = found = find_camera_topics(bag, OWN, **options)
        return tuple(topic and topic.name for topic in (found.image, found.info, found.depth))

    return run


def test_the_only_camera_is_chosen_with_its_camera_info_and_depth(choose):
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


def test_results_of_an_earlier_run_are_not_chosen(choose):
    topics = {'/image': raw(), f'{OWN}/mask': raw('mono8'), f'{OWN}/overlay/compressed': coded()}
    assert choose(topics)[0] == '/image'


def test_a_bag_with_several_depth_topics_needs_the_depth_option(choose):
    topics = {'/image': raw(), '/a': raw('16UC1'), '/b': raw('32FC1')}
    with pytest.raises(UsageError, match=r"choose one with --depth \('' = none\): /a, /b"):
        choose(topics)


@pytest.mark.parametrize('depth', ['/b', ''])
def test_the_depth_option_chooses_a_topic_or_none(choose, depth):
    topics = {'/image': raw(), '/a': raw('16UC1'), '/b': raw('32FC1', frame='other')}
    assert choose(topics, depth=depth)[2] == (depth or None)


def test_depth_in_another_frame_is_ignored_with_a_reason(choose):
    topics = {'/image': raw(), '/aligned': raw('16UC1', frame='depth_optical')}
    assert choose(topics)[2] is None
    assert choose.found.unused == (
        'depth: /aligned is ignored, because its frame_id is depth_optical and that of the images'
        ' is camera; use --depth /aligned if it is registered to the images',
    )
    assert not choose.found.registered


def test_depth_that_is_chosen_counts_as_registered(choose):
    topics = {'/image': raw(), '/aligned': raw('16UC1', frame='depth_optical')}
    assert choose(topics, depth='/aligned')[2] == '/aligned'
    assert choose.found.registered
    assert choose.found.unused == ()


@pytest.mark.parametrize('depth', [None, ''])
def test_ignored_depth_is_not_reported_if_other_depth_or_none_is_chosen(choose, depth):
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
def test_compressed_depth_is_not_taken_for_an_image(choose, ending, kind):
    topics = {'/image': raw(), f'/depth{ending}': coded(kind)}
    assert choose(topics) == ('/image', None, f'/depth{ending}')
    other = {'/image': raw(), f'/depth{ending}': frame_of(coded(kind), 'depth_optical')}
    assert choose(other)[2] is None
    assert f'/depth{ending} is ignored, because its frame_id' in choose.found.unused[0]
    assert choose(other, depth='/depth')[2] == f'/depth{ending}'


def test_raw_depth_is_preferred_and_then_compressed_depth(choose):
    topics = {
        '/image': raw(),
        '/depth/compressed': coded('16UC1; png compressed '),
        '/depth/compressedDepth': coded('16UC1; compressedDepth png'),
    }
    assert choose(topics)[2] == '/depth/compressedDepth'
    assert choose(topics | {'/depth': raw('16UC1')})[2] == '/depth'


def test_the_camera_info_option_chooses_a_topic(choose):
    topics = {'/cam/image': raw(), '/cam/camera_info': CameraInfo(), '/info': CameraInfo()}
    assert choose(topics, info='/info')[1] == '/info'


def test_the_error_for_a_topic_of_another_type_lists_those_of_the_type(choose):
    topics = {'/cam/image': raw(), '/cam/camera_info': CameraInfo()}
    with pytest.raises(
        UsageError, match='has no sensor_msgs/msg/Image topic /cam/camera_info; topics'
    ):
        choose(topics, image='/cam/camera_info')


def test_depth_is_not_taken_for_an_image(choose):
    with pytest.raises(BagError, match='has no images'):
        choose({'/depth': raw('16UC1')})


def test_damage_is_an_error_only_if_no_image_can_be_read(tmp_path, monkeypatch):
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


def test_a_truncated_message_is_rejected():
    with pytest.raises(InvalidImageError, match='damaged message: 10 bytes'):
        read_message(serialize_message(raw())[:10], 'sensor_msgs/msg/Image')
