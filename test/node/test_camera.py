# SPDX-License-Identifier: Apache-2.0
"""The names of cameras, and their counters."""

from __future__ import annotations

import pytest
from sensor_msgs.msg import Image

from rock_seg_ros.node.camera import camera_names


@pytest.mark.parametrize(
    ('topics', 'names'),
    [
        (['/front/image_raw', '/rear/image_raw'], ['front', 'rear']),
        (['/front_camera', '/rover/rear/image'], ['front_camera', 'rear']),
        (['/left/image_raw', '/left/image_rect'], ['left_image_raw', 'left_image_rect']),
        (
            ['/a/color/image', '/b/color/image', '/c/image'],
            ['a_color_image', 'b_color_image', 'c'],
        ),
    ],
)
def test_a_camera_is_named_after_the_second_to_last_part_of_its_topic_or_after_all_parts(
    topics, names
):
    assert camera_names(topics) == names


@pytest.mark.parametrize(
    'topics', [['/front/image', '/front/image'], ['/x/a_b', '/x_a/b', '/x/a/b', '/q/a/c', '/x_a/d']]
)
def test_topics_whose_cameras_would_have_the_same_name_are_rejected(topics):
    with pytest.raises(ValueError, match=r'image_topics .* would both be camera') as error:
        camera_names(topics)
    assert '\n' not in str(error.value)


def test_images_of_two_publishers_are_counted_once_each(bench, scene):
    bench.start()
    bench.listen(Image, '/rock_seg/mask')
    bench.wait_active('~/mask')
    first = bench.publisher
    sent = 0

    def send(*publishers):
        nonlocal sent
        for bench.publisher in publishers:
            sent += 1
            bench.send(scene, stamp=sent)
            bench.wait(lambda n=sent: len(bench.received['/rock_seg/mask']) == n, 'its mask')

    send(*[first] * 6)
    second = bench.tester.create_publisher(Image, '/image', 1)
    bench.wait(second.get_subscription_count, 'the second publisher to be matched')
    (camera,) = bench.node._cameras
    bench.wait(lambda: camera.subscription.get_publisher_count() == 2, 'both to be matched')
    send(*[second, first] * 4)
    values = bench.diagnosed('frames out', '14')
    assert (values['frames in'], values['frames dropped']) == ('14', '0')
