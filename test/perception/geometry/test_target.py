# SPDX-License-Identifier: Apache-2.0
"""The target is the nearest suitable rock, and is kept while it is suitable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rock_seg_ros.perception.geometry.location import Location
from rock_seg_ros.perception.geometry.target import TargetLimits, choose_target
from rock_seg_ros.perception.instances.rocks import Rock

SHAPE = (100, 200)
LIMITS = TargetLimits(0.1, 0.5, 0.5, 4.0, 0.7)
MASK = np.ones((20, 20), np.uint8)
CORNERS = np.array([(50, 50), (69, 50), (69, 69), (50, 69)], np.float32)


def rock(
    number: int, box: tuple[int, int, int, int] = (50, 50, 20, 20), score: float = 0.9
) -> Rock:
    return Rock(number, 1, score, 400, box, (59.5, 59.5), CORNERS, MASK)


def location(distance: float, diameter: float = 0.2) -> Location:
    return Location((0.0, 0.0, distance), (0.2, 0.2, 0.1), diameter, 0.1, distance)


def test_the_nearest_suitable_rock_is_the_target() -> None:
    rocks = [rock(number) for number in (7, 8, 9, 10)]
    locations = [location(3.0), location(0.4), location(2.0), location(2.5)]
    assert choose_target(rocks, locations, SHAPE, LIMITS, previous_id=None) == 2


@pytest.mark.parametrize(
    ('box', 'suited'),
    [
        ((1, 1, 20, 20), True),
        ((179, 79, 20, 20), True),
        ((0, 50, 20, 20), False),
        ((50, 0, 20, 20), False),
        ((180, 50, 20, 20), False),
        ((50, 80, 20, 20), False),
    ],
)
def test_a_rock_at_the_image_border_is_never_the_target(
    box: tuple[int, int, int, int], suited: bool
) -> None:
    found = choose_target([rock(1, box)], [location(1.0)], SHAPE, LIMITS, previous_id=1)
    assert found == (0 if suited else None)


@pytest.mark.parametrize(
    'wrong',
    [location(0.49), location(4.01), location(1.0, 0.09), location(1.0, 0.51), Location.unknown()],
)
def test_a_rock_beyond_the_limits_or_without_metres_is_never_the_target(
    wrong: Location,
) -> None:
    assert choose_target([rock(1)], [wrong], SHAPE, LIMITS, previous_id=1) is None
    assert (
        choose_target([rock(1), rock(2)], [wrong, location(4.0)], SHAPE, LIMITS, previous_id=1) == 1
    )


def test_a_rock_with_a_low_score_is_never_the_target() -> None:
    assert (
        choose_target([rock(1, score=0.69)], [location(1.0)], SHAPE, LIMITS, previous_id=1) is None
    )
    assert (
        choose_target([rock(1, score=0.7)], [location(1.0)], SHAPE, LIMITS, previous_id=None) == 0
    )


def test_a_suitable_target_is_kept_although_another_rock_is_nearer() -> None:
    rocks, locations = [rock(3), rock(5)], [location(1.0), location(3.9)]
    assert choose_target(rocks, locations, SHAPE, LIMITS, previous_id=5) == 1
    farther = [locations[0], replace(locations[1], distance=4.1)]
    assert choose_target(rocks, farther, SHAPE, LIMITS, previous_id=5) == 0


def test_the_nearest_rock_replaces_a_target_that_is_out_of_view() -> None:
    rocks, locations = [rock(3), rock(4)], [location(2.0), location(1.0)]
    assert choose_target(rocks, locations, SHAPE, LIMITS, previous_id=5) == 1


def test_without_rocks_there_is_no_target() -> None:
    assert choose_target([], [], SHAPE, LIMITS, previous_id=1) is None


def test_a_minimum_diameter_above_the_maximum_gives_no_target() -> None:
    nothing = replace(LIMITS, min_diameter=0.6)
    assert choose_target([rock(1)], [location(1.0)], SHAPE, nothing, previous_id=None) is None
