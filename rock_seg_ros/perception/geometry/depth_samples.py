# SPDX-License-Identifier: Apache-2.0
"""Samples of a depth image: S pixels in each of R regions, for all rocks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.intrinsics import Floats, Intrinsics

SAMPLES = 96  # pixels per region
MIN_SHARE = 0.3  # share of the samples that must have depth
GOLDEN = (5**0.5 - 1) / 2


def sample(
    regions: Sequence[tuple[tuple[int, int], NDArray[Any]]],
    depth: NDArray[np.float32] | None,
    count: int = SAMPLES,
) -> tuple[NDArray[np.intp], Floats]:
    """Samples pixels that are spread over each region.

    Args:
        regions: x and y of the first pixel of a window, and the window, nonzero in the region.
        depth: H×W depth image, m; None = unknown.
        count: Samples per region. Pixels of smaller regions are repeated.

    Returns:
        R×S×2 pixels and R×S depths, m; NaN where depth is unknown and in empty regions.
    """
    chosen = np.zeros((len(regions), count), np.intp)
    filled = np.zeros(len(regions), bool)
    # The steps are uneven: with even ones, only a few columns of a wide region would be sampled.
    order = np.arange(count)
    shares = (order + order * GOLDEN % 1) / count
    for row, (_, region) in enumerate(regions):
        inside = np.flatnonzero(region)
        if len(inside):
            chosen[row] = inside[(shares * len(inside)).astype(np.intp)]
            filled[row] = True
    width = np.array([max(1, region.shape[1]) for _, region in regions])
    first = np.array([corner for corner, _ in regions])
    v, u = np.divmod(chosen, width[:, None])
    u, v = u + first[:, :1], v + first[:, 1:]
    depths = np.full(u.shape, np.nan)
    if depth is not None:
        depths[filled] = depth[v[filled], u[filled]]
    depths[~((depths > 0) & (depths < np.inf))] = np.nan
    return np.stack([u, v], axis=-1), depths


def sample_rays(points: NDArray[Any], intrinsics: Intrinsics) -> Floats:
    """Returns the R×S×3 rays (z = 1) of R×S×2 pixels."""
    return intrinsics.rays(points.reshape(-1, 2)).reshape(*points.shape[:2], 3)


def quantiles(values: Floats, shares: Sequence[float]) -> list[Floats]:
    """Returns quantiles of each row of R×S values without NaN; NaN for rows of NaN."""
    ordered = np.sort(values, axis=1)  # NaN come last
    known = np.count_nonzero(~np.isnan(values), axis=1)
    at = [np.rint(share * np.maximum(known - 1, 0)).astype(np.intp) for share in shares]
    return [np.take_along_axis(ordered, each[:, None], axis=1)[:, 0] for each in at]
