# SPDX-License-Identifier: Apache-2.0
"""Ground planes from depth: one of a whole image, or one around each rock."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.depth_samples import MIN_SHARE, sample, sample_rays
from rock_seg_ros.perception.geometry.intrinsics import Floats
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.instances.rocks import Rock, draw_instances

IMAGE_SAMPLES = 4096  # pixels for the plane of a whole image
IMAGE_MIN_SHARE = 0.05  # share of them that must have depth
RING = 0.5  # width of the ring around a rock, in longer sides of its box
MIN_RING = 6  # width that is added to it, px
MOAT = 2  # px around rocks that are left out, since depth mixes rock and ground there
MIN_SPREAD = 0.1  # standard deviation that the ring must have across, in radii of the rock
ITERATIONS = 6  # of the reweighted least squares
TOLERANCE = 1e-3  # relative deviation of 1/z below which all points have the same weight


def fit_ground(
    rocks: Sequence[Rock], view: View, valid_mask: NDArray[np.uint8] | None = None
) -> Plane | None:
    """Fits one plane to the depth of all pixels that are not rock.

    Args:
        rocks: Rocks of the image.
        view: View of the image.
        valid_mask: H×W, 0 where pixels are ignored; None = nowhere.

    Returns:
        The plane; None if too little depth is known.
    """
    if view.depth is None:
        return None
    free = draw_instances(rocks, view.depth.shape[:2]) == 0
    if valid_mask is not None:
        free &= valid_mask > 0
    points, depths = sample([((0, 0), free)], view.depth, IMAGE_SAMPLES)
    fitted = _fit_planes(sample_rays(points, view.intrinsics), depths, IMAGE_MIN_SHARE)[0]
    length = float(np.linalg.norm(fitted))
    return None if np.isnan(length) else Plane(-fitted / length, 1 / length)


def ground_around(
    rocks: Sequence[Rock], radius: Floats, view: View, instances: NDArray[np.uint16] | None
) -> Floats:
    """Fits a plane to the depth of a ring of ground around each rock.

    Args:
        rocks: R rocks of the image.
        radius: R radii of the rocks at z = 1.
        view: View of the image. Its ground is used where no plane can be fitted.
        instances: H×W rocks as drawn by `draw_instances`; None = draw them if needed.

    Returns:
        R×3 planes g with g · ray = 1/z; NaN where the ground is unknown.
    """
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
        margin = MIN_RING + round(RING * max(width, height))
        left, top = max(0, x - margin), max(0, y - margin)
        window = near[top : y + height + margin, left : x + width + margin]
        regions.append(((left, top), window == 0))
    points, depths = sample(regions, view.depth)
    rays = sample_rays(points, view.intrinsics)
    fitted = _fit_planes(rays, depths)
    fitted[_smallest_spread(rays, ~np.isnan(depths)) < MIN_SPREAD * radius] = np.nan
    return np.where(np.isnan(fitted), known, fitted)


def _smallest_spread(rays: Floats, known: NDArray[np.bool_]) -> Floats:
    """Returns R standard deviations of the known rays along their narrowest direction."""
    count = np.maximum(1, known.sum(axis=1))[:, None]
    mean = (rays[..., :2] * known[..., None]).sum(axis=1) / count
    offsets = (rays[..., :2] - mean[:, None]) * known[..., None]
    spread = np.linalg.eigvalsh(offsets.swapaxes(1, 2) @ offsets / count[..., None])[:, 0]
    return np.sqrt(np.maximum(spread, 0))


def _fit_planes(rays: Floats, depths: Floats, min_share: float = MIN_SHARE) -> Floats:
    """Fits planes with the least absolute deviation of 1/z, by reweighted least squares.

    Args:
        rays: R×S×3, z = 1.
        depths: R×S, m; NaN = unknown.
        min_share: Share of the depths that must be known.

    Returns:
        R×3 planes g with g · ray = 1/z; NaN where too few depths are known.
    """
    known = ~np.isnan(depths)
    target = np.where(known, 1 / depths, 0)
    tolerance = TOLERANCE * target + np.finfo(np.float64).tiny
    transposed = np.ascontiguousarray(rays.swapaxes(1, 2))
    weights = np.ones_like(target)
    for _ in range(ITERATIONS):
        weighted = transposed * (weights * known)[:, None]
        normal = weighted @ rays
        size = 1 + np.trace(normal, axis1=1, axis2=2)
        normal += 1e-12 * size[:, None, None] * np.eye(3)
        planes = np.linalg.solve(normal, weighted @ target[..., None])
        weights = tolerance / np.maximum(np.abs(target - (rays @ planes)[..., 0]), tolerance)
    few = np.count_nonzero(known, axis=1) < min_share * known.shape[1]
    return np.where(few[:, None], np.nan, planes[..., 0])
