# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training.datasets.selection import evenly_spaced, join_first


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
    assert evenly_spaced(range(count), most) == chosen


def test_of_many_things_three_are_named_and_the_others_counted() -> None:
    assert join_first([]) == ''
    assert join_first([1, 2, 3]) == '1, 2, 3'
    assert join_first('abcdefg', '; ') == 'a; b; c; and 4 more'
    assert join_first(range(10**9)) == '0, 1, 2, and 999999997 more'
    assert join_first('abcdefg', most=6) == 'a, b, c, d, e, f, and 1 more'
