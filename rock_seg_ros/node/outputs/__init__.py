# SPDX-License-Identifier: Apache-2.0
"""What the node publishes: one class an output. Only what somebody subscribes to is built."""

from __future__ import annotations

from rock_seg_ros.node.outputs.clouds import Obstacles, PolygonPoints, Rocks
from rock_seg_ros.node.outputs.images import (
    ClassIds,
    Confidence,
    Instances,
    Mask,
    Overlay,
    OverlayCompressed,
)
from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.outputs.shapes import Markers, Polygons, Target
from rock_seg_ros.node.outputs.vision import Detections, vision_msgs

# In the order of publishing: what tells of pixels only goes first, and does not wait for depth; the
# rocks go out last and close the image.
OUTPUTS: tuple[type[Output], ...] = (
    Mask,
    ClassIds,
    Confidence,
    Instances,
    Overlay,
    OverlayCompressed,
    Polygons,
    PolygonPoints,
    Markers,
    Obstacles,
    Target,
    *((Detections,) if vision_msgs else ()),
    Rocks,
)
