# SPDX-License-Identifier: Apache-2.0
"""A simple segmentation node with which `rock_seg bench` compares the node of this package.

It does what most segmentation nodes do: it processes images in the subscription callback, copies
them as cv_bridge does, calls torchvision eagerly, computes softmax and argmax in NumPy, draws with
OpenCV, and publishes all outputs even without subscribers. Its topics are those of the node.

    python -m rock_seg_ros.tools.bench.programs.plain_node --ros-args -r image:=/camera/image_raw
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
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

from rock_seg_ros.tools.bench.programs.stub_logits import fixed_logits

DEPTH = 10
OUTPUTS = {
    'mask': (Image, DEPTH),
    'class_ids': (Image, DEPTH),
    'confidence': (Image, DEPTH),
    'overlay': (Image, DEPTH),
    'overlay/compressed': (CompressedImage, DEPTH),
    'polygons': (PolygonInstanceStamped, 2000),
    'polygon_points': (PointCloud2, DEPTH),
    'rocks': (PointCloud2, DEPTH),
}
MIN_AREA = 50
TINT = (255, 200, 0)
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # H×W×3 RGB → classes×H×W logits


class PlainNode(Node):
    """Subscribes to a camera and publishes its rocks."""

    def __init__(self, logits: Logits) -> None:
        """Creates the topics."""
        super().__init__('rock_seg')
        self._logits = logits
        self._publishers_of = {
            topic: self.create_publisher(kind, f'~/{topic}', depth)
            for topic, (kind, depth) in OUTPUTS.items()
        }
        self.create_subscription(Image, 'image', self._on_image, DEPTH)

    def _on_image(self, message: Image) -> None:
        header, bgr = message.header, imgmsg_to_cv2(message)
        logits = self._logits(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
        powers = np.exp(logits - logits.max(axis=0))
        probabilities = powers / powers.sum(axis=0)
        class_ids = probabilities.argmax(axis=0).astype(np.uint8)
        confidence = (probabilities.max(axis=0) * 255).astype(np.uint8)
        mask = np.where(class_ids == 1, 255, 0).astype(np.uint8)
        contours: Any = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        contours = [c for c in contours if cv2.contourArea(c) >= MIN_AREA]
        overlay = draw(bgr, mask, contours)
        self._publish('mask', cv2_to_imgmsg(mask, 'mono8', header))
        self._publish('class_ids', cv2_to_imgmsg(class_ids, 'mono8', header))
        self._publish('confidence', cv2_to_imgmsg(confidence, 'mono8', header))
        self._publish('overlay', cv2_to_imgmsg(overlay, 'bgr8', header))
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


def imgmsg_to_cv2(message: Image) -> NDArray[Any]:
    """Copies an rgb8 Image to H×W×3 uint8 BGR, as cv_bridge does."""
    stored = np.ndarray((message.height, message.width, 3), np.uint8, message.data)
    return cv2.cvtColor(stored, cv2.COLOR_RGB2BGR)


def cv2_to_imgmsg(array: NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """Copies an array twice into an Image, as cv_bridge does."""
    message = Image(header=header, height=array.shape[0], width=array.shape[1], encoding=encoding)
    message.data.frombytes(array.tobytes())
    message.step = len(message.data) // message.height
    return message


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


def stub_logits(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns fixed logits of two classes for an image."""
    return fixed_logits(*rgb.shape[:2], 2)


def torchvision_logits() -> Logits:
    """Loads torchvision's network; returns a function that runs it."""
    import torch

    from rock_seg_ros.tools.bench.contenders import TORCHVISION, Contender, Torchvision

    contender = Contender(TORCHVISION, 'cuda' if torch.cuda.is_available() else 'cpu')
    network = Torchvision(contender)
    return lambda rgb: network.network(network.prepare(rgb))[0].cpu().numpy()


def main() -> None:
    """Runs the node until it is interrupted."""
    parser = argparse.ArgumentParser(description='A simple segmentation node.', allow_abbrev=False)
    parser.add_argument('--stub', action='store_true', help='use fixed logits, not a network')
    arguments, ros_arguments = parser.parse_known_args()
    rclpy.init(args=ros_arguments)
    try:
        rclpy.spin(PlainNode(stub_logits if arguments.stub else torchvision_logits()))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
