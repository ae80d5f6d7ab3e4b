# SPDX-License-Identifier: Apache-2.0
"""Rocks that touch are cut apart where the network saw rims, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.rocks import RockSettings, find_rocks
from rock_seg_ros.perception.segmenter import Segmentation
from rock_seg_ros.perception.splitting import CELLS, cut_apart

PLACES = [(30, 40), (68, 40), (106, 40)]
RADIUS = 20


def heap() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Three discs in a row that overlap, with half a rim (the lower one) between them."""
    mask = np.zeros((80, 140), np.uint8)
    for place in PLACES:
        cv2.circle(mask, place, RADIUS, 1, -1)
    rim = np.zeros_like(mask)
    for x in (49, 87):
        rim[40:52, x - 1 : x + 2] = 1
    return (mask > 0) & (rim == 0), (mask > 0) & (rim > 0)


def cut(
    rock: NDArray[np.bool_], rim: NDArray[np.bool_], confidence: NDArray[np.uint8], smallest: int
) -> NDArray[np.bool_]:
    """What is left of the rock."""
    masks = (where.astype(np.uint8) * np.uint8(255) for where in (rock, rim))
    left = cut_apart(*masks, confidence, smallest)
    assert set(np.unique(left)) <= {0, 255}
    return left > 0


def parts(rock: NDArray[np.bool_]) -> int:
    return cv2.connectedComponents(rock.astype(np.uint8), connectivity=8)[0] - 1


def sure(rock: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.full(rock.shape, 250, np.uint8)


def test_half_a_rim_cuts_rocks_apart_all_the_way() -> None:
    rock, rim = heap()
    assert parts(rock) == 1
    left = cut(rock, rim, sure(rock), smallest=50)
    assert parts(left) == 3
    numbers = cv2.connectedComponents(left.astype(np.uint8))[1]
    assert len({numbers[y, x] for x, y in PLACES}) == 3


@pytest.mark.parametrize('times', [2, 4, 5])
def test_a_heap_in_a_picture_of_more_pixels_is_cut_alike_and_the_cuts_stay_thin(times: int) -> None:
    shape = CELLS * times - 1, CELLS * times + 3  # no whole number of cells
    rock, rim = np.zeros((2, *shape), bool)
    for whole, where in zip((rock, rim), heap(), strict=True):
        enlarged = np.repeat(np.repeat(where, times, axis=0), times, axis=1)
        whole[-len(enlarged) :, 1 : enlarged.shape[1] + 1] = enlarged
    left = cut(rock, rim, sure(rock), smallest=50 * times**2)
    assert parts(left) == 3
    numbers = cv2.connectedComponents(left.astype(np.uint8))[1]
    middles = [numbers[times * (y - 80), times * x] for x, y in PLACES]
    assert len({0, *middles}) == 4
    assert 0 < (rock & ~left).sum() < 60 * times


def test_a_cut_takes_few_pixels_and_adds_none() -> None:
    rock, rim = heap()
    left = cut(rock, rim, sure(rock), smallest=50)
    assert not (left & ~rock).any()
    assert (rock & ~left).sum() < 0.05 * rock.sum()


def test_without_rims_nothing_is_cut() -> None:
    rock, rim = heap()
    rock |= rim
    np.testing.assert_array_equal(cut(rock, np.zeros_like(rock), sure(rock), 50), rock)


def test_a_speck_of_rim_makes_no_heap() -> None:
    rock, rim = heap()
    rock |= rim
    speck = np.zeros_like(rock)
    speck[40, 49:53] = True
    np.testing.assert_array_equal(cut(rock & ~speck, speck, sure(rock), 50), rock & ~speck)


def test_a_valley_of_confidence_cuts_a_heap_too() -> None:
    rock = np.zeros((60, 120), bool)
    rock[10:50, 10:110] = True
    confidence = np.full(rock.shape, 250, np.uint8)
    confidence[:, 56:64] = 140
    rim = np.zeros_like(rock)
    rim[10:14, 20:32] = True  # elsewhere: it only tells that this is a heap
    assert parts(cut(rock & ~rim, rim, confidence, smallest=50)) == 2
    assert parts(cut(rock & ~rim, rim, sure(rock), smallest=50)) == 1


def test_a_hill_that_is_too_small_is_no_rock_of_its_own() -> None:
    rock, rim = heap()
    assert parts(cut(rock, rim, sure(rock), smallest=5000)) == 1


def test_another_rock_beside_a_heap_is_left_whole() -> None:
    rock, rim = heap()
    rock[70:78, 4:30] = True
    left = cut(rock, rim, sure(rock), smallest=50)
    np.testing.assert_array_equal(left[66:], rock[66:])


@pytest.mark.parametrize(('wanted', 'count'), [(True, 3), (False, 1)])
def test_rocks_are_found_apart_if_wanted(wanted: bool, count: int) -> None:
    rock, rim = heap()
    ids = (rock + 2 * rim).astype(np.uint8)
    settings = RockSettings(split_touching=wanted)
    assert len(find_rocks(Segmentation(ids, sure(rock), (1,), 2), settings)) == count
    assert len(find_rocks(Segmentation(ids, sure(rock), (1,)), settings)) == 1


def test_heaps_do_not_cut_each_other() -> None:
    rock, rim = np.zeros((2, 60, 120), bool)
    rock[40:52, 5:105] = True
    rock[20:37, 75:110] = True  # as near to the bar's end as the bar's own top is far
    rim[44:48, 8:12], rim[28:30, 90:94] = True, True
    rock &= ~rim
    confidence = sure(rock)
    confidence[40:52, 50:] = 140
    left = cut(rock, rim, confidence, smallest=50)
    np.testing.assert_array_equal(left[40:], rock[40:])


def test_a_heap_without_a_top_is_left_as_it_is() -> None:
    rock, rim = heap()
    thin = np.zeros_like(rock)
    thin[70, 4:40] = True
    rims = rim.copy()
    rims[70, 20:22], thin[70, 20:22] = True, False
    left = cut(rock | thin, rims, sure(rock), smallest=50)
    np.testing.assert_array_equal(left[66:], (rock | thin)[66:])
    assert parts(left[:66]) == 3


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (2, 3), (7, 1)])
def test_the_smallest_pictures_are_no_trouble(shape: tuple[int, int]) -> None:
    rim = np.zeros(shape, bool)
    rim[0, 0] = True
    left = cut(~rim, rim, sure(rim), 1)
    assert left.shape == shape
    assert not (left & rim).any()


def test_no_rock_at_all_is_no_trouble() -> None:
    nothing = np.zeros((20, 30), bool)
    assert not cut(nothing, nothing, sure(nothing), 50).any()
    assert not cut(nothing, ~nothing, sure(nothing), 50).any()
