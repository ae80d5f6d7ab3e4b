# SPDX-License-Identifier: Apache-2.0
"""Outputs of type PointCloud2: all rocks of an image in one buffer."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from rock_seg_ros.node.images import fill
from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.location import surface_points

POINT_TYPES = {
    'float32': PointField.FLOAT32,
    'uint32': PointField.UINT32,
    'uint8': PointField.UINT8,
}
POLYGON_POINT = np.dtype([('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('id', 'u4')])
ROCK_FLOATS = (
    *('x', 'y', 'z', 'u', 'v', 'width', 'height', 'area', 'diameter', 'score'),
    *('extent_x', 'extent_y', 'extent_z', 'height_above_ground', 'distance'),
)
ROCK_POINT = np.dtype(
    [
        *((name, 'f4') for name in ROCK_FLOATS),
        ('class_id', 'u1'),
        ('target', 'u1'),
        ('id', 'u4'),
    ],
    align=True,
)
SURFACE_POINT = np.dtype([('x', 'f4'), ('y', 'f4'), ('z', 'f4')])


class PolygonPoints(Output):
    """The polygons of an image in one message, also for an image without rocks."""

    topic = '~/polygon_points'
    message_type = PointCloud2

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Fields: `x` and `y` (px), `z` (0) and `id`; the vertices of a rock are in order."""
        counts = [len(rock.polygon) for rock in analysis.rocks]
        points = np.zeros(sum(counts), POLYGON_POINT)
        if counts:
            vertices = np.concatenate([rock.polygon for rock in analysis.rocks])
            points['x'], points['y'] = vertices.T
            points['id'] = np.repeat([rock.id for rock in analysis.rocks], counts)
        return [to_cloud(points, analysis.header, dense=True)]


class Obstacles(Output):
    """Points on the visible surfaces of the rocks, for a costmap."""

    topic = '~/obstacles'
    message_type = PointCloud2
    needs_geometry = True

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Fields: `x`, `y` and `z` (m). Nothing is published without depth."""
        if analysis.view is None or analysis.view.depth is None:
            return []
        points = surface_points(analysis.rocks, analysis.view, parameters.obstacle_step)
        cloud = np.ascontiguousarray(points).view(SURFACE_POINT)[:, 0]
        return [to_cloud(cloud, analysis.header, dense=True)]


class Rocks(Output):
    """One point per rock, also for an image without rocks; published last."""

    topic = '~/rocks'
    message_type = PointCloud2
    needs_geometry = True

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Values in metres are NaN if they are not known."""
        values = [
            (
                *(*p.position, *r.centroid, *r.box[2:], r.area, p.diameter, r.score),
                *(*p.extent, p.height, p.distance, r.class_id, 0, r.id),
            )
            for r, p in zip(analysis.rocks, analysis.locations, strict=True)
        ]
        points = np.zeros(len(values), ROCK_POINT)  # zeros also in the padding between fields
        points[:] = values
        if analysis.target is not None:
            points['target'][analysis.target] = 1
        dense = all(np.isfinite(points[name]).all() for name in ROCK_FLOATS)
        return [to_cloud(points, analysis.header, dense)]


def to_cloud(points: np.ndarray[Any, Any], header: Header, dense: bool) -> PointCloud2:
    """Returns a PointCloud2 of structured points; the data is copied once.

    Args:
        points: N points of a structured dtype with float32, uint32 and uint8 fields.
        header: Header of the message.
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
    """Returns the fields of a structured dtype. The list is shared: do not modify it."""
    return [
        PointField(
            name=name,
            offset=kind.fields[name][1],
            datatype=POINT_TYPES[kind[name].name],
            count=1,
        )
        for name in kind.names or ()
    ]
