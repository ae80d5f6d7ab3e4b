# SPDX-License-Identifier: Apache-2.0
"""Pixels ↔ metres: where rocks are and how big, from depth or from where the ground is.

Everything is in REP 103's optical frame: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.instances.rocks import Rock, draw_instances

MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant')
# What drivers, kalibr, OpenCV and librealsense call them.
MODEL_ALIASES = {
    'radtan': 'plumb_bob',
    'radial_tangential': 'plumb_bob',
    'brown_conrady': 'plumb_bob',
    'equi': 'equidistant',
    'fisheye': 'equidistant',
    'kannala_brandt': 'equidistant',
    'kannala_brandt4': 'equidistant',
}
COUNTS = (0, 4, 5, 8, 12, 14)  # of distortion coefficients that OpenCV takes
FISHEYE_COUNTS = (0, 4)
# The default is off by 0.2 px where distortion is strong.
PRECISE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 1e-3)
SAMPLES = 96  # pixels of each rock, and of the ground around it, that are looked at
LEAST_SHARE = 0.3  # of them that must have depth
GOLDEN = (5**0.5 - 1) / 2
WIDE_SAMPLES = 4096  # of a whole image
WIDE_SHARE = 0.05
NOISE = 5.0  # median deviations from a rock's median depth
HORIZON = 10.0  # px below it that a foot must be: there one pixel more is a tenth of the range
RING = 0.5  # of a rock's longer side that the ground is looked at around it
RING_LEAST = 6  # px more
NARROWEST = 0.1  # of a rock's radius; pixels in a narrower strip tell no plane
MOAT = 2  # px around rocks where depth is of neither
FITS = 6
MOTION_STEP = 8  # px
LEAST_DEPTH = 0.05  # m, of what has come behind the camera
TOLERANCE = 1e-3  # of 1/z, within which all points of the ground count alike

# Around a box's border, in widths and heights.
BORDER = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intrinsics:
    """A camera's lens, as sensor_msgs/CameraInfo tells it.

    Attributes:
        matrix: K, 3×3 float64, px; whole numbers are pixel centres.
        distortion: D, as many coefficients as the model has; empty = none.
        model: 'plumb_bob', 'rational_polynomial' or 'equidistant'; without distortion any.
        size: Width and height of the images, px.
    """

    matrix: Floats
    distortion: Floats
    model: str = 'plumb_bob'
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuses with ValueError what is no camera, such as a camera_info of zeros."""
        if min(self.size) < 1:
            raise ValueError(f'the images must have pixels, not {self.size[0]}×{self.size[1]}')
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix).all():
            raise ValueError('the camera matrix must be 3×3 finite numbers')
        if self.matrix[0, 0] <= 0 or self.matrix[1, 1] <= 0:
            focal = f'{self.matrix[0, 0]:g}, {self.matrix[1, 1]:g}'
            raise ValueError(f'the focal lengths must be above 0, not {focal}')
        if not np.isfinite(self.distortion).all():
            raise ValueError('the distortion coefficients must be finite numbers')
        if not self.distortion.any():
            return
        if self.model not in MODELS:
            raise ValueError(
                f'the distortion model must be one of {", ".join(MODELS)}, not {self.model!r}'
            )
        if self.distortion.size not in _counts(self.model):
            raise ValueError(
                f'{self.model} cannot have {self.distortion.size} distortion coefficients'
            )

    def rays(self, points: NDArray[Any]) -> Floats:
        """Returns the V×3 directions (z = 1) that V×2 pixels look in, lens distortion undone."""
        flat = np.asarray(points, np.float64).reshape(-1, 1, 2)
        if not len(flat):
            return np.zeros((0, 3))
        if not self.distortion.any():
            straight: NDArray = (flat[:, 0] - self.matrix[:2, 2]) / self.matrix[[0, 1], [0, 1]]
        elif self.model == 'equidistant':
            straight = cv2.fisheye.undistortPoints(flat, self.matrix, self.distortion)[:, 0]
        else:
            straight = cv2.undistortPoints(flat, self.matrix, self.distortion, criteria=PRECISE)
            straight = straight.reshape(-1, 2)
        return np.column_stack([straight, np.ones(len(straight))])

    def pixels(self, points: Floats) -> Floats:
        """Returns the V×2 pixels where V×3 points (m, z above 0) are seen."""
        if not len(points):
            return np.zeros((0, 2))
        still = np.zeros(3)
        flat = np.asarray(points, np.float64).reshape(-1, 1, 3)
        distortion = self.distortion if self.distortion.any() else np.zeros(4)
        if self.model == 'equidistant' and self.distortion.any():
            seen = cv2.fisheye.projectPoints(flat, still, still, self.matrix, distortion)[0]
        else:
            seen = cv2.projectPoints(flat, still, still, self.matrix, distortion)[0]
        return np.asarray(seen, np.float64).reshape(-1, 2)


def standard_distortion(model: str, coefficients: Floats) -> tuple[str, Floats]:
    """Returns distortion as `Intrinsics` takes it, which refuses what is none.

    Args:
        model: A name of the model as drivers write it, such as 'radtan' or 'Kannala Brandt4'.
        coefficients: D; zeros beyond those of the model are left out.

    Returns:
        The model's name in sensor_msgs, where there is one, and the coefficients.
    """
    name = model.strip().lower().replace('-', '_').replace(' ', '_')
    name = MODEL_ALIASES.get(name, name)
    if coefficients.size in _counts(name) or not np.isfinite(coefficients).all():
        return name, coefficients
    needed = int(np.flatnonzero(coefficients).max(initial=-1)) + 1
    fitting = [count for count in _counts(name) if needed <= count < coefficients.size]
    return name, coefficients[: fitting[0]] if fitting else coefficients


def _counts(model: str) -> tuple[int, ...]:
    return FISHEYE_COUNTS if model == 'equidistant' else COUNTS


@dataclass(frozen=True)
class Plane:
    """A plane of the points p with normal · p + offset = 0.

    Attributes:
        normal: Unit vector, towards the camera's side: up.
        offset: Height of the camera above the plane, m.
    """

    normal: Floats
    offset: float

    def closeness(self, rays: Floats) -> Floats:
        """Returns 1/z (1/m) where N×3 rays (z = 1) meet the plane; 0 or less: they never do."""
        return rays @ (self.normal / -self.offset)

    def heights(self, points: Floats) -> Floats:
        """Returns how high above the plane N×3 points are, m."""
        return points @ self.normal + self.offset


def level_ground(height: float, tilt: float, roll: float = 0.0) -> Plane:
    """Returns the level plane that a camera stands above.

    Args:
        height: Of the camera, m, above 0.
        tilt: Of the optical axis below the horizon, rad.
        roll: About the optical axis, clockwise as seen from behind, which has the horizon rise
            to the right, rad.

    Raises:
        ValueError: The height is not above 0, or an angle is no number.
    """
    if not height > 0 or not np.isfinite([height, tilt, roll]).all():
        raise ValueError(f'no ground with height {height:g} m, tilt {tilt:g}, roll {roll:g} rad')
    level = np.cos(tilt)
    return Plane(np.array([-np.sin(roll) * level, -np.cos(roll) * level, -np.sin(tilt)]), height)


@dataclass(frozen=True)
class View:
    """What tells metres in one image.

    Attributes:
        intrinsics: Of the camera that took it.
        depth: H×W float32, metres along the optical axis; NaN, infinite, 0 and less = not known.
            None = no depth.
        ground: The plane that the rocks stand on, where known.
    """

    intrinsics: Intrinsics
    depth: NDArray[np.float32] | None = None
    ground: Plane | None = None

    def __post_init__(self) -> None:
        """Refuses depth of another size than the images with ValueError."""
        width, height = self.intrinsics.size
        if self.depth is not None and self.depth.shape != (height, width):
            there = '×'.join(map(str, self.depth.shape[::-1]))
            raise ValueError(f'the depth is {there}, the image {width}×{height}')


@dataclass(frozen=True)
class Sight:
    """Where an image with depth was taken from.

    Attributes:
        view: Of the image.
        pose: Of its camera's optical frame in a frame that stands still, 4×4 float64, m.
    """

    view: View
    pose: Floats


@dataclass(frozen=True)
class Place:
    """Where a rock is and how big, in metres; NaN where that is not known.

    Attributes:
        position: x, y, z of the middle of its visible surface.
        extent: Along x, y and z.
        diameter: Of the disc of the same area as its silhouette.
        height: Of its top above the ground around it.
        distance: From the camera.
    """

    position: tuple[float, float, float]
    extent: tuple[float, float, float]
    diameter: float
    height: float
    distance: float

    @classmethod
    def unknown(cls) -> Place:
        """Returns the place of a rock of which nothing is known."""
        nowhere = (np.nan, np.nan, np.nan)
        return cls(nowhere, nowhere, np.nan, np.nan, np.nan)


def locate(
    rocks: Sequence[Rock], view: View, instances: NDArray[np.uint16] | None = None
) -> list[Place]:
    """Says where rocks are and how big.

    A rock's depth is the mean over its visible surface: of its pixels those that lie no farther
    from their median than the rock is wide, or than depth is noisy. Extent and diameter are its
    silhouette's at that depth, the diameter without the pixels that are not on it. The ground
    around it is a plane fitted to the depth of a ring of pixels that are no rock.

    What depth does not tell, the known ground does: a rock is as far as the point where its lowest
    ray meets that ground, its extent along z is not known, and its height is its silhouette's. All
    is NaN without depth and known ground, and without depth for rocks whose foot is less than
    `HORIZON` px below the horizon or at the image's border.

    Args:
        rocks: Of one image.
        view: Of the same image.
        instances: H×W, the rocks as `draw_instances` draws them; None = drawn here, if need be.

    Returns:
        A place for each rock, in their order.

    Raises:
        ValueError: A rock reaches out of the image.
    """
    if not rocks:
        return []
    _check_boxes(rocks, view.intrinsics.size)
    middle, spans, radius = _silhouettes(rocks, view.intrinsics)
    points, depths = _sample([(rock.box[:2], rock.mask) for rock in rocks], view.depth)
    depths, z, share = _surface(depths, radius)
    near, far = _quantiles(depths, (0.05, 0.95))
    seen = ~np.isnan(z)
    if view.ground is not None:
        z = np.where(seen, z, _standing(rocks, view.intrinsics, view.ground))
    depths = np.where(seen[:, None], depths, z[:, None])
    position = z[:, None] * middle
    radius = np.where(seen, radius * np.sqrt(share), radius)
    thick = np.where(seen, far - near, np.nan)
    grounds = _grounds(rocks, radius, view, instances)
    height = _height(_directions(points, view.intrinsics), depths, grounds)
    extents = np.column_stack([z[:, None] * spans, thick])
    distance = np.linalg.norm(position, axis=1)
    return [
        Place(tuple(where), tuple(extent), *rest)
        for where, extent, rest in zip(
            position.tolist(),
            extents.tolist(),
            np.column_stack([2 * radius * z, height, distance]).tolist(),
            strict=True,
        )
    ]


def surface_points(rocks: Sequence[Rock], view: View, step: int) -> NDArray[np.float32]:
    """Finds points on the rocks' visible surfaces.

    Args:
        rocks: Of one image.
        view: Of the same image.
        step: Every so many pixels both ways one is looked at, 1 or more.

    Returns:
        N×3, m, of pixels with depth; none where there is no depth.

    Raises:
        ValueError: A rock reaches out of the image.
    """
    if not rocks or view.depth is None:
        return np.zeros((0, 3), np.float32)
    _check_boxes(rocks, view.intrinsics.size)
    _, _, radius = _silhouettes(rocks, view.intrinsics)
    _, depths = _sample([(rock.box[:2], rock.mask) for rock in rocks], view.depth)
    nearest, farthest = _bounds(depths, radius)
    pixels = []
    for rock in rocks:
        x, y = (-(-first // step) * step for first in rock.box[:2])  # on one grid for all rocks
        grid = rock.mask[y - rock.box[1] :: step, x - rock.box[0] :: step]
        v, u = np.nonzero(grid)
        pixels.append(np.stack([x + step * u, y + step * v], axis=1))
    of = np.repeat(np.arange(len(rocks)), [len(each) for each in pixels])
    points = np.concatenate(pixels)
    z = view.depth[points[:, 1], points[:, 0]]
    on_rock = (z > 0) & (z >= nearest[of]) & (z <= farthest[of])
    return (view.intrinsics.rays(points[on_rock]) * z[on_rock, None]).astype(np.float32)


def outlines(
    rocks: Sequence[Rock], places: Sequence[Place], intrinsics: Intrinsics
) -> list[NDArray[np.float32]]:
    """Returns the rocks' polygons as V×3 points: at the rock's z, on z = 1 where that is NaN."""
    if not rocks:
        return []
    rays = intrinsics.rays(np.concatenate([rock.polygon for rock in rocks])).astype(np.float32)
    z = np.array([place.position[2] for place in places], np.float32)
    counts = [len(rock.polygon) for rock in rocks]
    rays *= np.repeat(np.where(np.isnan(z), 1, z), counts)[:, None]
    return np.split(rays, np.cumsum(counts)[:-1])


def fit_ground(rocks: Sequence[Rock], view: View) -> Plane | None:
    """Fits one plane to all depth that is no rock; None where too little is known.

    Args:
        rocks: Of one image.
        view: Of the same image.
    """
    if view.depth is None:
        return None
    free = draw_instances(rocks, view.depth.shape[:2]) == 0
    points, depths = _sample([((0, 0), free)], view.depth, WIDE_SAMPLES)
    fitted = _fit_planes(_directions(points, view.intrinsics), depths, WIDE_SHARE)[0]
    length = float(np.linalg.norm(fitted))
    return None if np.isnan(length) else Plane(-fitted / length, 1 / length)


def _check_boxes(rocks: Sequence[Rock], size: tuple[int, int]) -> None:
    for rock in rocks:
        x, y, width, height = rock.box
        if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
            raise ValueError(
                f'a rock at {x}, {y}, {width}×{height} px, is not in a {size[0]}×{size[1]} image'
            )


def _silhouettes(rocks: Sequence[Rock], intrinsics: Intrinsics) -> tuple[Floats, Floats, Floats]:
    """Returns R×3 rays of the middles, R×2 spans and R radii of discs of equal area, at z = 1."""
    middle = intrinsics.rays(np.array([rock.centroid for rock in rocks]))
    boxes = np.array([rock.box for rock in rocks], np.float64)
    borders = boxes[:, None, :2] - 0.5 + BORDER * boxes[:, None, 2:]
    x, y = np.moveaxis(_directions(borders, intrinsics)[..., :2], 2, 0)
    twice = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
    areas = np.array([rock.area for rock in rocks]) / (boxes[:, 2] * boxes[:, 3])
    radius = np.sqrt(np.abs(twice) / 2 * areas / np.pi)
    return middle, np.column_stack([np.ptp(x, axis=1), np.ptp(y, axis=1)]), radius


def _sample(
    regions: Sequence[tuple[tuple[int, int], NDArray[Any]]],
    depth: NDArray[np.float32] | None,
    count: int = SAMPLES,
) -> tuple[NDArray[np.intp], Floats]:
    """Takes `count` pixels of each region, spread over it, some twice where it has fewer.

    Args:
        regions: x and y of a window's first pixel, and its pixels, not 0 in the region.
        depth: H×W, m, or None.
        count: Of the pixels.

    Returns:
        R×S×2 px, and R×S m, NaN where depth is not known and where the region is empty.
    """
    places = np.zeros((len(regions), count), np.intp)
    filled = np.zeros(len(regions), bool)
    # Off an even step, which would meet few columns of a region as wide as the image.
    order = np.arange(count)
    shares = (order + order * GOLDEN % 1) / count
    for row, (_, region) in enumerate(regions):
        inside = np.flatnonzero(region)
        if len(inside):
            places[row] = inside[(shares * len(inside)).astype(np.intp)]
            filled[row] = True
    width = np.array([max(1, region.shape[1]) for _, region in regions])
    first = np.array([corner for corner, _ in regions])
    v, u = np.divmod(places, width[:, None])
    u, v = u + first[:, :1], v + first[:, 1:]
    depths = np.full(u.shape, np.nan)
    if depth is not None:
        depths[filled] = depth[v[filled], u[filled]]
    depths[~((depths > 0) & (depths < np.inf))] = np.nan
    return np.stack([u, v], axis=-1), depths


def _directions(points: NDArray[Any], intrinsics: Intrinsics) -> Floats:
    """Returns R×S×3 rays of R×S×2 pixels."""
    return intrinsics.rays(points.reshape(-1, 2)).reshape(*points.shape[:2], 3)


def _quantiles(values: Floats, shares: Sequence[float]) -> list[Floats]:
    """Returns quantiles of each row of R×S, leaving NaN out; NaN where there is nothing else."""
    ordered = np.sort(values, axis=1)  # NaN come last
    known = np.count_nonzero(~np.isnan(values), axis=1)
    at = [np.rint(share * np.maximum(known - 1, 0)).astype(np.intp) for share in shares]
    return [np.take_along_axis(ordered, each[:, None], axis=1)[:, 0] for each in at]


def _bounds(depths: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Returns between which R depths each rock is: as deep as it is wide, or as depth is noisy."""
    (middle,) = _quantiles(depths, (0.5,))
    (spread,) = _quantiles(np.abs(depths - middle[:, None]), (0.5,))
    reach = np.maximum(2 * radius * middle, NOISE * spread)
    return middle - reach, middle + reach


def _surface(depths: Floats, radius: Floats) -> tuple[Floats, Floats, Floats]:
    """Finds what of R×S depths is on the rocks.

    Returns:
        R×S depths, NaN where not on the rock; R means of them, NaN where few are known; and R
        shares of the known depths that are on the rock.
    """
    nearest, farthest = _bounds(depths, radius)
    on_rock = (depths >= nearest[:, None]) & (depths <= farthest[:, None])
    known = np.count_nonzero(~np.isnan(depths), axis=1)
    many = np.where(known >= LEAST_SHARE * depths.shape[1], on_rock.sum(axis=1), np.nan)
    mean = np.where(on_rock, depths, 0).sum(axis=1) / many
    return np.where(on_rock, depths, np.nan), mean, many / np.maximum(1, known)


def _standing(rocks: Sequence[Rock], intrinsics: Intrinsics, ground: Plane) -> Floats:
    """Returns R depths (m) of rocks that stand on the ground, NaN where it cannot tell."""
    counts = [len(rock.polygon) for rock in rocks]
    starts = np.cumsum([0, *counts[:-1]])
    polygons = np.concatenate([rock.polygon for rock in rocks])
    closeness = ground.closeness(intrinsics.rays(polygons))
    foot = np.maximum.reduceat(closeness, starts)
    (width, height), (x, y) = intrinsics.size, polygons.T
    lowest = closeness >= np.repeat(foot, counts)
    outside = (x <= 0) | (y <= 0) | (x >= width - 1) | (y >= height - 1)
    cut = np.maximum.reduceat(lowest & outside, starts)
    pixel = np.hypot(*ground.normal[:2]) / ground.offset / intrinsics.matrix[1, 1]
    with np.errstate(divide='ignore'):
        return np.where((foot > HORIZON * pixel) & ~cut, 1 / (foot + pixel / 2), np.nan)


def _height(rays: Floats, depths: Floats, grounds: Floats) -> Floats:
    """Returns how high (m) R rocks rise above the ground, but for the highest 5 % of their points.

    Args:
        rays: R×S×3, z = 1.
        depths: R×S, m.
        grounds: R×3, g with g · ray = 1/z.
    """
    away = depths * (rays @ grounds[..., None])[..., 0]
    (high,) = _quantiles((1 - away) / np.linalg.norm(grounds, axis=1)[:, None], (0.95,))
    return high


def _grounds(
    rocks: Sequence[Rock], radius: Floats, view: View, instances: NDArray[np.uint16] | None
) -> Floats:
    """Returns R×3: the ground around each rock as g with g · ray = 1/z; NaN where not known."""
    known = np.full(3, np.nan)
    if view.ground is not None:
        known = view.ground.normal / -view.ground.offset
    if view.depth is None:
        return np.tile(known, (len(rocks), 1))
    if instances is None:
        instances = draw_instances(rocks, view.depth.shape[:2])
    rock = instances > 0
    near = cv2.dilate(rock.view(np.uint8), np.ones((2 * MOAT + 1, 2 * MOAT + 1), np.uint8))
    regions = []
    for x, y, width, height in (rock.box for rock in rocks):
        margin = RING_LEAST + round(RING * max(width, height))
        left, top = max(0, x - margin), max(0, y - margin)
        window = near[top : y + height + margin, left : x + width + margin]
        regions.append(((left, top), window == 0))
    points, depths = _sample(regions, view.depth)
    rays = _directions(points, view.intrinsics)
    fitted = _fit_planes(rays, depths)
    fitted[_narrowness(rays, ~np.isnan(depths)) < NARROWEST * radius] = np.nan
    return np.where(np.isnan(fitted), known, fitted)


def _narrowness(rays: Floats, there: NDArray[np.bool_]) -> Floats:
    """Returns R standard deviations of the known of R×S rays along their narrowest direction."""
    count = np.maximum(1, there.sum(axis=1))[:, None]
    middle = (rays[..., :2] * there[..., None]).sum(axis=1) / count
    apart = (rays[..., :2] - middle[:, None]) * there[..., None]
    spread = np.linalg.eigvalsh(apart.swapaxes(1, 2) @ apart / count[..., None])[:, 0]
    return np.sqrt(np.maximum(spread, 0))


def _fit_planes(rays: Floats, depths: Floats, least: float = LEAST_SHARE) -> Floats:
    """Fits planes with the least absolute deviation of 1/z (reweighted least squares).

    Args:
        rays: R×S×3, z = 1.
        depths: R×S, m; NaN = not known.
        least: Share of the depths that must be known.

    Returns:
        R×3, g with g · ray = 1/z; NaN where too few depths are known.
    """
    there = ~np.isnan(depths)
    target = np.where(there, 1 / depths, 0)
    tolerance = TOLERANCE * target + np.finfo(np.float64).tiny
    turned = np.ascontiguousarray(rays.swapaxes(1, 2))
    weights = np.ones_like(target)
    for _ in range(FITS):
        weighted = turned * (weights * there)[:, None]
        normal = weighted @ rays + 1e-12 * np.eye(3)
        planes = np.linalg.solve(normal, weighted @ target[..., None])
        weights = tolerance / np.maximum(np.abs(target - (rays @ planes)[..., 0]), tolerance)
    few = np.count_nonzero(there, axis=1) < least * there.shape[1]
    return np.where(few[:, None], np.nan, planes[..., 0])


def motion_between(old: Sight, new: Sight) -> NDArray[np.float32] | None:
    """Says where what is seen in an image is seen in a later one, from depth and poses alone.

    Where depth is not known it counts as the median; nothing is known of what moves by itself.

    Args:
        old: Of the image, with depth.
        new: Of the later one.

    Returns:
        H×W×2 in a grid of `MOTION_STEP` px, x and y to be added, px of the image; None where no
        depth is known.
    """
    assert old.view.depth is not None
    some = slice(MOTION_STEP // 2, None, MOTION_STEP)
    depth = old.view.depth[some, some].astype(np.float64)
    known = (depth > 0) & (depth < np.inf)
    if not known.any():
        return None
    z = np.where(known, depth, np.median(depth[known]))
    places = np.indices(z.shape)[::-1].reshape(2, -1).T * MOTION_STEP + MOTION_STEP // 2
    turn = np.linalg.inv(new.pose) @ old.pose
    points = old.view.intrinsics.rays(places) * z.reshape(-1, 1) @ turn[:3, :3].T + turn[:3, 3]
    points[:, 2] = np.maximum(points[:, 2], LEAST_DEPTH)
    moved = new.view.intrinsics.pixels(points) - places
    return moved.reshape(*z.shape, 2).astype(np.float32)
