# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from rock_seg_ros.perception.geometry.pairing import NS, Pairing


@pytest.fixture
def pairing() -> Pairing[str]:
    """Items at 10.0, 10.1 and 10.2 s."""
    pairing: Pairing[str] = Pairing()
    for tenth in (100, 101, 102):
        pairing.put(tenth * NS // 10, str(tenth))
    return pairing


@pytest.mark.parametrize(
    ('seconds', 'item'), [(10.0, '100'), (10.04, '100'), (10.06, '101'), (10.23, '102')]
)
def test_the_item_nearest_in_time_is_found(
    pairing: Pairing[str], seconds: float, item: str
) -> None:
    assert pairing.nearest(int(seconds * NS), tolerance=0.05) == item


def test_an_item_exactly_at_the_tolerance_is_found(pairing: Pairing[str]) -> None:
    assert pairing.nearest(10 * NS - NS // 20, tolerance=0.05) == '100'
    assert pairing.nearest(10 * NS - NS // 20 - 1, tolerance=0.05) is None


def test_of_two_equally_near_items_the_newer_is_found(pairing: Pairing[str]) -> None:
    assert pairing.nearest(1005 * NS // 100, tolerance=0.05) == '101'


def test_without_items_nothing_is_found() -> None:
    assert Pairing[str]().nearest(0, tolerance=1e9) is None


def test_stamps_since_1970_are_compared_to_the_nanosecond() -> None:
    pairing: Pairing[str] = Pairing()
    pairing.put(1_700_000_000 * NS + 1, 'late')
    pairing.put(1_700_000_000 * NS, 'exact')
    assert pairing.nearest(1_700_000_000 * NS, tolerance=0.0) == 'exact'


def test_the_oldest_item_is_discarded_beyond_the_maximum() -> None:
    pairing: Pairing[int] = Pairing(max_items=2)
    for second in range(3):
        pairing.put(second * NS, second)
    assert pairing.nearest(0, tolerance=0.5) is None
    assert pairing.nearest(NS, tolerance=0.5) == 1


def test_items_of_the_last_two_held_stamps_are_not_discarded() -> None:
    pairing: Pairing[int] = Pairing(max_items=3)
    for stamp in range(50):
        if stamp % 10 == 2:
            pairing.hold(stamp * NS)
        pairing.put(stamp * NS, stamp)
    assert [pairing.nearest(stamp * NS, tolerance=0.1) for stamp in (22, 32, 42)] == [None, 32, 42]
    assert pairing.nearest(49 * NS, tolerance=0.1) == 49


def test_a_stamp_far_in_the_past_discards_all_items(pairing: Pairing[str]) -> None:
    pairing.put(9 * NS, 'again')
    assert pairing.nearest(102 * NS // 10, tolerance=0.05) is None
    assert pairing.nearest(9 * NS, tolerance=0.05) == 'again'


def test_a_stamp_less_than_a_second_in_the_past_discards_nothing(pairing: Pairing[str]) -> None:
    pairing.put(95 * NS // 10, 'late')
    assert pairing.nearest(102 * NS // 10, tolerance=0.05) == '102'
    assert pairing.nearest(95 * NS // 10, tolerance=0.05) == 'late'


def test_pairing_is_thread_safe() -> None:
    pairing: Pairing[int] = Pairing(max_items=1000)

    def put() -> None:
        for stamp in range(20_000):
            pairing.put(stamp, stamp)

    with ThreadPoolExecutor() as pool:
        putting = pool.submit(put)
        while not putting.done():
            pairing.nearest(0, tolerance=1.0)
        putting.result()
    assert pairing.nearest(20_000, tolerance=1e-9) == 19_999
