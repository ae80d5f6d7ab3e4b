# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from rock_seg_ros.tools.bench import nodes as bench_nodes
from rock_seg_ros.tools.bench.contenders import BenchError
from rock_seg_ros.tools.bench.measurements import PLAIN_NODE, STUB_NODE
from rock_seg_ros.tools.bench.nodes import OUTPUTS, BenchNode

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


def test_a_node_is_measured_once_all_its_outputs_have_arrived(colours, monkeypatch):
    monkeypatch.setattr(bench_nodes, 'REPEAT_AFTER', 0.1)
    with BenchNode('echo', ['-c', ECHO], outputs=('mask', 'overlay')) as node:
        node.await_ready(colours)
        assert min(node._done) >= 2  # the first two images have no overlay
        run = node.run(colours)
        assert 0 < run.seconds < 10
        assert run.rss_mb > 10
        runs = node.overload(colours, rate=50, images=20)
        assert 0 < len(runs) <= 20
        assert all(0 < run.seconds < 5 for run in runs)
    assert node._process.status() is not None


def test_the_nodes_with_a_stub_network_publish_all_outputs(colours):
    parameters, outputs = {'device': 'cpu'}, tuple(OUTPUTS)
    with (
        BenchNode('stub', [*STUB_NODE, '50'], parameters, outputs) as stub,
        BenchNode('plain', [*PLAIN_NODE, '--stub'], outputs=outputs) as plain,
    ):
        for node in (stub, plain):
            node.await_ready(colours)
        assert stub.run(colours).seconds > 0.05
        assert plain.run(colours).seconds > 0


def test_the_error_for_a_node_that_ended_has_the_reason(colours):
    with (
        BenchNode('bad', ['-c', 'raise SystemExit("no such thing")']) as node,
        pytest.raises(BenchError, match='bad: the node ended: no such thing'),
    ):
        node.await_ready(colours)


def test_the_error_for_a_node_that_does_not_answer_has_its_last_lines(colours, monkeypatch):
    monkeypatch.setattr(bench_nodes, 'START_TIMEOUT', 0.0)
    program = 'import time; print("still loading", flush=True); time.sleep(600)'
    with BenchNode('bad', ['-c', program]) as node:
        while not node._process.last_lines():
            assert node._process.status() is None
            time.sleep(0.01)
        with pytest.raises(BenchError, match='bad: no results after 0 s: still loading'):
            node.await_ready(colours)
