# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from rock_seg_ros.tools.bench import nodes as bench_nodes
from rock_seg_ros.tools.bench.implementations import BenchError
from rock_seg_ros.tools.bench.nodes import BenchNode, SerializedImage, ros_context
from rock_seg_ros.tools.demo.command import use_local_domain

# Answers each image with a mask, and only the third one with an overlay.
ECHO = """
import sys, rclpy
from sensor_msgs.msg import Image
rclpy.init(args=sys.argv)
node = rclpy.create_node('echo')
masks = node.create_publisher(Image, '~/mask', 10)
overlays = node.create_publisher(Image, '~/overlay', 10)

def answer(image):
    masks.publish(Image(header=image.header))
    if image.header.stamp.sec == 2:
        overlays.publish(Image(header=image.header))

node.create_subscription(Image, 'image', answer, 10)
rclpy.spin(node)
"""


@pytest.fixture
def image(colours):
    return SerializedImage(colours)


@pytest.fixture
def start(tmp_path, monkeypatch):
    for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_DOMAIN_ID'):
        monkeypatch.setenv(name, '0')
    use_local_domain()
    nodes = []
    with ros_context() as context:

        def start(program):
            file = tmp_path / 'program.py'
            file.write_text(program)
            nodes.append(BenchNode('tested', context, tmp_path, [str(file)]))
            return nodes[-1]

        yield start
        for node in nodes:
            node.process.stop()


def test_the_stamp_of_a_serialized_image_is_changed(image, colours):
    message = deserialize_message(image.stamped(7), Image)
    assert (message.header.stamp.sec, message.header.frame_id) == (7, 'bench')
    assert (message.height, message.width, message.encoding) == (32, 48, 'rgb8')
    assert bytes(message.data) == colours.tobytes()
    assert deserialize_message(image.stamped(8), Image).header.stamp.sec == 8


def test_a_run_lasts_from_the_publication_to_the_last_output(start, image):
    node = start(ECHO)
    node.subscribe({'mask': 1}, image)
    run = node.run(image)
    assert 0 < run.seconds < 10
    assert run.rss_mb > 10


def test_images_are_published_until_all_outputs_of_one_arrived(start, image, monkeypatch):
    monkeypatch.setattr(bench_nodes, 'MIN_ANSWER_TIMEOUT', 0.1)
    node = start(ECHO)
    node.subscribe({'mask': 1, 'overlay': 1}, image, timeout=0.1)
    assert list(node._done) == [2]


def test_an_overload_does_not_wait_for_outputs(start, image):
    node = start(ECHO)
    node.subscribe({'mask': 1}, image)
    runs = node.overload(image, rate=50, images=20)
    assert 0 < len(runs) <= 20
    assert all(0 < run.seconds < 5 for run in runs)


def test_the_error_for_a_node_that_ended_has_its_last_line(start, image):
    node = start('raise SystemExit("no such thing")')
    with pytest.raises(BenchError, match='tested: the node ended: no such thing'):
        node.subscribe({'mask': 1}, image)


def test_the_error_for_a_node_that_cannot_be_configured_has_the_reason(start, image):
    node = start('import time; print("cannot be configured: x", flush=True); time.sleep(60)')
    with pytest.raises(BenchError, match='tested: cannot be configured: x'):
        node.subscribe({'mask': 1}, image)
