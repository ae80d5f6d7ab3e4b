# SPDX-License-Identifier: Apache-2.0
"""The outputs of the node, one class per topic. Only outputs with a subscriber are computed."""

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

# In the order of publication. Outputs that need no rocks come first, because they do not wait for
# depth. `~/rocks` comes last and completes the image.
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
