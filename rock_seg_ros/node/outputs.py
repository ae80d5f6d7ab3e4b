# SPDX-License-Identifier: Apache-2.0
"""What the node publishes: one class an output. Only what somebody subscribes to is built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any, ClassVar

import cv2
import numpy as np
from geometry_msgs.msg import Point32, Polygon, PolygonInstance, PolygonInstanceStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from rock_seg_ros.node.images import fill, to_message
from rock_seg_ros.node.parameters import MOST_ROCKS, Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.card import Card

try:
    import vision_msgs.msg as vision_msgs
except ImportError:
    vision_msgs = None

POINT_TYPES = {
    'float32': PointField.FLOAT32,
    'uint32': PointField.UINT32,
    'uint8': PointField.UINT8,
}
POLYGON_POINT = np.dtype([('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('id', 'u4')])
ROCK_POINT = np.dtype(
    [
        *((name, 'f4') for name in ('x', 'y', 'z', 'u', 'v', 'width', 'height')),
        *((name, 'f4') for name in ('area', 'diameter', 'score')),
        ('class_id', 'u1'),
        ('id', 'u4'),
    ],
    align=True,
)


class Output(ABC):
    """A topic of the node's own, reliable and volatile.

    Attributes:
        topic: Its name.
        message_type: Of its messages.
        depth: Of its history.
    """

    topic: ClassVar[str]
    message_type: ClassVar[Any]
    depth: ClassVar[int] = 5

    def __init__(self, node: LifecycleNode, camera: str = '') -> None:
        """Creates the publisher, whose QoS parameters may override.

        Args:
            node: That it belongs to.
            camera: Comes into the topic's name, `~/CAMERA/mask`; '' for none.
        """
        self._publisher = node.create_lifecycle_publisher(
            self.message_type,
            self.topic.replace('~', f'~/{camera}' if camera else '~'),
            QoSProfile(depth=self.depth, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._node = node

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, analysis: Analysis, parameters: Parameters) -> None:
        """Builds what the picture gives and sends it."""
        for message in self.messages(analysis, parameters):
            self._publisher.publish(message)

    @abstractmethod
    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Builds the messages of a picture."""

    def destroy(self) -> None:
        """Takes the topic away."""
        self._node.destroy_lifecycle_publisher(self._publisher)


class Mask(Output):
    """255 rock, 0 not."""

    topic = '~/mask'
    message_type = Image

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.mask, 'mono8', analysis.header)]


class ClassIds(Output):
    """The class id of each pixel."""

    topic = '~/class_ids'
    message_type = Image

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.segmentation.class_ids, 'mono8', analysis.header)]


class Confidence(Output):
    """The probability of each pixel's class, 0 to 255."""

    topic = '~/confidence'
    message_type = Image

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.segmentation.confidence, 'mono8', analysis.header)]


class Overlay(Output):
    """The picture with the rocks drawn on."""

    topic = '~/overlay'
    message_type = Image

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One rgb8 Image."""
        return [to_message(analysis.overlay, 'rgb8', analysis.header)]


class OverlayCompressed(Output):
    """The overlay as JPEG."""

    topic = '~/overlay/compressed'
    message_type = CompressedImage

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One CompressedImage."""
        bgr = cv2.cvtColor(analysis.overlay, cv2.COLOR_RGB2BGR)
        done, coded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, parameters.jpeg_quality])
        if not done:
            raise ValueError(f'JPEG cannot hold {bgr.shape[1]}×{bgr.shape[0]} pixels')
        message = CompressedImage(header=analysis.header, format='rgb8; jpeg compressed bgr8')
        fill(message, coded)
        return [message]


class Polygons(Output):
    """The outer contour of each rock, one message a rock."""

    topic = '~/polygons'
    message_type = PolygonInstanceStamped
    depth = 2 * MOST_ROCKS

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """A PolygonInstanceStamped a rock."""
        return [
            PolygonInstanceStamped(
                header=analysis.header,
                polygon=PolygonInstance(
                    id=rock.id,
                    polygon=Polygon(points=[Point32(x=x, y=y) for x, y in rock.polygon.tolist()]),
                ),
            )
            for rock in analysis.rocks
        ]


class PolygonPoints(Output):
    """The same polygons in one buffer, empty ones too."""

    topic = '~/polygon_points'
    message_type = PointCloud2

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One PointCloud2 of x, y (px), z (0) and id; vertices in order."""
        counts = [len(rock.polygon) for rock in analysis.rocks]
        points = np.zeros(sum(counts), POLYGON_POINT)
        if counts:
            vertices = np.concatenate([rock.polygon for rock in analysis.rocks])
            points['x'], points['y'] = vertices.T
            points['id'] = np.repeat([rock.id for rock in analysis.rocks], counts)
        return [to_cloud(points, analysis.header, dense=True)]


class Detections(Output):
    """The rocks as vision_msgs has them."""

    topic = '~/detections'
    message_type = vision_msgs and vision_msgs.Detection2DArray

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One Detection2DArray; the class ids are those of label_info."""
        message = vision_msgs.Detection2DArray(header=analysis.header)
        for rock in analysis.rocks:
            x, y, width, height = rock.box
            detection = vision_msgs.Detection2D(header=analysis.header, id=str(rock.id))
            detection.bbox.center.position.x = x + (width - 1) / 2
            detection.bbox.center.position.y = y + (height - 1) / 2
            detection.bbox.size_x = float(width)
            detection.bbox.size_y = float(height)
            result = vision_msgs.ObjectHypothesisWithPose()
            result.hypothesis.class_id = str(rock.class_id)
            result.hypothesis.score = rock.score
            detection.results.append(result)
            message.detections.append(detection)
        return [message]


class Rocks(Output):
    """One point a rock, one message a picture, empty ones too; goes out last."""

    topic = '~/rocks'
    message_type = PointCloud2

    def messages(self, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One PointCloud2; metres are NaN where they are not known."""
        unknown = (np.nan, np.nan, np.nan)
        values = [
            (*unknown, *r.centroid, *r.box[2:], r.area, np.nan, r.score, r.class_id, r.id)
            for r in analysis.rocks
        ]
        points = np.zeros(len(values), ROCK_POINT)  # what lies between the fields, too
        points[:] = values
        return [to_cloud(points, analysis.header, dense=not len(points))]


OUTPUTS: tuple[type[Output], ...] = (
    Mask,
    ClassIds,
    Confidence,
    Overlay,
    OverlayCompressed,
    Polygons,
    PolygonPoints,
    *((Detections,) if vision_msgs else ()),
    Rocks,
)


def to_cloud(points: np.ndarray[Any, Any], header: Header, dense: bool) -> PointCloud2:
    """Makes a PointCloud2 of N structured points with one copy.

    Args:
        points: N, of a structured dtype of float32, uint32 and uint8 fields.
        header: Put into the message as it is.
        dense: Whether no value is NaN.
    """
    message = PointCloud2(header=header, height=1, width=len(points), is_dense=dense)
    message.point_step = points.dtype.itemsize
    message.row_step = points.nbytes
    message.fields = _point_fields(points.dtype)
    fill(message, points.view(np.uint8))
    return message


@cache
def _point_fields(kind: Any) -> list[PointField]:
    """Returns the description of a structured dtype; messages share it, nobody changes it."""
    return [
        PointField(
            name=name,
            offset=kind.fields[name][1],
            datatype=POINT_TYPES[kind[name].name],
            count=1,
        )
        for name in kind.names or ()
    ]


def publish_label_info(node: LifecycleNode, card: Card, threshold: float) -> Any:
    """Publishes the class names, latched, where vision_msgs is installed.

    Returns:
        The publisher, to be kept and destroyed; None without vision_msgs.
    """
    if vision_msgs is None:
        return None
    latched = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    publisher = node.create_publisher(
        vision_msgs.LabelInfo,
        '~/label_info',
        latched,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )
    message = vision_msgs.LabelInfo(threshold=threshold)
    message.header.stamp = node.get_clock().now().to_msg()
    message.class_map = [
        vision_msgs.VisionClass(class_id=number, class_name=name)
        for number, name in enumerate(card.classes)
    ]
    publisher.publish(message)
    return publisher
