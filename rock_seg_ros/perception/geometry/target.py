# SPDX-License-Identifier: Apache-2.0
"""Selection of the rock that is suited best for a drill or an instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rock_seg_ros.perception.geometry.location import Location
from rock_seg_ros.perception.instances.rocks import Rock


@dataclass(frozen=True)
class TargetLimits:
    """The limits for a target rock.

    Attributes:
        min_diameter: Minimum diameter, m.
        max_diameter: Maximum diameter, m.
        min_distance: Minimum distance from the camera, m.
        max_distance: Maximum distance from the camera, m.
        min_score: Minimum score, 0 to 1.
    """

    min_diameter: float = 0.05
    max_diameter: float = 0.5
    min_distance: float = 0.3
    max_distance: float = 5.0
    min_score: float = 0.7


def choose_target(
    rocks: Sequence[Rock],
    locations: Sequence[Location],
    shape: tuple[int, int],
    limits: TargetLimits,
    previous_id: int | None = None,
) -> int | None:
    """Selects the previous target while it is suited, otherwise the nearest suited rock.

    A rock is suited if its diameter, distance and score are within the limits and it does not touch
    the border of the image, where a part of it may be out of view. Rocks without metres are not
    suited.

    Args:
        rocks: The rocks in one image.
        locations: Position and size of these rocks.
        shape: Height and width of the image, px.
        limits: The limits.
        previous_id: Id of the previous target; None = none.

    Returns:
        The index of the rock; None if no rock is suited.
    """
    suited = [
        row
        for row, (rock, location) in enumerate(zip(rocks, locations, strict=True))
        if _fits(location, limits) and rock.score >= limits.min_score and _whole(rock, shape)
    ]
    return min(
        suited,
        key=lambda row: (rocks[row].id != previous_id, locations[row].distance),
        default=None,
    )


def _fits(location: Location, limits: TargetLimits) -> bool:
    """Returns whether diameter and distance are within the limits; NaN is not."""
    return (
        limits.min_diameter <= location.diameter <= limits.max_diameter
        and limits.min_distance <= location.distance <= limits.max_distance
    )


def _whole(rock: Rock, shape: tuple[int, int]) -> bool:
    """Returns whether a rock does not touch the border of the image."""
    x, y, width, height = rock.box
    return x > 0 and y > 0 and x + width < shape[1] and y + height < shape[0]
