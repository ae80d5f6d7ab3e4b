# SPDX-License-Identifier: Apache-2.0
"""Rock abundance: the share of the ground that rocks cover, and their number, by size.

Golombek and Rapp (1997, doi:10.1029/96JE03319): rocks with a diameter of at least D (m) cover the
share F(D) = k exp(−q(k) D) of the ground, with q(k) = 1.79 + 0.152 / k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.ground import fit_ground
from rock_seg_ros.perception.geometry.location import Location
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.instances.rocks import Rock

Floats = NDArray[np.float64]

# Lower limits of the size classes, m. Each is √2 times the one before.
SIZES = 0.01 * 2 ** (np.arange(19) / 2)
ABUNDANCES = np.geomspace(0.001, 0.999, 2000)  # values of k from which the fit selects
MAX_DISTANCE = 10.0  # default distance up to which ground and rocks count, m
STEP = 8  # grid on which the area of the ground is summed, px


@dataclass(frozen=True)
class Observation:
    """The ground and the rocks in one image, or in several images together.

    Only ground and rocks up to a maximum distance from the camera count.

    Attributes:
        images: Number of images.
        pixels: Number of pixels.
        rock_pixels: Number of pixels that are rock.
        ground: Area of the ground in view, including rocks, m²; NaN = unknown.
        diameters: Diameters of the rocks, m.
        smallest: Diameter of the smallest rock that is reported at the maximum distance, m.
        in_view: Number of rocks, including those whose distance is unknown.
    """

    images: int
    pixels: int
    rock_pixels: int
    ground: float
    diameters: Floats
    smallest: float
    in_view: int = 0


@dataclass(frozen=True)
class Abundance:
    """The rock abundance by size. Values that need the area of the ground are NaN without it.

    Attributes:
        images: Number of images.
        rocks: Number of rocks with metres; without the area of the ground, number of all rocks.
        ground: Area of the ground in view, m².
        pixel_share: Share of the pixels that are rock.
        abundance: Share of the ground that rocks cover.
        sizes: Lower limits of the size classes, m.
        covered: Per size, the share of the ground that rocks of at least this diameter cover.
        numbers: Per size, the number of such rocks per square metre.
        smallest: Minimum diameter for the fit, m. Smaller rocks are reported only if they are near.
        k: Parameter of the model of Golombek and Rapp; NaN if there are no rocks to fit it to.
    """

    images: int
    rocks: int
    ground: float
    pixel_share: float
    abundance: float
    sizes: tuple[float, ...]
    covered: tuple[float, ...]
    numbers: tuple[float, ...]
    smallest: float
    k: float

    def to_dict(self) -> dict[str, Any]:
        """Returns values for JSON, with None for NaN."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def observe(
    rocks: Sequence[Rock],
    locations: Sequence[Location],
    shape: tuple[int, int],
    view: View | None,
    max_distance: float = MAX_DISTANCE,
    min_area: int = 50,
    valid_mask: NDArray[np.uint8] | None = None,
) -> Observation:
    """Measures the ground and the rocks in one image.

    The diameter of a rock is its width in the image, which an oblique view does not shorten. The
    rock covers the disc of that diameter. The ground is a plane that is fitted to the depth of all
    pixels that are not rock, or otherwise the known ground plane. Occlusion of the ground by rocks
    is neglected.

    Args:
        rocks: The rocks in the image.
        locations: Position and size of these rocks.
        shape: Height and width of the image, px.
        view: View of the image; None = unknown.
        max_distance: Maximum distance of ground and rocks from the camera, m.
        min_area: Minimum area of the reported rocks, px.
        valid_mask: H×W, 0 where pixels are ignored; None = nowhere.
    """
    height, width = shape
    ground = np.nan
    if view is not None and (plane := fit_ground(rocks, view, valid_mask) or view.ground):
        ground = _ground_area(view, plane, max_distance, valid_mask)
    near = [location.extent[0] for location in locations if location.distance <= max_distance]
    far = sum(location.distance > max_distance for location in locations)
    focal = np.nan if view is None else view.intrinsics.matrix[0, 0]
    return Observation(
        images=1,
        pixels=height * width,
        rock_pixels=sum(rock.area for rock in rocks),
        ground=ground,
        diameters=np.array(near, np.float64),
        smallest=float(2 * np.sqrt(min_area / np.pi) * max_distance / focal),
        in_view=len(rocks) - far,
    )


def _ground_area(
    view: View, plane: Plane, max_distance: float, valid_mask: NDArray[np.uint8] | None
) -> float:
    """Returns the area (m²) of a plane that is in view within `max_distance` (m) of the camera."""
    width, height = view.intrinsics.size
    across, down = max(1, width // STEP), max(1, height // STEP)
    edges = np.meshgrid(np.linspace(0, width, across + 1), np.linspace(0, height, down + 1))
    pixels = np.stack(edges, axis=-1).reshape(-1, 2) - 0.5
    rays = view.intrinsics.rays(pixels)
    # Rays of pixels outside the image circle of a fisheye lens, or 90° off its axis, are wrong.
    valid = np.abs(view.intrinsics.pixels(rays) - pixels).max(axis=1) < 1
    _, first, second = np.linalg.svd(plane.normal[None])[2]  # two directions along the plane
    level = np.stack([rays @ first, rays @ second], axis=-1)
    steepness = -(rays @ plane.normal) / plane.offset
    farthest = np.sqrt(max(0.0, max_distance**2 - plane.offset**2))
    # Points that are farther away, or in the sky, are moved to the maximum distance.
    limit = np.maximum(np.linalg.norm(level, axis=1) / max(farthest, 1e-9), 1e-9)
    grid = (level / np.maximum(steepness, limit)[:, None]).reshape(down + 1, across + 1, 2)
    falling = steepness.reshape(down + 1, across + 1)
    shows = np.maximum(falling[1:], falling[:-1])
    shows = np.maximum(shows[:, 1:], shows[:, :-1]) > 0  # a corner below the horizon
    valid = valid.reshape(falling.shape)
    valid = valid[1:] & valid[:-1]
    shows &= valid[:, 1:] & valid[:, :-1]
    if valid_mask is not None:
        rows, columns = (
            (2 * np.arange(count) + 1) * side // (2 * count)
            for count, side in ((down, height), (across, width))
        )
        shows &= valid_mask[np.ix_(rows, columns)] > 0
    one, other = grid[1:, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, 1:]
    twice = np.abs(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])
    return float(twice[shows].sum() / 2)


def combine(observed: Sequence[Observation]) -> Observation:
    """Combines observations. Ground and rocks that are in two images count twice.

    Only the pixels and the number of rocks are used of images without metres.

    Args:
        observed: One or more observations.
    """
    metric = [each for each in observed if np.isfinite(each.ground)]
    return Observation(
        images=sum(each.images for each in observed),
        pixels=sum(each.pixels for each in observed),
        rock_pixels=sum(each.rock_pixels for each in observed),
        ground=sum(each.ground for each in metric) if metric else np.nan,
        diameters=np.concatenate([np.zeros(0), *(each.diameters for each in metric)]),
        smallest=max((each.smallest for each in metric), default=np.nan),
        in_view=sum(each.in_view for each in observed),
    )


def compute_abundance(observed: Observation) -> Abundance:
    """Computes the rock abundance by size, and fits the model of Golombek and Rapp to it."""
    ground = observed.ground if observed.ground > 0 else np.nan
    diameters = np.sort(observed.diameters)[::-1]
    covered = np.concatenate([[0], np.cumsum(np.pi / 4 * diameters**2)]) / ground
    larger = np.searchsorted(-diameters, -SIZES, side='right')
    share = covered[larger]
    return Abundance(
        images=observed.images,
        rocks=observed.in_view if np.isnan(observed.ground) else len(diameters),
        ground=ground,
        pixel_share=observed.rock_pixels / max(1, observed.pixels),
        abundance=float(covered[-1]),
        sizes=tuple(SIZES.tolist()),
        covered=tuple(share.tolist()),
        numbers=tuple((larger / ground).tolist()),
        smallest=observed.smallest,
        k=fit_abundance(SIZES, share, observed.smallest),
    )


def cumulative_coverage(diameters: Floats, abundance: Floats | float) -> Floats:
    """Returns the modelled share of the ground that rocks of at least these diameters (m) cover."""
    return abundance * np.exp(-(1.79 + 0.152 / np.asarray(abundance)) * diameters)


def fit_abundance(sizes: Floats, covered: Floats, smallest: float = 0.0) -> float:
    """Fits k to the share of the ground that rocks cover, by least squares of that share.

    The logarithm of the share is not used, because the largest sizes have only single rocks.

    Args:
        sizes: S diameters, m.
        covered: S shares of the ground that rocks of at least this diameter cover.
        smallest: Minimum diameter of the sizes that are fitted, m.

    Returns:
        k from 0.001 to 0.999; NaN if no share is above 0 and known.
    """
    known = (sizes >= smallest) & (covered > 0)
    if not known.any():
        return np.nan
    errors = cumulative_coverage(sizes[known], ABUNDANCES[:, None]) - covered[known]
    return float(ABUNDANCES[(errors**2).sum(axis=1).argmin()])
