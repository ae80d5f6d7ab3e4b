# SPDX-License-Identifier: Apache-2.0
"""Position and size of rocks in metres, from depth or from the plane of the ground.

Everything is in the optical frame of REP 103: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.depth_samples import (
    MIN_SHARE,
    quantiles,
    sample,
    sample_rays,
)
from rock_seg_ros.perception.geometry.ground import ground_around
from rock_seg_ros.perception.geometry.intrinsics import Floats, Intrinsics
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.instances.rocks import Rock

NOISE = 5.0  # median deviations from the median depth that still belong to a rock
# Least distance of a rock's foot below the horizon, px. There, 1 px is a tenth of the range.
HORIZON = 10.0

# Points around the border of a box, in widths and heights.
BORDER = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])


@dataclass(frozen=True)
class Location:
    """Position and size of a rock in metres; NaN where unknown.

    Attributes:
        position: x, y and z of the centre of its visible surface.
        extent: Size along x, y and z.
        diameter: Diameter of the disc that has the area of its silhouette.
        height: Height of its top above the ground around it.
        distance: Distance from the camera.
    """

    position: tuple[float, float, float]
    extent: tuple[float, float, float]
    diameter: float
    height: float
    distance: float

    @classmethod
    def unknown(cls) -> Location:
        """Returns a location in which everything is unknown."""
        nan = (np.nan, np.nan, np.nan)
        return cls(nan, nan, np.nan, np.nan, np.nan)


def locate(
    rocks: Sequence[Rock], view: View, instances: NDArray[np.uint16] | None = None
) -> list[Location]:
    """Computes the position and size of rocks.

    The depth of a rock is the mean over its visible surface. Only pixels count whose distance from
    the median is at most the width of the rock or the noise of the depth. Extent and diameter are
    those of the silhouette at that depth; the diameter excludes pixels that are not on the rock.
    The ground around a rock is a plane that is fitted to the depth of a ring around it.

    Where depth is unknown, the ground plane of the view is used. The rock is as far away as the
    point where its lowest ray meets the ground, its extent along z is unknown, and its height is
    that of its silhouette. Everything is NaN without depth and ground. Without depth, it is also
    NaN for rocks whose foot is less than `HORIZON` px below the horizon or at the image border.

    Args:
        rocks: Rocks of the image.
        view: View of the image.
        instances: H×W rocks as drawn by `draw_instances`; None = draw them if needed.

    Returns:
        One location per rock, in the same order.

    Raises:
        ValueError: A rock extends beyond the image.
    """
    if not rocks:
        return []
    _check_boxes(rocks, view.intrinsics.size)
    centre, spans, radius = _silhouettes(rocks, view.intrinsics)
    points, depths = sample([(rock.box[:2], rock.mask) for rock in rocks], view.depth)
    depths, z, share = _surface(depths, radius)
    near, far = quantiles(depths, (0.05, 0.95))
    measured = ~np.isnan(z)
    if view.ground is not None:
        z = np.where(measured, z, _depth_on_ground(rocks, view.intrinsics, view.ground))
    depths = np.where(measured[:, None], depths, z[:, None])
    position = z[:, None] * centre
    radius = np.where(measured, radius * np.sqrt(share), radius)
    thickness = np.where(measured, far - near, np.nan)
    grounds = ground_around(rocks, radius, view, instances)
    height = _height(sample_rays(points, view.intrinsics), depths, grounds)
    extents = np.column_stack([z[:, None] * spans, thickness])
    distance = np.linalg.norm(position, axis=1)
    return [
        Location(tuple(where), tuple(extent), *rest)
        for where, extent, rest in zip(
            position.tolist(),
            extents.tolist(),
            np.column_stack([2 * radius * z, height, distance]).tolist(),
            strict=True,
        )
    ]


def surface_points(rocks: Sequence[Rock], view: View, step: int) -> NDArray[np.float32]:
    """Returns points on the visible surfaces of the rocks.

    Args:
        rocks: Rocks of the image.
        view: View of the image.
        step: Distance of the pixels in x and y, px, 1 or more.

    Returns:
        N×3 points, m, of pixels with depth; none without a depth image.

    Raises:
        ValueError: A rock extends beyond the image.
    """
    if not rocks or view.depth is None:
        return np.zeros((0, 3), np.float32)
    _check_boxes(rocks, view.intrinsics.size)
    _, _, radius = _silhouettes(rocks, view.intrinsics)
    _, depths = sample([(rock.box[:2], rock.mask) for rock in rocks], view.depth)
    nearest, farthest = _depth_range(depths, radius)
    pixels = []
    for rock in rocks:
        x, y = (-(-first // step) * step for first in rock.box[:2])  # one grid for all rocks
        grid = rock.mask[y - rock.box[1] :: step, x - rock.box[0] :: step]
        v, u = np.nonzero(grid)
        pixels.append(np.stack([x + step * u, y + step * v], axis=1))
    rock_of = np.repeat(np.arange(len(rocks)), [len(each) for each in pixels])
    points = np.concatenate(pixels)
    z = view.depth[points[:, 1], points[:, 0]]
    on_rock = (z > 0) & (z >= nearest[rock_of]) & (z <= farthest[rock_of])
    return (view.intrinsics.rays(points[on_rock]) * z[on_rock, None]).astype(np.float32)


def outlines(
    rocks: Sequence[Rock], locations: Sequence[Location], intrinsics: Intrinsics
) -> list[NDArray[np.float32]]:
    """Returns the polygons of the rocks as V×3 points, at the z of the rock or at z = 1 if NaN."""
    if not rocks:
        return []
    rays = intrinsics.rays(np.concatenate([rock.polygon for rock in rocks])).astype(np.float32)
    z = np.array([location.position[2] for location in locations], np.float32)
    counts = [len(rock.polygon) for rock in rocks]
    rays *= np.repeat(np.where(np.isnan(z), 1, z), counts)[:, None]
    return np.split(rays, np.cumsum(counts)[:-1])


def _check_boxes(rocks: Sequence[Rock], size: tuple[int, int]) -> None:
    for rock in rocks:
        x, y, width, height = rock.box
        if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
            raise ValueError(
                f'a rock at {x}, {y}, {width}×{height} px, is not in a {size[0]}×{size[1]} image'
            )


def _silhouettes(rocks: Sequence[Rock], intrinsics: Intrinsics) -> tuple[Floats, Floats, Floats]:
    """Returns R×3 rays of the centres, R×2 spans and R radii of discs of equal area, at z = 1."""
    centre = intrinsics.rays(np.array([rock.centroid for rock in rocks]))
    boxes = np.array([rock.box for rock in rocks], np.float64)
    borders = boxes[:, None, :2] - 0.5 + BORDER * boxes[:, None, 2:]
    x, y = np.moveaxis(sample_rays(borders, intrinsics)[..., :2], 2, 0)
    doubled_area = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
    shares = np.array([rock.area for rock in rocks]) / (boxes[:, 2] * boxes[:, 3])
    radius = np.sqrt(np.abs(doubled_area) / 2 * shares / np.pi)
    return centre, np.column_stack([np.ptp(x, axis=1), np.ptp(y, axis=1)]), radius


def _depth_range(depths: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Returns R smallest and R largest depths on each rock, from its width and the noise."""
    (median,) = quantiles(depths, (0.5,))
    (deviation,) = quantiles(np.abs(depths - median[:, None]), (0.5,))
    reach = np.maximum(2 * radius * median, NOISE * deviation)
    return median - reach, median + reach


def _surface(depths: Floats, radius: Floats) -> tuple[Floats, Floats, Floats]:
    """Selects the R×S depths that are on the rocks.

    Returns:
        R×S depths, NaN where not on the rock; R means, NaN where too few are known; and R shares
        of the known depths that are on the rock.
    """
    nearest, farthest = _depth_range(depths, radius)
    on_rock = (depths >= nearest[:, None]) & (depths <= farthest[:, None])
    known = np.count_nonzero(~np.isnan(depths), axis=1)
    count = np.where(known >= MIN_SHARE * depths.shape[1], on_rock.sum(axis=1), np.nan)
    mean = np.where(on_rock, depths, 0).sum(axis=1) / count
    return np.where(on_rock, depths, np.nan), mean, count / np.maximum(1, known)


def _depth_on_ground(rocks: Sequence[Rock], intrinsics: Intrinsics, ground: Plane) -> Floats:
    """Returns R depths (m) of rocks that stand on the ground; NaN where it cannot be computed."""
    counts = [len(rock.polygon) for rock in rocks]
    starts = np.cumsum([0, *counts[:-1]])
    polygons = np.concatenate([rock.polygon for rock in rocks])
    closeness = ground.closeness(intrinsics.rays(polygons))
    foot = np.maximum.reduceat(closeness, starts)
    (width, height), (x, y) = intrinsics.size, polygons.T
    lowest = closeness >= np.repeat(foot, counts)
    at_border = (x <= 0) | (y <= 0) | (x >= width - 1) | (y >= height - 1)
    cut = np.maximum.reduceat(lowest & at_border, starts)
    pixel = np.hypot(*ground.normal[:2]) / ground.offset / intrinsics.matrix[1, 1]
    with np.errstate(divide='ignore'):
        return np.where((foot > HORIZON * pixel) & ~cut, 1 / (foot + pixel / 2), np.nan)


def _height(rays: Floats, depths: Floats, grounds: Floats) -> Floats:
    """Returns the heights (m) of R rocks above the ground, without the highest 5 % of the points.

    Args:
        rays: R×S×3, z = 1.
        depths: R×S, m.
        grounds: R×3, g with g · ray = 1/z.
    """
    ratio = depths * (rays @ grounds[..., None])[..., 0]
    (high,) = quantiles((1 - ratio) / np.linalg.norm(grounds, axis=1)[:, None], (0.95,))
    return high
