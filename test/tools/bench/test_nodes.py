# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from rock_seg_ros.tools.bench import nodes as bench_nodes
from rock_seg_ros.tools.bench.contenders import BenchError
from rock_seg_ros.tools.bench.measurements import PLAIN_NODE, STUB_NODE
from rock_seg_ros.tools.bench.nodes import OUTPUTS, NodeProgram, serialize_image, start_nodes

# Answers each image with a mask, and only the third one and later ones with an overlay.
ECHO = """
import sys, rclpy
from sensor_msgs.msg import Image
rclpy.init(args=sys.argv)
node = rclpy.create_node('echo')
masks = node.create_publisher(Image, '~/mask', 10)
overlays = node.create_publisher(Image, '~/overlay', 10)

def answer(image):
    masks.publish(Image(header=image.header))
    if image.header.stamp.sec >= 2:
        overlays.publish(Image(header=image.header))

node.create_subscription(Image, 'image', answer, 10)
rclpy.spin(node)
"""


@pytest.fixture
def image(colours):
    return serialize_image(colours)


def test_a_serialized_image_is_a_message_with_these_pixels(image, colours):
    message = deserialize_message(bytes(image), Image)
    assert (message.height, message.width, message.encoding) == (32, 48, 'rgb8')
    assert bytes(message.data) == colours.tobytes()


def test_a_node_is_measured_once_all_its_outputs_have_arrived(image, monkeypatch):
    monkeypatch.setattr(bench_nodes, 'REPEAT_AFTER', 0.1)
    program = NodeProgram('echo', ['-c', ECHO], outputs=('mask', 'overlay'))
    with start_nodes([program], image) as [node]:
        assert min(node._done) >= 2  # the first two images have no overlay
        run = node.run(image)
        assert 0 < run.seconds < 10
        assert run.rss_mb > 10
        runs = node.overload(image, rate=50, images=20)
        assert 0 < len(runs) <= 20
        assert all(0 < run.seconds < 5 for run in runs)
    assert node.process.status() is not None


def test_the_nodes_with_a_stub_network_publish_all_outputs(image):
    programs = [
        NodeProgram('stub', [*STUB_NODE, '--network-ms', '50'], {'device': 'cpu'}, tuple(OUTPUTS)),
        NodeProgram('plain', [*PLAIN_NODE, '--stub'], outputs=tuple(OUTPUTS)),
    ]
    with start_nodes(programs, image) as [stub, plain]:
        assert stub.run(image).seconds > 0.05
        assert plain.run(image).seconds > 0


@pytest.mark.parametrize(
    ('program', 'reason'),
    [
        ('raise SystemExit("no such thing")', 'bad: the node ended: no such thing'),
        (
            'import time; print("cannot be configured: x", flush=True); time.sleep(60)',
            'bad: cannot be configured: x',
        ),
    ],
)
def test_the_error_for_a_node_that_does_not_work_has_the_reason(image, program, reason):
    with (
        pytest.raises(BenchError, match=reason),
        start_nodes([NodeProgram('bad', ['-c', program])], image),
    ):
        pass
