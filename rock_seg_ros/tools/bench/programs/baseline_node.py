# SPDX-License-Identifier: Apache-2.0
"""A simple segmentation node with which `rock_seg bench` compares the node of this package.

It does what most segmentation nodes do: it processes images in the subscription callback, copies
them as cv_bridge does, calls torchvision eagerly, computes softmax and argmax in NumPy, draws with
OpenCV, and publishes all outputs even without subscribers. Its topics are those of the node.

    python -m rock_seg_ros.tools.bench.programs.baseline_node --ros-args -r image:=/camera/image_raw
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from geometry_msgs.msg import Point32, PolygonInstanceStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from torch import Tensor

from rock_seg_ros.tools.bench.programs.node_program import run_node
from rock_seg_ros.tools.bench.programs.stub_scores import fixed_scores
from rock_seg_ros.tools.bench.programs.torchvision_call import CLASSES, TorchvisionCall

DEPTH = 10
POLYGON_DEPTH = 2000
MIN_AREA = 50
TINT = (255, 200, 0)


class BaselineNode(Node):
    """Subscribes to a camera and publishes its rocks."""

    def __init__(self, rocks: int | None) -> None:
        """Loads the network and creates the topics.

        Args:
            rocks: Number of rocks in fixed scores; None = run the network of torchvision.
        """
        super().__init__('rock_seg')
        self._rocks = rocks
        # The stub scores are on the CPU, like those of the node that this one is compared with.
        on_cuda = rocks is None and torch.cuda.is_available()
        self._network = TorchvisionCall('cuda' if on_cuda else 'cpu')
        self._publishers_of = {
            topic: self.create_publisher(kind, f'~/{topic}', depth)
            for topic, kind, depth in (
                ('mask', Image, DEPTH),
                ('class_ids', Image, DEPTH),
                ('confidence', Image, DEPTH),
                ('overlay', Image, DEPTH),
                ('overlay/compressed', CompressedImage, DEPTH),
                ('polygons', PolygonInstanceStamped, POLYGON_DEPTH),
                ('polygon_points', PointCloud2, DEPTH),
                ('rocks', PointCloud2, DEPTH),
            )
        }
        self.create_subscription(Image, 'image', self._on_image, DEPTH)

    def _scores(self, batch: Tensor) -> Tensor:
        if self._rocks is None:
            return self._network.network(batch)
        fixed = fixed_scores(*batch.shape[-2:], self._rocks, CLASSES)
        return torch.from_numpy(fixed).unsqueeze(0)

    def _on_image(self, message: Image) -> None:
        bgr = imgmsg_to_cv2(message)
        rgb: Any = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        scores = self._scores(self._network.prepare(rgb))[0].cpu().numpy()
        powers = np.exp(scores - scores.max(axis=0))
        probabilities = powers / powers.sum(axis=0)
        class_ids = probabilities.argmax(axis=0).astype(np.uint8)
        confidence = (probabilities.max(axis=0) * 255).astype(np.uint8)
        mask = np.where(class_ids == 1, 255, 0).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        contours = [c for c in contours if cv2.contourArea(c) >= MIN_AREA]
        overlay = draw(bgr, mask, contours)
        header = message.header
        self._publish('mask', cv2_to_imgmsg(mask, 'mono8', header))
        self._publish('class_ids', cv2_to_imgmsg(class_ids, 'mono8', header))
        self._publish('confidence', cv2_to_imgmsg(confidence, 'mono8', header))
        self._publish('overlay', cv2_to_imgmsg(overlay, 'bgr8', header))
        compressed = CompressedImage(header=header, format='jpeg')
        compressed.data.frombytes(cv2.imencode('.jpg', overlay)[1].tobytes())
        self._publish('overlay/compressed', compressed)
        polygons = [cv2.approxPolyDP(c, 1.0, True).reshape(-1, 2) for c in contours]
        for number, polygon in enumerate(polygons, start=1):
            self._publish('polygons', polygon_message(number, polygon, header))
        vertices = [
            (float(x), float(y), 0.0, number)
            for number, polygon in enumerate(polygons, start=1)
            for x, y in polygon
        ]
        self._publish('polygon_points', cloud(('x', 'y', 'z', 'id'), vertices, header))
        rocks = [measures(n, contour) for n, contour in enumerate(contours, start=1)]
        names = ('u', 'v', 'width', 'height', 'area', 'id')
        self._publish('rocks', cloud(names, rocks, header))

    def _publish(self, topic: str, message: Any) -> None:
        self._publishers_of[topic].publish(message)


def imgmsg_to_cv2(message: Image) -> NDArray[Any]:
    """Copies an rgb8 or bgr8 Image to H×W×3 uint8 BGR, as cv_bridge does."""
    stored = np.ndarray((message.height, message.width, 3), np.uint8, message.data)
    return cv2.cvtColor(stored, cv2.COLOR_RGB2BGR) if message.encoding == 'rgb8' else stored.copy()


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


def polygon_message(number: int, polygon: NDArray[Any], header: Header) -> PolygonInstanceStamped:
    """Builds the message of one rock."""
    message = PolygonInstanceStamped(header=header)
    message.polygon.id = number
    for x, y in polygon:
        message.polygon.polygon.points.append(Point32(x=float(x), y=float(y), z=0.0))
    return message


def measures(number: int, contour: NDArray[Any]) -> tuple[float, ...]:
    """Returns the centre and size of the bounding box, the area and the number of a rock."""
    x, y, width, height = cv2.boundingRect(contour)
    return x + width / 2, y + height / 2, width, height, cv2.contourArea(contour), number


def cloud(
    names: tuple[str, ...], points: Sequence[tuple[float, ...]], header: Header
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


if __name__ == '__main__':
    run_node('A simple segmentation node.', BaselineNode)
