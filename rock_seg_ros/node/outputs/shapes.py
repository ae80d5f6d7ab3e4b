# SPDX-License-Identifier: Apache-2.0
"""Outputs that are shapes: polygons, markers, the target's point."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Point32, Polygon, PolygonInstance, PolygonInstanceStamped

from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import MOST_ROCKS, Parameters
from rock_seg_ros.perception.analysis import Analysis


class Polygons(Output):
    """The outer contour of each rock, one message a rock."""

    topic = '~/polygons'
    message_type = PolygonInstanceStamped
    depth = 2 * MOST_ROCKS

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
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
