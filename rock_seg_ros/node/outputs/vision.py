# SPDX-License-Identifier: Apache-2.0
"""Outputs with message types of vision_msgs, if it is installed."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.inference.metadata import ModelMetadata

try:
    import vision_msgs.msg as vision_msgs
except ImportError:
    vision_msgs = None


class Detections(Output):
    """The bounding boxes of the rocks."""

    topic = '~/detections'
    message_type = vision_msgs and vision_msgs.Detection2DArray

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One detection per rock. The class ids are those of `~/label_info`."""
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


def publish_label_info(node: LifecycleNode, metadata: ModelMetadata, threshold: float) -> Any:
    """Publishes the class names, transient local, if vision_msgs is installed.

    Args:
        node: The node.
        metadata: The metadata of the weights.
        threshold: Probability from which a pixel is rock, 0 to 1.

    Returns:
        The publisher, which must be kept, and destroyed later; None without vision_msgs.
    """
    if vision_msgs is None:
        return None
    qos = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    publisher = node.create_publisher(
        vision_msgs.LabelInfo,
        '~/label_info',
        qos,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )
    message = vision_msgs.LabelInfo(threshold=threshold)
    message.header.stamp = node.get_clock().now().to_msg()
    message.class_map = [
        vision_msgs.VisionClass(class_id=number, class_name=name)
        for number, name in enumerate(metadata.classes)
    ]
    publisher.publish(message)
    return publisher
