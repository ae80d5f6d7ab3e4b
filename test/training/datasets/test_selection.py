# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training.datasets.selection import evenly_spaced, join_first


@pytest.mark.parametrize(
    ('count', 'max_count', 'selected'),
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
def test_items_are_evenly_spaced_from_the_first_to_the_last(
    count: int, max_count: int, selected: list[int]
) -> None:
    assert evenly_spaced(range(count), max_count) == selected


def test_three_items_are_listed_and_the_others_counted() -> None:
    assert join_first([]) == ''
    assert join_first([1, 2, 3]) == '1, 2, 3'
    assert join_first('abcdefg', '; ') == 'a; b; c; and 4 more'
    assert join_first(range(10**9)) == '0, 1, 2, and 999999997 more'
    assert join_first('abcdefg', most=6) == 'a, b, c, d, e, f, and 1 more'
