# SPDX-License-Identifier: Apache-2.0
"""A node that computes nothing, with which `rock_seg bench` measures rclpy and DDS.

It answers each image with messages that were made in advance, with the sizes of a mask, an overlay
and the point clouds of some rocks.

    python -m rock_seg_ros.tools.bench.programs.echo_node --ros-args -r image:=/camera/image_raw
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2

from rock_seg_ros.tools.bench.programs.node_program import run_node

DEPTH = 5
VERTEX, ROCK = 16, 68  # bytes per point in polygon_points and rocks
VERTICES = 30  # per rock
ROCKS = 20


class EchoNode(Node):
    """Subscribes to a camera and publishes messages of the same size as the node does."""

    def __init__(self, rocks: int | None) -> None:
        """Creates the topics.

        Args:
            rocks: Number of rocks in the point clouds; None = `ROCKS`.
        """
        super().__init__('rock_seg')
        self._rocks = ROCKS if rocks is None else rocks
        self._publishers_of = [
            self.create_publisher(kind, f'~/{topic}', DEPTH)
            for topic, kind in (
                ('mask', Image),
                ('overlay', Image),
                ('polygon_points', PointCloud2),
                ('rocks', PointCloud2),
            )
        ]
        self._messages = cache(self._make_messages)
        self.create_subscription(Image, 'image', self._on_image, 1)

    def _make_messages(self, height: int, width: int) -> list[Any]:
        mask = Image(height=height, width=width, encoding='mono8', step=width)
        mask.data.frombytes(bytes(height * width))
        overlay = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        overlay.data.frombytes(bytes(height * width * 3))
        polygon_points, rocks = PointCloud2(), PointCloud2()
        polygon_points.data.frombytes(bytes(VERTEX * VERTICES * self._rocks))
        rocks.data.frombytes(bytes(ROCK * self._rocks))
        return [mask, overlay, polygon_points, rocks]

    def _on_image(self, message: Image) -> None:
        answers = self._messages(message.height, message.width)
        for publisher, answer in zip(self._publishers_of, answers, strict=True):
            answer.header = message.header
            publisher.publish(answer)


if __name__ == '__main__':
    run_node('A node that computes nothing.', EchoNode)
