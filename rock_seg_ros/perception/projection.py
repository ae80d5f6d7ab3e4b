# SPDX-License-Identifier: Apache-2.0
"""Pixels ↔ metres: where rocks are and how big, from depth or from where the ground is.

Everything is in REP 103's optical frame: x right, y down, z forward, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.rocks import Rock

MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant')
PRECISE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-7)
LEAST_SHARE = 0.3  # of a rock's pixels that must have depth
CORE = 0.3  # of the mask's greatest depth in px; what is less deep may be something else
HORIZON = 10.0  # px below it that a foot must be: there one pixel more is a tenth of the range
BULGE = 0.5  # radii that the middle of a rock's visible surface lies behind its foot
RING = 0.5  # of a rock's box that is looked at around it for the ground
RING_POINTS = 12  # across and down, of the ring and the rock in it
LEAST_RING = 12  # points that a plane needs
FITS = 8

# Around a box's border, in widths and heights.
BORDER = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intrinsics:
    """A camera's lens, as sensor_msgs/CameraInfo tells it.

    Attributes:
        matrix: K, 3×3 float64, px; whole numbers are pixel centres.
        distortion: D, as many coefficients as the model has; empty = none.
        model: 'plumb_bob', 'rational_polynomial' or 'equidistant'; '' where there is no distortion.
        size: Width and height of the pictures, px.
    """

    matrix: Floats
    distortion: Floats
    model: str = 'plumb_bob'
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Refuses with ValueError what is no camera, such as a camera_info of zeros."""
        if self.matrix.shape != (3, 3) or not np.isfinite(self.matrix).all():
            raise ValueError('the camera matrix must be 3×3 finite numbers')
        if self.matrix[0, 0] <= 0 or self.matrix[1, 1] <= 0:
            focal = f'{self.matrix[0, 0]:g}, {self.matrix[1, 1]:g}'
            raise ValueError(f'the focal lengths must be above 0, not {focal}')
        if not np.isfinite(self.distortion).all():
            raise ValueError('the distortion coefficients must be finite numbers')
        if self.model not in MODELS and (self.model or self.distortion.any()):
            raise ValueError(
                f'the distortion model must be one of {", ".join(MODELS)}, not {self.model!r}'
            )
        counts = (0, 4) if self.model == 'equidistant' else (0, 4, 5, 8, 12, 14)
        if self.distortion.size not in counts:
            raise ValueError(
                f'{self.model} cannot have {self.distortion.size} distortion coefficients'
            )

    def rays(self, points: NDArray[np.floating]) -> Floats:
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
        roll: About the optical axis, rad; above 0 the horizon rises towards the picture's left.

    Raises:
        ValueError: The height is not above 0, or an angle is no number.
    """
    if not height > 0 or not np.isfinite([height, tilt, roll]).all():
        raise ValueError(f'no ground with height {height:g} m, tilt {tilt:g}, roll {roll:g} rad')
    level = np.cos(tilt)
    return Plane(np.array([-np.sin(roll) * level, -np.cos(roll) * level, -np.sin(tilt)]), height)


@dataclass(frozen=True)
class View:
    """What tells metres in one picture.

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
        """Refuses depth of another size than the pictures with ValueError."""
        width, height = self.intrinsics.size
        if self.depth is not None and self.depth.shape != (height, width):
            there = '×'.join(map(str, self.depth.shape[::-1]))
            raise ValueError(f'the depth is {there}, the picture {width}×{height}')


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


def locate(rocks: Sequence[Rock], view: View) -> list[Place]:
    """Says where rocks are and how big.

    Args:
        rocks: Of one picture.
        view: Of the same picture.

    Returns:
        A place for each rock, in their order.
    """
    return [_placed(rock, view) for rock in rocks]


def _placed(rock: Rock, view: View) -> Place:
    z = np.nan
    if view.depth is not None:
        x, y, width, height = rock.box
        depths = view.depth[y : y + height, x : x + width][rock.mask > 0]
        depths = depths[(depths > 0) & (depths < np.inf)]
        if len(depths) >= LEAST_SHARE * rock.area:
            z = float(np.median(depths))
    box = np.array(rock.box, np.float64)
    rays = view.intrinsics.rays(box[:2] - 0.5 + BORDER * box[2:])[:, :2]
    rolled = np.roll(rays, -1, axis=0)
    area = abs(rays[:, 0] @ rolled[:, 1] - rays[:, 1] @ rolled[:, 0]) / 2
    solid = area * rock.area / (box[2] * box[3])
    position = z * view.intrinsics.rays(np.array(rock.centroid))[0]
    across, up = (z * np.ptp(rays, axis=0)).tolist()
    return Place(
        tuple(position.tolist()),
        (across, up, np.nan),
        float(z * np.sqrt(solid * 4 / np.pi)),
        np.nan,
        float(np.linalg.norm(position)),
    )


def surface_points(rocks: Sequence[Rock], view: View, step: int) -> NDArray[np.float32]:
    """Returns N×3 points on the rocks' surfaces, every `step`-th pixel both ways that has depth."""
    pixels, depths = [np.zeros((0, 2))], [np.zeros(0)]
    for rock in rocks if view.depth is not None else ():
        x, y, width, height = rock.box
        v, u = np.nonzero(rock.mask[::step, ::step])
        pixels.append(np.column_stack([x + step * u, y + step * v]))
        depths.append(view.depth[y : y + height : step, x : x + width : step][v, u])  # type: ignore
    z = np.concatenate(depths)
    known = (z > 0) & (z < np.inf)
    points = view.intrinsics.rays(np.concatenate(pixels)[known]) * z[known, None]
    return points.astype(np.float32)


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
