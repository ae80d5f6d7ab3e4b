# SPDX-License-Identifier: Apache-2.0
"""Touching rocks are separated along rims or by their shape; single rocks are not split."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.instances.splitting import CELLS, split_by_rims, split_by_shape

PLACES = [(30, 40), (68, 40), (106, 40)]
RADIUS = 20


def heap() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns rock and rims of three overlapping discs; the rims cover only the lower half."""
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
    """Returns the rock without the cuts."""
    masks = (where.astype(np.uint8) * np.uint8(255) for where in (rock, rim))
    left = split_by_rims(*masks, confidence, smallest)
    assert set(np.unique(left)) <= {0, 255}
    return left > 0


def parts(rock: NDArray[np.bool_]) -> int:
    """Returns the number of connected parts of more than a few pixels."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(rock.astype(np.uint8), connectivity=8)
    return int((stats[1:, cv2.CC_STAT_AREA] > 4).sum())


def uniform_confidence(rock: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.full(rock.shape, 250, np.uint8)


def test_a_partial_rim_separates_rocks_completely() -> None:
    rock, rim = heap()
    assert parts(rock) == 1
    left = cut(rock, rim, uniform_confidence(rock), smallest=50)
    assert parts(left) == 3
    numbers = cv2.connectedComponents(left.astype(np.uint8))[1]
    assert len({numbers[y, x] for x, y in PLACES}) == 3


@pytest.mark.parametrize('times', [2, 4, 5])
def test_separation_does_not_depend_on_the_image_size_and_cuts_stay_thin(times: int) -> None:
    shape = CELLS * times - 1, CELLS * times + 3  # not a multiple of the cell size
    rock, rim = np.zeros((2, *shape), bool)
    for whole, where in zip((rock, rim), heap(), strict=True):
        enlarged = np.repeat(np.repeat(where, times, axis=0), times, axis=1)
        whole[-len(enlarged) :, 1 : enlarged.shape[1] + 1] = enlarged
    left = cut(rock, rim, uniform_confidence(rock), smallest=50 * times**2)
    assert parts(left) == 3
    numbers = cv2.connectedComponents(left.astype(np.uint8))[1]
    middles = [numbers[times * (y - 80), times * x] for x, y in PLACES]
    assert len({0, *middles}) == 4
    assert 0 < (rock & ~left).sum() < 60 * times


def test_a_cut_removes_few_pixels_and_adds_none() -> None:
    rock, rim = heap()
    left = cut(rock, rim, uniform_confidence(rock), smallest=50)
    assert not (left & ~rock).any()
    assert (rock & ~left).sum() < 0.05 * rock.sum()


def test_without_rims_rocks_are_not_separated() -> None:
    rock, rim = heap()
    rock |= rim
    np.testing.assert_array_equal(
        cut(rock, np.zeros_like(rock), uniform_confidence(rock), 50), rock
    )


def test_a_few_rim_pixels_do_not_separate_rocks() -> None:
    rock, rim = heap()
    rock |= rim
    speck = np.zeros_like(rock)
    speck[40, 49:53] = True
    np.testing.assert_array_equal(
        cut(rock & ~speck, speck, uniform_confidence(rock), 50), rock & ~speck
    )


def test_a_band_of_low_confidence_separates_rocks_with_rims() -> None:
    rock = np.zeros((60, 120), bool)
    rock[10:50, 10:110] = True
    confidence = np.full(rock.shape, 250, np.uint8)
    confidence[:, 56:64] = 140
    rim = np.zeros_like(rock)
    rim[10:14, 20:32] = True  # not at the low confidence; it only marks touching rocks
    assert parts(cut(rock & ~rim, rim, confidence, smallest=50)) == 2
    assert parts(cut(rock & ~rim, rim, uniform_confidence(rock), smallest=50)) == 1


def test_a_part_below_the_minimum_area_is_not_separated() -> None:
    rock, rim = heap()
    assert parts(cut(rock, rim, uniform_confidence(rock), smallest=5000)) == 1


def test_a_rock_without_rims_next_to_touching_rocks_is_not_cut() -> None:
    rock, rim = heap()
    rock[70:78, 4:30] = True
    left = cut(rock, rim, uniform_confidence(rock), smallest=50)
    np.testing.assert_array_equal(left[66:], rock[66:])


@pytest.mark.parametrize(('wanted', 'count'), [(True, 3), (False, 1)])
def test_split_touching_sets_whether_touching_rocks_are_separated(wanted: bool, count: int) -> None:
    rock, rim = heap()
    ids = (rock + 2 * rim).astype(np.uint8)
    settings = RockSettings(split_touching=wanted)
    assert len(find_rocks(Segmentation(ids, uniform_confidence(rock), (1,), 2), settings)) == count
    assert len(find_rocks(Segmentation(ids, uniform_confidence(rock), (1,)), settings)) == count, (
        'by their shape'
    )


def test_rim_pixels_belong_to_the_nearest_rock_and_to_the_mask() -> None:
    rock, rim = heap()
    rim[2:5, 2:5] = True  # far from rocks
    ids = (rock + 2 * rim).astype(np.uint8)
    found = Segmentation(ids, uniform_confidence(rock), (1,), 2)
    rocks = find_rocks(found, RockSettings())
    numbers = draw_instances(rocks, ids.shape)
    rim[2:5, 2:5] = False
    lost = (rock | rim) & (numbers == 0)
    assert lost.sum() < 5, 'but for specks at the end of a cut'
    np.testing.assert_array_equal((numbers > 0) | lost, rock | rim)
    assert [r.area for r in rocks] == np.bincount(numbers.ravel())[1:].tolist()
    assert found.mask()[rim].all()
    for number, one in enumerate(rocks, start=1):
        ys, xs = np.nonzero(numbers == number)
        assert one.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert one.centroid == pytest.approx((xs.mean(), ys.mean()))
        assert one.polygon.min(axis=0).tolist() == [xs.min(), ys.min()]


def test_a_wide_rim_is_assigned_to_rocks_only_near_them() -> None:
    ids = np.zeros((60, 80), np.uint8)
    ids[20:40, 10:30], ids[20:40, 30:50], ids[20:40, 50:70] = 1, 2, 1
    rocks = find_rocks(Segmentation(ids, uniform_confidence(ids > 0), (1,), 2), RockSettings())
    assert [one.area for one in rocks] == [20 * 23, 20 * 23]


def drawn(name: str) -> NDArray[np.uint8]:
    """Returns the mask of a single rock in an image of 240×320 px."""
    rock = np.zeros((240, 320), np.uint8)
    if name == 'disc':
        cv2.circle(rock, (160, 120), 60, 255, -1)
    elif name == 'bar':
        cv2.line(rock, (40, 60), (280, 180), 255, 30)
    elif name == 'wedge':
        cv2.fillPoly(rock, [np.array([[20, 110], [300, 60], [300, 180], [20, 130]])], 255)
    elif name == 'corner':
        cv2.polylines(rock, [np.array([[60, 40], [60, 200], [260, 200]])], False, 255, 40)
    elif name == 'crescent':
        cv2.circle(rock, (160, 120), 90, 255, -1)
        cv2.circle(rock, (200, 100), 70, 0, -1)
    elif name == 'notched':
        cv2.ellipse(rock, (160, 120), (130, 80), 10, 0, 360, 255, -1)
        cv2.circle(rock, (160, 20), 60, 0, -1)
    elif name == 'ring':
        cv2.circle(rock, (160, 120), 80, 255, 30)
    elif name == 'all':
        rock[:] = 255
    return rock


@pytest.mark.parametrize(
    'name', ['disc', 'bar', 'wedge', 'corner', 'crescent', 'notched', 'ring', 'all', 'none']
)
def test_a_single_rock_of_any_shape_is_not_split(name: str) -> None:
    rock = drawn(name)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 12, rock.shape).astype(np.float32), (0, 0), 2)
    distance = cv2.distanceTransform(rock, cv2.DIST_L2, 5)
    smooth = 255 * np.clip(0.55 + 0.1 * distance, 0, 0.95)  # lower at the edge, as of networks
    confidence = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(split_by_shape(rock, confidence), rock)


@pytest.mark.parametrize(('radius', 'gap'), [(40, 78), (40, 79), (30, 69), (20, 60)])
def test_touching_discs_are_separated_at_their_neck(radius: int, gap: int) -> None:
    rock = np.zeros((240, 320), np.uint8)
    cv2.circle(rock, (100, 120), 40, 255, -1)
    cv2.circle(rock, (100 + gap, 120), radius, 255, -1)
    left = split_by_shape(rock, uniform_confidence(rock > 0))
    assert parts(left) == 2
    _, columns = np.nonzero(rock != left)
    neck = (gap**2 + 40**2 - radius**2) / (2 * gap)
    assert np.abs(columns - 100 - neck).max() <= 4


def test_a_band_of_low_confidence_separates_rocks_without_rims() -> None:
    rock = np.zeros((60, 120), bool)
    rock[10:50, 10:110] = True
    confidence = uniform_confidence(rock)
    whole = rock.astype(np.uint8) * np.uint8(255)
    assert parts(split_by_shape(whole, confidence)) == 1
    confidence[:, 56:64] = 160
    left = split_by_shape(whole, confidence)
    assert parts(left) == 2
    assert 56 <= np.nonzero(whole != left)[1].min() <= np.nonzero(whole != left)[1].max() <= 64


def test_pixels_of_cuts_belong_to_the_separated_rocks() -> None:
    rock, rim = heap()
    ids = (rock | rim).astype(np.uint8)
    ids[40:52, 47:52] = ids[40:52, 85:90] = 0
    rocks = find_rocks(Segmentation(ids, uniform_confidence(rock), (1,)), RockSettings())
    assert len(rocks) == 3
    lost = np.count_nonzero(ids) - np.count_nonzero(draw_instances(rocks, ids.shape))
    assert 0 <= lost < 5, 'but for specks beyond a cut'


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (2, 3), (7, 1), (40, 3)])
def test_tiny_images_are_not_split_by_shape(shape: tuple[int, int]) -> None:
    rock = np.full(shape, 255, np.uint8)
    np.testing.assert_array_equal(split_by_shape(rock, rock), rock)


def test_rims_of_one_group_of_rocks_do_not_cut_another_group() -> None:
    rock, rim = np.zeros((2, 60, 120), bool)
    rock[40:52, 5:105] = True
    rock[20:37, 75:110] = True  # as near to the end of the bar as the maximum of the bar is
    rim[44:48, 8:12], rim[28:30, 90:94] = True, True
    rock &= ~rim
    confidence = uniform_confidence(rock)
    confidence[40:52, 50:] = 140
    left = cut(rock, rim, confidence, smallest=50)
    np.testing.assert_array_equal(left[40:], rock[40:])


def test_a_thin_rock_is_not_cut_by_its_rim() -> None:
    rock, rim = heap()
    thin = np.zeros_like(rock)
    thin[70, 4:40] = True
    rims = rim.copy()
    rims[70, 20:22], thin[70, 20:22] = True, False
    left = cut(rock | thin, rims, uniform_confidence(rock), smallest=50)
    np.testing.assert_array_equal(left[66:], (rock | thin)[66:])
    assert parts(left[:66]) == 3


@pytest.mark.parametrize('shape', [(1, 1), (1, 9), (2, 3), (7, 1)])
def test_tiny_images_are_split_by_rims_without_an_error(shape: tuple[int, int]) -> None:
    rim = np.zeros(shape, bool)
    rim[0, 0] = True
    left = cut(~rim, rim, uniform_confidence(rim), 1)
    assert left.shape == shape
    assert not (left & rim).any()


def test_an_image_without_rock_is_split_without_an_error() -> None:
    nothing = np.zeros((20, 30), bool)
    assert not cut(nothing, nothing, uniform_confidence(nothing), 50).any()
    assert not cut(nothing, ~nothing, uniform_confidence(nothing), 50).any()
