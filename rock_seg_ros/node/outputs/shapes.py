# SPDX-License-Identifier: Apache-2.0
"""Outputs with polygons and points: polygons, markers and the target."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import (
    Point,
    Point32,
    PointStamped,
    Polygon,
    PolygonInstance,
    PolygonInstanceStamped,
)
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import MAX_ROCKS, Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.location import Location, outlines
from rock_seg_ros.perception.instances.rocks import Rock

# Diameters of the smallest and the largest rock on the colour scale of the markers.
METRES = (0.05, 3.2)
PIXELS = (8.0, 512.0)
LINE_WIDTH = 0.003  # as a share of the distance
TEXT_HEIGHT = 0.03  # as a share of the distance
ID_MASK = 0x7FFFFFFF  # the id of a marker is an int32


class Polygons(Output):
    """The outer contour of each rock, px, clockwise as seen."""

    topic = '~/polygons'
    message_type = PolygonInstanceStamped
    depth = 2 * MAX_ROCKS

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One message per rock."""
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


class Markers(Output):
    """The polygons and ids for RViz, in the optical frame."""

    topic = '~/markers'
    message_type = MarkerArray
    needs_geometry = True

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """DELETEALL, then a closed LINE_STRIP and a text per rock, coloured by size.

        They are at the depth of the rock. If that is not known, they are on the plane z = 1, where
        the Camera display of RViz draws them over the image. Without camera_info, only DELETEALL is
        published.
        """
        message = MarkerArray(markers=[Marker(header=analysis.header, action=Marker.DELETEALL)])
        if analysis.view is None:
            return [message]
        shapes = outlines(analysis.rocks, analysis.locations, analysis.view.intrinsics)
        for rock, location, shape in zip(analysis.rocks, analysis.locations, shapes, strict=True):
            colour = _colour(rock, location)
            message.markers += [
                _marker(analysis, rock, shape, colour),
                _label(analysis, rock, shape, colour),
            ]
        return [message]


class Target(Output):
    """The middle of the rock that suits a drill or an instrument best, m."""

    topic = '~/target'
    message_type = PointStamped
    needs_geometry = True

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Not published if no rock is suited. The field `target` of the rock in `~/rocks` is 1."""
        if analysis.target is None:
            return []
        x, y, z = analysis.locations[analysis.target].position
        return [PointStamped(header=analysis.header, point=Point(x=x, y=y, z=z))]


def _marker(
    analysis: Analysis, rock: Rock, shape: NDArray[np.float32], colour: ColorRGBA
) -> Marker:
    """Returns the marker of a rock's outline."""
    marker = Marker(header=analysis.header, ns='outlines', id=rock.id & ID_MASK, color=colour)
    marker.type = Marker.LINE_STRIP
    marker.pose.orientation.w = 1.0
    marker.scale.x = LINE_WIDTH * float(shape[0, 2])
    corners = [Point(x=x, y=y, z=z) for x, y, z in shape.tolist()]
    marker.points = [*corners, corners[0]]
    return marker


def _label(analysis: Analysis, rock: Rock, shape: NDArray[np.float32], colour: ColorRGBA) -> Marker:
    """Returns the marker of a rock's id."""
    label = Marker(header=analysis.header, ns='ids', id=rock.id & ID_MASK, color=colour)
    label.type = Marker.TEXT_VIEW_FACING
    label.text = str(rock.id)
    x, y, z = shape.mean(axis=0).tolist()
    label.pose.position.x, label.pose.position.y, label.pose.position.z = x, y, z
    label.pose.orientation.w = 1.0
    label.scale.z = TEXT_HEIGHT * z
    return label


def _colour(rock: Rock, location: Location) -> ColorRGBA:
    """Returns the colour for a rock's size, from blue (small) to red (large)."""
    size, (low, high) = location.diameter, METRES
    if not size > 0:
        size, (low, high) = 2 * (rock.area / np.pi) ** 0.5, PIXELS
    share = np.log(size / low) / np.log(high / low)
    return _palette()[int(np.clip(share, 0, 1) * 255)]


@cache
def _palette() -> list[ColorRGBA]:
    """Returns 256 colours. The messages are shared: do not modify them."""
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO).reshape(-1, 3)
    return [ColorRGBA(r=r, g=g, b=b, a=1.0) for b, g, r in (ramp / 255).tolist()]
