# SPDX-License-Identifier: Apache-2.0
"""The rock best suited to a drill or an instrument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rock_seg_ros.perception.geometry.location import Place
from rock_seg_ros.perception.instances.rocks import Rock


@dataclass(frozen=True)
class TargetRule:
    """Which rocks are suited.

    Attributes:
        min_diameter: Smallest, m.
        max_diameter: Largest, m.
        min_distance: Nearest, m from the camera.
        max_distance: Farthest, m.
        min_score: Least mean confidence, 0 to 1.
    """

    min_diameter: float = 0.05
    max_diameter: float = 0.5
    min_distance: float = 0.3
    max_distance: float = 5.0
    min_score: float = 0.7


def choose_target(
    rocks: Sequence[Rock],
    places: Sequence[Place],
    shape: tuple[int, int],
    rule: TargetRule,
    before: int | None = None,
) -> int | None:
    """Chooses a rock: the one chosen before while it is suited, else the nearest suited one.

    A rock is suited if its diameter, distance and score are within the rule and it does not touch
    the image's border, where part of it may be out of sight. Without metres none is.

    Args:
        rocks: Of one image.
        places: Of these rocks.
        shape: Height and width of the image, px.
        rule: Which rocks are suited.
        before: Id of the rock that was chosen last; None = none.

    Returns:
        The rock's row, None where none is suited.
    """
    suited = [
        row
        for row, (rock, place) in enumerate(zip(rocks, places, strict=True))
        if _fits(place, rule) and rock.score >= rule.min_score and _whole(rock, shape)
    ]
    return min(
        suited, key=lambda row: (rocks[row].id != before, places[row].distance), default=None
    )


def _fits(place: Place, rule: TargetRule) -> bool:
    """Tells whether size and distance are within the rule; NaN never is."""
    return (
        rule.min_diameter <= place.diameter <= rule.max_diameter
        and rule.min_distance <= place.distance <= rule.max_distance
    )


def _whole(rock: Rock, shape: tuple[int, int]) -> bool:
    """Tells whether a rock keeps away from the image's border."""
    x, y, width, height = rock.box
    return x > 0 and y > 0 and x + width < shape[1] and y + height < shape[0]
