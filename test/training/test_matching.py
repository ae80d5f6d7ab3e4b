# SPDX-License-Identifier: Apache-2.0
"""Matching of predicted and true rocks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings, find_rocks
from training.matching import count_rocks, count_rocks_by_tile, rock_labels, true_labels

NOTHING = np.zeros((200, 200), np.int32)
EVERYWHERE = np.ones((200, 200), bool)


def boxes(*places: tuple[int, int, int, int]) -> NDArray[np.int32]:
    """Returns instance ids of boxes with x, y, width and height."""
    labels = NOTHING.copy()
    for number, (x, y, width, height) in enumerate(places, start=1):
        labels[y : y + height, x : x + width] = number
    return labels


def segmentation(mask: NDArray[np.generic]) -> Segmentation:
    ids = mask.astype(np.uint8)
    return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_labels_are_the_connected_components_of_the_rocks() -> None:
    rng = np.random.default_rng(0)
    mask = cv2.GaussianBlur(rng.random((200, 300)), (0, 0), 3) > 0.5
    settings = RockSettings(min_area=20, max_rocks=30, split_touching=False)
    labels = rock_labels(segmentation(mask), settings)
    rocks = find_rocks(segmentation(mask), settings)
    assert len(rocks) == 30
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for rock in rocks:
        own = labels == rock.id
        assert own.sum() == rock.area
        (component,) = np.unique(components[own])
        assert (components == component).sum() == rock.area
    assert labels.max() == 30


def test_labels_of_touching_rocks_are_separated_as_in_the_node() -> None:
    ids = np.zeros((80, 140), np.uint8)
    for x in (30, 68, 106):
        cv2.circle(ids, (x, 40), 20, 1, -1)
    ids[40:52, 48:51] = ids[40:52, 86:89] = 2
    found = Segmentation(ids, np.full_like(ids, 250), (1,), 2)
    for settings in (RockSettings(), RockSettings(split_touching=False)):
        labels = rock_labels(found, settings)
        rocks = find_rocks(found, settings)
        assert [int((labels == rock.id).sum()) for rock in rocks] == [rock.area for rock in rocks]
        assert labels.max() == len(rocks) == (3 if settings.split_touching else 1)


def test_a_rock_inside_the_hole_of_another_has_its_own_label() -> None:
    mask = np.zeros((100, 100), np.uint8)
    cv2.rectangle(mask, (10, 10), (89, 89), 1, 2)
    mask[30:70, 30:70] = 1
    mask[20:22, 20:22] = 1
    labels = rock_labels(segmentation(mask), RockSettings(min_area=50))
    assert (labels == 1).sum() == 40 * 40
    assert (labels == 2).sum() == np.count_nonzero(mask) - 40 * 40 - 4
    assert not labels[20:22, 20:22].any()


def test_true_rocks_are_the_instances_or_else_the_components_of_the_label() -> None:
    classes = np.zeros((50, 50), np.uint8)
    classes[10:30, 10:40] = 1
    instances = np.zeros((50, 50), np.int32)
    instances[10:30, 10:25], instances[10:30, 25:40], instances[40:, :] = 4, 9, 2
    labels = true_labels(classes, instances, (1,))
    assert np.unique(labels).tolist() == [0, 4, 9], 'the class of instance 2 is not rock'
    assert np.unique(true_labels(classes, None, (1,))).tolist() == [0, 1]


def test_identical_rocks_match_and_are_counted_by_size() -> None:
    rocks = boxes((0, 0, 10, 10), (20, 0, 32, 32), (60, 0, 31, 33), (0, 80, 100, 100))
    expected = [[2, 2, 0, 2], [1, 1, 0, 1], [1, 1, 0, 1]]
    np.testing.assert_allclose(count_rocks(rocks, rocks, EVERYWHERE), expected)


def test_a_match_needs_an_iou_of_a_half_and_errors_are_counted() -> None:
    truth = boxes((0, 0, 20, 10), (0, 50, 20, 10), (100, 100, 50, 50))
    found = boxes((0, 0, 10, 10), (0, 50, 9, 10))  # IoU 0.5 and 0.45
    expected = [[2, 1, 1, 0.5], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(count_rocks(truth, found, EVERYWHERE), expected)


def test_a_true_rock_is_matched_only_once() -> None:
    truth = boxes((0, 0, 20, 10))
    found = boxes((0, 0, 10, 10), (10, 0, 10, 10))
    np.testing.assert_allclose(count_rocks(truth, found, EVERYWHERE)[0], [1, 1, 1, 0.5])


def test_true_rocks_below_the_minimum_area_are_not_counted() -> None:
    truth = boxes((0, 0, 7, 7), (50, 50, 7, 7))
    found = boxes((0, 0, 8, 8))
    assert not count_rocks(truth, found, EVERYWHERE).any()
    assert count_rocks(truth, found, EVERYWHERE, min_area=49)[0].tolist()[:3] == [2, 1, 0]


@pytest.mark.parametrize(('ignored', 'false'), [(11, 0), (10, 1), (0, 1)])
def test_predictions_mostly_on_ignored_pixels_are_not_false(ignored: int, false: int) -> None:
    counted = EVERYWHERE.copy()
    counted[:, :ignored] = False
    counts = count_rocks(NOTHING, boxes((0, 0, 20, 10)), counted)
    assert counts[0].tolist() == [0, 0, false, 0]


def test_ignored_pixels_are_not_part_of_rocks() -> None:
    counted = EVERYWHERE.copy()
    counted[:, 10:] = False
    truth, found = boxes((0, 0, 10, 10)), boxes((0, 0, 18, 10))
    np.testing.assert_allclose(count_rocks(truth, found, counted)[0], [1, 1, 0, 1])
    assert count_rocks(truth, found, EVERYWHERE)[0, 3] == pytest.approx(10 / 18)


def test_rocks_are_matched_across_tiles_and_counted_in_the_tile_with_most_pixels() -> None:
    tiles = np.zeros((200, 200), np.intp)
    tiles[:, 100:] = 1
    truth = boxes((95, 0, 20, 10), (0, 50, 20, 10), (150, 50, 20, 10))
    found = boxes((95, 0, 20, 10), (93, 100, 10, 10))
    counts = count_rocks_by_tile(truth, found, EVERYWHERE, tiles, 2)
    assert counts[:, 0].tolist() == [[1, 0, 1, 0], [2, 1, 0, 1]]
    np.testing.assert_allclose(counts.sum(axis=0), count_rocks(truth, found, EVERYWHERE))
