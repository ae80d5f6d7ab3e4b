# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training.sources.choosing import evenly


@pytest.mark.parametrize(
    ('count', 'most', 'chosen'),
    [
        (9, 3, [0, 4, 8]),
        (5, 2, [0, 4]),
        (5, 1, [0]),
        (3, 3, [0, 1, 2]),
        (3, 9, [0, 1, 2]),
        (0, 3, []),
        (3, 0, []),
    ],
)
def test_so_many_are_chosen_from_the_first_to_the_last(
    count: int, most: int, chosen: list[int]
) -> None:
    assert evenly(range(count), most) == chosen
