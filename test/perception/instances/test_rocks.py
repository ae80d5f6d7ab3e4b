# SPDX-License-Identifier: Apache-2.0
"""Rocks found in class ids: area, bounding box, centroid, score, polygon, mask and order."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import (
    Rock,
    RockSettings,
    draw_instances,
    find_rocks,
    simplify_contour,
)

ALL = RockSettings(min_area=1, split_touching=False)


def rocks_of(
    class_ids: NDArray[np.uint8], settings: RockSettings = ALL, rock_ids: tuple[int, ...] = (1,)
) -> list[Rock]:
    confidence = np.full_like(class_ids, 204)
    return find_rocks(Segmentation(class_ids, confidence, rock_ids), settings)


def signed_area(polygon: NDArray[np.float32]) -> float:
    """Returns the area by the shoelace formula; positive = clockwise in the image."""
    x, y = polygon.astype(np.float64).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def plain_rocks(class_ids: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> list[Rock]:
    """Finds each rock of class 1 in the whole image; a slow and simple reference."""
    _, labels = cv2.connectedComponents((class_ids == 1).astype(np.uint8), connectivity=8)
    rocks = []
    for label in range(1, int(labels.max()) + 1):
        own = labels == label
        ys, xs = np.nonzero(own)
        box = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        outline, _ = cv2.findContours(
            own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        polygon = simplify_contour(outline[0], 1.0)
        score = confidence[own].mean() / 255
        x, y, width, height = box
        mask = own[y : y + height, x : x + width].astype(np.uint8)
        rocks.append(Rock(0, 1, score, len(xs), box, (xs.mean(), ys.mean()), polygon, mask))
    return rocks


def blobs(seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((60, 80)), (0, 0), 3)
    return (noise > np.quantile(noise, 0.7)).astype(np.uint8)


def test_a_rectangle_has_its_measures() -> None:
    ids = np.zeros((40, 50), np.uint8)
    ids[10:20, 5:35] = 1
    (rock,) = rocks_of(ids)
    assert (rock.id, rock.class_id, rock.area, rock.box) == (1, 1, 300, (5, 10, 30, 10))
    assert rock.score == pytest.approx(0.8)
    assert rock.centroid == pytest.approx((19.5, 14.5))
    assert rock.polygon.dtype == np.float32
    assert sorted(map(tuple, rock.polygon)) == [(5, 10), (5, 19), (34, 10), (34, 19)]


def test_the_score_is_the_mean_confidence_of_the_pixels_of_the_rock() -> None:
    ids = np.zeros((9, 9), np.uint8)
    ids[2:4, 2] = 1
    confidence = np.full((9, 9), 10, np.uint8)
    confidence[2, 2], confidence[3, 2] = 255, 153
    (rock,) = find_rocks(Segmentation(ids, confidence, (1,)), ALL)
    assert rock.score == pytest.approx(0.8)


def test_the_score_excludes_pixels_of_other_classes_in_the_bounding_box() -> None:
    ids = np.zeros((30, 30), np.uint8)
    ids[5:25, 5:9] = ids[21:25, 5:25] = 1  # an L with a rock of another class in its bounding box
    ids[8:18, 12:22] = 3
    confidence = np.where(ids == 3, 51, np.where(ids == 1, 204, 255)).astype(np.uint8)
    found = find_rocks(Segmentation(ids, confidence, (1, 3), rim_id=2), ALL)
    assert {rock.class_id: round(rock.score, 3) for rock in found} == {1: 0.8, 3: 0.2}


@pytest.mark.parametrize('share', [0.2, 0.4, 0.6, 0.9])
@pytest.mark.parametrize('softness', [0.0, 0.7, 2.0])
def test_rocks_in_noise_are_measured_like_each_rock_alone(share: float, softness: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    noise = rng.random((47, 61))
    if softness:
        noise = cv2.GaussianBlur(noise, (0, 0), softness)
    ids = (noise > np.quantile(noise, 1 - share)).astype(np.uint8)
    confidence = rng.integers(0, 256, ids.shape, np.uint8)
    settings = RockSettings(1, 10_000, split_touching=False)
    found = find_rocks(Segmentation(ids, confidence, (1,)), settings)
    plain = plain_rocks(ids, confidence)
    assert len(found) == len(plain) > 0
    found.sort(key=lambda r: (r.box, r.area))
    plain.sort(key=lambda r: (r.box, r.area))
    for one, other in zip(found, plain, strict=True):
        assert (one.box, one.area) == (other.box, other.area)
        assert one.centroid == pytest.approx(other.centroid)
        assert one.score == pytest.approx(other.score)
        np.testing.assert_allclose(one.polygon, other.polygon, atol=1e-4)
        np.testing.assert_array_equal(one.mask > 0, other.mask > 0)


@pytest.mark.parametrize('seed', range(5))
def test_polygons_are_clockwise_in_the_image(seed: int) -> None:
    found = rocks_of(blobs(seed), RockSettings(min_area=10))
    assert len(found) > 3
    assert all(signed_area(rock.polygon) > 0 for rock in found)


@pytest.mark.parametrize('tolerance', [0.0, 1.0, 3.0])
@pytest.mark.parametrize('seed', range(4))
def test_a_polygon_covers_its_rock_within_the_tolerance(seed: int, tolerance: float) -> None:
    ids = blobs(seed)
    _, labels = cv2.connectedComponents(ids, connectivity=8)
    for rock in rocks_of(ids, RockSettings(min_area=20, polygon_tolerance=tolerance)):
        filled = np.zeros_like(ids)
        cv2.fillPoly(filled, [np.rint(rock.polygon).astype(np.int32)], 1)
        away = cv2.distanceTransform(1 - filled, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert away[own_pixels(labels, rock)].max() <= tolerance + 0.75


def own_pixels(labels: NDArray[np.int32], rock: Rock) -> NDArray[np.bool_]:
    for label in range(1, int(labels.max()) + 1):
        ys, xs = np.nonzero(labels == label)
        if len(ys) == rock.area and (xs.min(), ys.min()) == rock.box[:2]:
            return labels == label
    raise AssertionError(f'no component is {rock}')


def test_a_larger_tolerance_gives_fewer_vertices() -> None:
    ids = blobs(0)
    fine, coarse = (
        sum(len(r.polygon) for r in rocks_of(ids, RockSettings(20, polygon_tolerance=t)))
        for t in (0.0, 3.0)
    )
    assert coarse < fine / 2


@pytest.fixture
def ring_and_stone() -> list[Rock]:
    """A square ring with a small square in its hole."""
    ids = np.zeros((30, 30), np.uint8)
    ids[2:28, 2:28] = 1
    ids[8:22, 8:22] = 0
    ids[13:17, 13:17] = 1
    return rocks_of(ids)


def test_a_rock_in_the_hole_of_another_is_a_separate_rock(ring_and_stone: list[Rock]) -> None:
    ring, stone = ring_and_stone
    assert (ring.area, stone.area) == (26 * 26 - 14 * 14, 16)
    assert ring.box == (2, 2, 26, 26)
    assert sorted(map(tuple, ring.polygon)) == [(2, 2), (2, 27), (27, 2), (27, 27)]


def test_diagonally_connected_pixels_are_one_rock() -> None:
    ids = np.eye(12, dtype=np.uint8)
    (rock,) = rocks_of(ids)
    assert rock.area == 12
    assert abs(signed_area(rock.polygon)) < 20, 'a thin rock has a thin polygon'
    assert signed_area(rock.polygon) > 0


@pytest.mark.parametrize(
    ('box', 'corners'),
    [
        ((4, 3, 1, 1), {(3.5, 2.5), (4.5, 2.5), (4.5, 3.5), (3.5, 3.5)}),
        ((4, 3, 6, 1), {(3.5, 2.5), (9.5, 2.5), (9.5, 3.5), (3.5, 3.5)}),
        ((4, 3, 1, 5), {(3.5, 2.5), (4.5, 2.5), (4.5, 7.5), (3.5, 7.5)}),
    ],
)
def test_the_polygon_of_a_rock_one_pixel_wide_is_the_border_of_its_pixels(
    box: tuple[int, int, int, int], corners: set[tuple[float, float]]
) -> None:
    x, y, width, height = box
    ids = np.zeros((12, 14), np.uint8)
    ids[y : y + height, x : x + width] = 1
    (rock,) = rocks_of(ids)
    assert rock.box == box
    assert set(map(tuple, rock.polygon.tolist())) == corners
    assert signed_area(rock.polygon) == pytest.approx(width * height)


def test_rocks_are_sorted_by_area_and_limited_in_number_and_minimum_area() -> None:
    ids = np.zeros((20, 60), np.uint8)
    for number, side in enumerate((3, 9, 5, 7)):
        ids[2 : 2 + side, 15 * number : 15 * number + side] = 1
    assert [r.area for r in rocks_of(ids)] == [81, 49, 25, 9]
    assert [(r.id, r.area) for r in rocks_of(ids, RockSettings(1, 2))] == [(1, 81), (2, 49)]
    assert [r.area for r in rocks_of(ids, RockSettings(25))] == [81, 49, 25]
    assert [r.area for r in rocks_of(ids, RockSettings(26))] == [81, 49]


def test_touching_rocks_of_two_classes_are_separate() -> None:
    ids = np.zeros((10, 20), np.uint8)
    ids[2:8, 2:8] = 2
    ids[2:8, 8:18] = 5
    found = rocks_of(ids, rock_ids=(2, 5))
    assert [(r.id, r.class_id, r.area) for r in found] == [(1, 5, 60), (2, 2, 36)]


def test_rocks_of_two_classes_share_no_pixel_of_the_rim_between_them() -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[10:30, 10:28], ids[10:30, 28:30], ids[10:30, 30:50] = 1, 2, 3
    segmentation = Segmentation(ids, np.full_like(ids, 250), (1, 3), rim_id=2)
    rocks = find_rocks(segmentation, RockSettings(min_area=1))
    assert sum(rock.area for rock in rocks) == 20 * 40
    assert np.count_nonzero(draw_instances(rocks, ids.shape)) == 20 * 40


@pytest.mark.parametrize('right', [1, 3])
def test_without_separation_rim_joins_the_rocks_that_it_touches(right: int) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[10:30, 10:28], ids[10:30, 28:30], ids[10:30, 30:50] = 1, 2, right
    ids[35:38, 5:15] = 2  # rim without a rock beside it
    rock_ids = tuple(sorted({1, right}))
    segmentation = Segmentation(ids, np.full_like(ids, 250), rock_ids, rim_id=2)
    rocks = find_rocks(segmentation, RockSettings(min_area=1, split_touching=False))
    assert sorted(rock.area for rock in rocks) == ([800] if right == 1 else [400, 400])
    assert np.count_nonzero(draw_instances(rocks, ids.shape)) == 800


def test_an_image_without_rock_has_no_rocks_and_an_image_full_of_rock_has_one() -> None:
    assert rocks_of(np.zeros((8, 9), np.uint8)) == []
    (rock,) = rocks_of(np.ones((8, 9), np.uint8))
    assert (rock.area, rock.box) == (72, (0, 0, 9, 8))


def test_instances_are_drawn_with_their_position_in_the_sequence() -> None:
    ids = blobs(3)
    ids[20:40, 30:50] = 0
    ids[28:32, 38:42] = 1
    found = rocks_of(ids)
    assert len(found) > 3
    numbers = draw_instances(found[::-1], ids.shape)
    assert (numbers.dtype, numbers.shape) == (np.uint16, ids.shape)
    np.testing.assert_array_equal(numbers > 0, ids > 0)
    _, labels = cv2.connectedComponents(ids, connectivity=8)
    for number, rock in enumerate(found[::-1], start=1):
        np.testing.assert_array_equal(numbers == number, own_pixels(labels, rock))


def test_the_mask_of_a_rock_excludes_other_rocks_in_its_bounding_box(
    ring_and_stone: list[Rock],
) -> None:
    ring, stone = ring_and_stone
    assert [np.count_nonzero(rock.mask) for rock in (ring, stone)] == [ring.area, stone.area]
    assert (ring.mask.shape, stone.mask.shape) == ((26, 26), (4, 4))
    assert not ring.mask[6:20, 6:20].any()


def test_without_rocks_the_instances_are_empty() -> None:
    assert not draw_instances([], (4, 5)).any()
