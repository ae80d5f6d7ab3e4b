# SPDX-License-Identifier: Apache-2.0
"""The field's own statistics: how much of the ground rocks cover, and how many there are of a size.

Golombek and Rapp (1997, doi:10.1029/96JE03319): rocks of at least the diameter D (m) cover the
share F(D) = k exp(−q(k) D) of the ground, with q(k) = 1.79 + 0.152 / k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.ground import fit_ground
from rock_seg_ros.perception.geometry.location import Place
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.instances.rocks import Rock

Floats = NDArray[np.float64]

# Lower limits of the size classes, each √2 times the one before, m.
SIZES = 0.01 * 2 ** (np.arange(19) / 2)
ABUNDANCES = np.geomspace(0.001, 0.999, 2000)  # k that are tried
STEP = 4  # px, of the grid on which the ground is summed


@dataclass(frozen=True)
class Observation:
    """What one image shows of the ground, or several do combine.

    Attributes:
        images: How many.
        pixels: Of them all.
        rock_pixels: Of them on rocks.
        ground: Area seen within reach, rocks included, m²; NaN where it is not known.
        diameters: Of each rock within reach, m.
        smallest: Diameter of the smallest rock that would be told everywhere within reach, m.
        in_view: Rocks that are not known to be beyond reach, with metres or without.
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
    """How many rocks of which size there are.

    Attributes:
        images: That this is of.
        rocks: Within reach, and with metres; where the ground is not known all that are not known
            to be beyond reach.
        ground: Area seen, m²; NaN where it is not known, as all below are then.
        pixel_share: Share of the pixels that is rock.
        abundance: Share of the ground that rocks cover.
        sizes: Lower limits of the size classes, m.
        covered: For each, the share of the ground that rocks of at least this diameter cover.
        numbers: For each, the number of such rocks on a square metre.
        smallest: Smaller rocks are told only where they are near; the fit leaves them out, m.
        k: Of Golombek and Rapp's law; NaN without rocks to fit it to.
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
        """Returns what JSON can hold: None where something is not known."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def observe(
    rocks: Sequence[Rock],
    places: Sequence[Place],
    shape: tuple[int, int],
    view: View | None,
    reach: float = 10.0,
    min_area: int = 50,
) -> Observation:
    """Takes in what one image shows.

    A rock's diameter is here its width across the image, which a slanting view does not shorten;
    the ground it covers is the disc of that diameter. The ground seen is a plane fitted to all
    depth that is no rock, else the known one; what rises from it hides nothing of it.

    Args:
        rocks: In the image.
        places: Of these rocks.
        shape: Height and width of the image, px.
        view: What tells metres in it; None = nothing does.
        reach: Only ground and rocks no farther from the camera count, m.
        min_area: Smallest rock that would be told, px.
    """
    height, width = shape
    plane = None if view is None else fit_ground(rocks, view) or view.ground
    near = [place.extent[0] for place in places if place.distance <= reach]
    far = sum(place.distance > reach for place in places)
    focal = np.nan if view is None else view.intrinsics.matrix[0, 0]
    return Observation(
        images=1,
        pixels=height * width,
        rock_pixels=sum(rock.area for rock in rocks),
        ground=np.nan if view is None or plane is None else _ground_area(view, plane, reach),
        diameters=np.array(near, np.float64),
        smallest=float(2 * np.sqrt(min_area / np.pi) * reach / focal),
        in_view=len(rocks) - far,
    )


def _ground_area(view: View, plane: Plane, reach: float) -> float:
    """Returns the area (m²) of a plane that is seen no farther from the camera than `reach`."""
    width, height = view.intrinsics.size
    across, down = max(1, width // STEP), max(1, height // STEP)
    edges = np.meshgrid(np.linspace(0, width, across + 1), np.linspace(0, height, down + 1))
    rays = view.intrinsics.rays(np.stack(edges, axis=-1).reshape(-1, 2) - 0.5)
    _, first, second = np.linalg.svd(plane.normal[None])[2]  # two directions along the plane
    level = np.stack([rays @ first, rays @ second], axis=-1)
    steepness = -(rays @ plane.normal) / plane.offset
    farthest = np.sqrt(max(0.0, reach**2 - plane.offset**2))
    # What is farther away, and the sky, is drawn in to the rim of what is within reach.
    limit = np.maximum(np.linalg.norm(level, axis=1) / max(farthest, 1e-9), 1e-9)
    grid = (level / np.maximum(steepness, limit)[:, None]).reshape(down + 1, across + 1, 2)
    falling = steepness.reshape(down + 1, across + 1)
    shows = np.maximum(falling[1:], falling[:-1])
    shows = np.maximum(shows[:, 1:], shows[:, :-1]) > 0  # a corner below the horizon
    one, other = grid[1:, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, 1:]
    twice = np.abs(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])
    return float(twice[shows].sum() / 2)


def combine(seen: Sequence[Observation]) -> Observation:
    """Adds up what images show; what two of them show counts twice, as rock and as ground.

    Images without metres add pixels only.

    Args:
        seen: At least one.
    """
    metric = [each for each in seen if np.isfinite(each.ground)]
    return Observation(
        images=sum(each.images for each in seen),
        pixels=sum(each.pixels for each in seen),
        rock_pixels=sum(each.rock_pixels for each in seen),
        ground=sum(each.ground for each in metric) if metric else np.nan,
        diameters=np.concatenate([np.zeros(0), *(each.diameters for each in metric)]),
        smallest=max((each.smallest for each in metric), default=np.nan),
        in_view=sum(each.in_view for each in seen),
    )


def compute_abundance(seen: Observation) -> Abundance:
    """Says how much of the ground rocks cover, by size, and fits the law to it."""
    ground = seen.ground if seen.ground > 0 else np.nan
    diameters = np.sort(seen.diameters)[::-1]
    covered = np.concatenate([[0], np.cumsum(np.pi / 4 * diameters**2)]) / ground
    larger = np.searchsorted(-diameters, -SIZES, side='right')
    share = covered[larger]
    return Abundance(
        images=seen.images,
        rocks=seen.in_view if np.isnan(seen.ground) else len(diameters),
        ground=ground,
        pixel_share=seen.rock_pixels / max(1, seen.pixels),
        abundance=float(covered[-1]),
        sizes=tuple(SIZES.tolist()),
        covered=tuple(share.tolist()),
        numbers=tuple((larger / ground).tolist()),
        smallest=seen.smallest,
        k=fit_abundance(SIZES, share, seen.smallest),
    )


def cumulative_coverage(diameters: Floats, abundance: Floats | float) -> Floats:
    """Returns the share of the ground that rocks of at least these diameters (m) cover, by law."""
    return abundance * np.exp(-(1.79 + 0.152 / np.asarray(abundance)) * diameters)


def fit_abundance(sizes: Floats, covered: Floats, smallest: float = 0.0) -> float:
    """Fits k to the share of the ground that rocks cover, with the least squares of that share.

    The share's squares and not its logarithm's: the largest sizes are told by single rocks.

    Args:
        sizes: S diameters, m.
        covered: S, the share of the ground that rocks of at least this diameter cover.
        smallest: Smaller sizes are left out, m.

    Returns:
        k from 0.001 to 0.999; NaN where nothing is covered or known.
    """
    known = (sizes >= smallest) & (covered > 0)
    if not known.any():
        return np.nan
    missed = cumulative_coverage(sizes[known], ABUNDANCES[:, None]) - covered[known]
    return float(ABUNDANCES[(missed**2).sum(axis=1).argmin()])
