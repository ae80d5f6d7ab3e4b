# SPDX-License-Identifier: Apache-2.0
"""A simple segmentation node with which `rock_seg bench` compares the node of this package.

It does what most segmentation nodes do: it processes images in the subscription callback, converts
them to BGR and back, calls torchvision eagerly, computes softmax and argmax in NumPy, draws with
OpenCV, and publishes all outputs even without subscribers. Its topics are those of the node.

    python -m rock_seg_ros.tools.bench.programs.plain_node --ros-args -r image:=/camera/image_raw

With `--stub`, it uses fixed logits instead of a network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import Point32, PolygonInstanceStamped
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from rock_seg_ros.node.images import to_message

DEPTH = 10
OUTPUTS = {
    'mask': Image,
    'class_ids': Image,
    'confidence': Image,
    'overlay': Image,
    'overlay/compressed': CompressedImage,
    'polygons': PolygonInstanceStamped,
    'polygon_points': PointCloud2,
    'rocks': PointCloud2,
}
MIN_AREA = 50
TINT = (255, 200, 0)
# Rocks of the fixed logits.
ROCK_COLUMNS, ROCK_ROWS = 5, 4
RADIUS = 0.38  # of the size of a cell
LOGIT = 8.0
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # H×W×3 RGB → classes×H×W logits


class PlainNode(Node):
    """Subscribes to a camera and publishes its rocks."""

    def __init__(self, logits: Logits) -> None:
        """Creates the topics."""
        super().__init__('rock_seg')
        self._logits = logits
        self._publishers_of = {
            topic: self.create_publisher(kind, f'~/{topic}', DEPTH)
            for topic, kind in OUTPUTS.items()
        }
        self.create_subscription(Image, 'image', self._on_image, DEPTH)

    def _on_image(self, message: Image) -> None:
        header = message.header
        stored = np.ndarray((message.height, message.width, 3), np.uint8, message.data)
        bgr: Any = cv2.cvtColor(stored, cv2.COLOR_RGB2BGR)
        logits = self._logits(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        powers = np.exp(logits - logits.max(axis=0))
        probabilities = powers / powers.sum(axis=0)
        class_ids = probabilities.argmax(axis=0).astype(np.uint8)
        confidence = (probabilities.max(axis=0) * 255).astype(np.uint8)
        mask = np.where(class_ids == 1, 255, 0).astype(np.uint8)
        contours: Any = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        contours = [c for c in contours if cv2.contourArea(c) >= MIN_AREA]
        overlay = draw(bgr, mask, contours)
        self._publish('mask', to_message(mask, 'mono8', header))
        self._publish('class_ids', to_message(class_ids, 'mono8', header))
        self._publish('confidence', to_message(confidence, 'mono8', header))
        self._publish('overlay', to_message(overlay, 'bgr8', header))
        compressed = CompressedImage(header=header, format='jpeg')
        compressed.data.frombytes(cv2.imencode('.jpg', overlay)[1].tobytes())
        self._publish('overlay/compressed', compressed)
        vertices, rocks = [], []
        for number, contour in enumerate(contours, start=1):
            polygon = cv2.approxPolyDP(contour, 1.0, True).reshape(-1, 2).astype(float).tolist()
            instance = PolygonInstanceStamped(header=header)
            instance.polygon.id = number
            instance.polygon.polygon.points = [Point32(x=x, y=y, z=0.0) for x, y in polygon]
            self._publish('polygons', instance)
            vertices += [(x, y, 0.0, number) for x, y in polygon]
            rocks.append((*cv2.boundingRect(contour), cv2.contourArea(contour), number))
        self._publish('polygon_points', create_cloud(('x', 'y', 'z', 'id'), vertices, header))
        names = ('u', 'v', 'width', 'height', 'area', 'id')
        self._publish('rocks', create_cloud(names, rocks, header))

    def _publish(self, topic: str, message: Any) -> None:
        self._publishers_of[topic].publish(message)


def draw(bgr: NDArray[np.uint8], mask: NDArray[np.uint8], contours: Any) -> NDArray[np.uint8]:
    """Tints the mask, outlines the rocks and writes their numbers."""
    coloured = np.zeros_like(bgr)
    coloured[mask > 0] = TINT
    overlay = cv2.addWeighted(bgr, 1.0, coloured, 0.4, 0)
    cv2.drawContours(overlay, contours, -1, (0, 220, 255), 1)
    for number, contour in enumerate(contours, start=1):
        x, y, width, height = cv2.boundingRect(contour)
        place = (x + width // 2, y + height // 2)
        cv2.putText(overlay, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
    return overlay  # type: ignore[return-value]


def create_cloud(
    names: Sequence[str], points: Sequence[tuple[float, ...]], header: Header
) -> PointCloud2:
    """Builds a PointCloud2 of float32 fields from tuples, as sensor_msgs_py does."""
    array = np.array(points, np.float32).reshape(-1, len(names))
    fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(names)
    ]
    message = PointCloud2(header=header, height=1, width=len(array), fields=fields, is_dense=True)
    message.point_step = 4 * len(names)
    message.row_step = array.nbytes
    message.data.frombytes(array.tobytes())
    return message


@lru_cache(maxsize=4)
def fixed_logits(height: int, width: int, channels: int = 2) -> NDArray[np.float32]:
    """Returns channels×H×W logits of separate ellipses in rows and columns; channel 1 is rock."""
    y = (np.arange(height) + 0.5) * ROCK_ROWS / height % 1 - 0.5
    x = (np.arange(width) + 0.5) * ROCK_COLUMNS / width % 1 - 0.5
    inside = np.hypot(*np.meshgrid(x, y)) < RADIUS
    logits = np.full((channels, height, width), -LOGIT, np.float32)
    logits[0] = 0
    logits[1, inside] = LOGIT
    logits.flags.writeable = False
    return logits


def torchvision_logits() -> Logits:
    """Loads torchvision's network; returns a function that runs it."""
    import torch

    from rock_seg_ros.tools.bench.programs.network import Torchvision

    network = Torchvision('cuda' if torch.cuda.is_available() else 'cpu')
    return lambda rgb: network.prepare(rgb)()[0].cpu().numpy()


def main() -> None:
    """Runs the node until it is interrupted."""
    rclpy.init(args=sys.argv)
    try:
        is_stub = '--stub' in sys.argv
        logits = (lambda rgb: fixed_logits(*rgb.shape[:2])) if is_stub else torchvision_logits()
        rclpy.spin(PlainNode(logits))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
