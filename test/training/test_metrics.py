# SPDX-License-Identifier: Apache-2.0
"""The metrics agree with torchmetrics and with expected values."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import BinaryCalibrationError

from rock_seg_ros.perception.inference.segmentation import Segmentation
from training.metrics import (
    Counts,
    bootstrap,
    boundary_overlap,
    compare,
    count,
    count_windows,
    figures,
    rock_metrics,
    stack,
    summarize,
    weighted_sum,
    windows,
)


def image(seed: int, rocks: int = 4) -> tuple[NDArray[np.uint8], Segmentation]:
    """Returns a label with ignored pixels, and imperfect predictions."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((90, 120), np.uint8)
    for _ in range(rocks):
        centre = (int(rng.integers(20, 100)), int(rng.integers(20, 70)))
        cv2.circle(classes, centre, int(rng.integers(6, 15)), 1, -1)
    blurred = cv2.GaussianBlur(classes.astype(np.float64), (0, 0), 4)
    rock = np.clip(blurred + rng.normal(0, 0.2, classes.shape), 0, 1)
    classes[:9] = 255
    ids = (rock >= 0.5).astype(np.uint8)
    confidence = np.rint(np.where(ids > 0, rock, 1 - rock) * 255).astype(np.uint8)
    return classes, Segmentation(ids, confidence, (1,))


def counts_of(images: list[tuple[NDArray[np.uint8], Segmentation]]) -> Counts:
    return stack([count(classes, None, found) for classes, found in images])


def test_pooled_metrics_equal_torchmetrics() -> None:
    images = [image(seed) for seed in range(3)]
    pooled = rock_metrics()
    for classes, found in images:
        pooled.update(torch.from_numpy(found.class_ids), torch.from_numpy(classes).long())
    result = figures(weighted_sum(counts_of(images), np.ones(3)))
    for name, value in pooled.compute().items():
        assert result[name] == pytest.approx(float(value), abs=1e-6)
        assert 0.3 < result[name] < 1


def test_the_mean_iou_excludes_images_without_rock() -> None:
    ids = np.zeros((90, 120), np.uint8)
    empty = (ids, Segmentation(ids, np.full_like(ids, 255), (1,)))
    some = [image(0), image(1)]
    each = [summarize(counts_of([one]))['iou'] for one in some]
    result = summarize(counts_of([*some, empty]))
    assert result['mean_iou'] == pytest.approx(np.mean(each))
    assert result['images'] == 3


def test_the_calibration_error_equals_torchmetrics() -> None:
    classes, found = image(5)
    # torchmetrics assigns probabilities at the edge of a bin to either bin because of rounding.
    confidence = np.where(found.confidence % 17 == 0, found.confidence - 3, found.confidence)
    found = Segmentation(found.class_ids, confidence.astype(np.uint8), (1,))
    rock = np.where(found.mask() > 0, found.confidence, 255 - found.confidence) / 255
    wanted = BinaryCalibrationError(n_bins=15, norm='l1', ignore_index=255)(
        torch.from_numpy(rock), torch.from_numpy(classes).long()
    )
    result = summarize(stack([count(classes, None, found)]))['ece']
    assert result == pytest.approx(float(wanted), abs=1e-6)
    assert result > 0.01


def test_false_rock_is_the_false_positive_rate_of_valid_pixels() -> None:
    classes = np.zeros((100, 100), np.uint8)
    classes[:, :50], classes[:50, 50:] = 255, 1
    ids = np.zeros_like(classes)
    ids[90:] = 1
    result = summarize(stack([count(classes, None, Segmentation(ids, ids * 255, (1,)))]))
    assert result['false_rock'] == pytest.approx(0.2)
    assert (result['precision'], result['recall']) == (0, 0)


def test_false_rock_on_empty_uses_only_images_without_true_rock() -> None:
    empty = np.zeros((100, 100), np.uint8)
    empty[:50] = 255
    full = np.ones((100, 100), np.uint8)
    full[:50] = 0
    ids = np.zeros_like(empty)
    ids[40:60] = 1
    found = Segmentation(ids, ids * 255, (1,))
    result = summarize(stack([count(classes, None, found) for classes in (empty, full)]))
    assert result['false_rock_on_empty'] == pytest.approx(10 / 50)
    assert result['false_rock'] == pytest.approx((10 + 10) / (50 + 50))
    result = summarize(stack([count(full, None, found)]))
    assert result['false_rock_on_empty'] is None


def test_the_boundary_is_two_percent_of_the_diagonal_wide() -> None:
    truth = np.zeros((300, 400), bool)  # 2 % of the diagonal: 10 px
    truth[100:200, 100:200] = True
    shifted = np.roll(truth, 5, axis=1)
    both, either = boundary_overlap(truth, shifted, np.ones_like(truth))
    band = np.zeros_like(truth)
    band[100:200, 100:200], band[110:190, 110:190] = True, False
    other = np.roll(band, 5, axis=1)
    assert (both, either) == ((band & other).sum(), (band | other).sum())


def test_the_image_border_is_a_boundary_and_ignored_pixels_are_not_counted() -> None:
    full = np.ones((300, 400), bool)
    counted = full.copy()
    counted[:, 200:] = False
    everywhere, _ = boundary_overlap(full, full, full)
    half, _ = boundary_overlap(full, full, counted)
    assert everywhere == 300 * 400 - 280 * 380
    assert half == everywhere / 2


def test_predicted_rock_on_ignored_pixels_does_not_reduce_the_boundary_iou() -> None:
    classes = np.zeros((300, 400), np.uint8)
    classes[100:200, 100:200], classes[:, 200:] = 1, 255
    ids = np.zeros_like(classes)
    ids[100:200, 100:300] = 1
    result = summarize(stack([count(classes, None, Segmentation(ids, ids * 255, (1,)))]))
    assert (result['iou'], result['boundary_iou']) == (1, 1)


def test_instances_of_the_label_are_the_true_rocks() -> None:
    classes = np.zeros((60, 60), np.uint8)
    classes[10:30, 10:50] = 1
    instances = np.zeros((60, 60), np.int32)
    instances[10:30, 10:30], instances[10:30, 30:50] = 1, 2
    found = Segmentation(classes, np.full_like(classes, 255), (1,))
    touching = summarize(stack([count(classes, instances, found)]))['rocks']
    assert (touching['true'], touching['found']) == (2, 1)
    assert (touching['recall'], touching['precision'], touching['mean_iou']) == (0.5, 1, 0.5)
    joined = summarize(stack([count(classes, None, found)]))['rocks']
    assert (joined['true'], joined['recall'], joined['small']['recall']) == (1, 1, 1)


def test_identical_images_have_intervals_of_width_0() -> None:
    result = summarize(counts_of([image(0)] * 4))
    assert result['intervals']['iou'] == [pytest.approx(result['iou'])] * 2
    assert result['intervals']['ece'] == [pytest.approx(result['ece'])] * 2


def test_intervals_contain_the_metric_and_are_narrower_with_more_images() -> None:
    few = summarize(counts_of([image(seed) for seed in range(5)]))
    many = summarize(counts_of([image(seed) for seed in range(40)]))
    for result in (few, many):
        for name in ('iou', 'boundary_iou', 'ece', 'mean_iou', 'false_rock'):
            low, high = result['intervals'][name]
            assert low < result[name] < high
        low, high = result['intervals']['rocks']['recall']
        assert low <= result['rocks']['recall'] <= high
    widths = [np.ptp(result['intervals']['iou']) for result in (few, many)]
    assert widths[1] < 0.6 * widths[0]


def test_the_bootstrap_computes_metrics_of_resampled_images() -> None:
    counts = counts_of([image(seed) for seed in range(6)])
    drawn = np.random.default_rng(3).multinomial(6, [1 / 6] * 6, 1)[0]
    repeated = Counts(*(np.repeat(values, drawn, axis=0) for values in vars(counts).values()))
    result = bootstrap(counts, resamples=1, seed=3)
    for name in ('iou', 'boundary_iou', 'ece', 'rocks.recall'):
        path, wanted = name.split('.'), summarize(repeated)
        for part in path:
            wanted = wanted[part]
        assert result[name] == pytest.approx([wanted])


def test_undefined_metrics_are_none_and_the_result_is_json() -> None:
    ids = np.zeros((40, 40), np.uint8)
    result = summarize(stack([count(ids, None, Segmentation(ids, ids + 255, (1,)))]))
    assert (result['iou'], result['mean_iou'], result['rocks']['large']['recall']) == (
        None,
        None,
        None,
    )
    assert (result['false_rock'], result['ece']) == (0, 0)
    assert result['intervals']['iou'] is None
    assert result['intervals']['false_rock'] is None, 'one image has no interval'
    assert json.loads(json.dumps(result)) == result


def test_tiles_cover_an_image_once_and_have_about_the_given_size() -> None:
    seen = np.zeros((960, 1290), int)
    tiles = windows(960, 1290, 320)
    for tile in tiles:
        seen[tile] += 1
        assert 300 < min(seen[tile].shape) <= max(seen[tile].shape) < 340
    assert (seen == 1).all()
    assert len(tiles) == 12
    assert windows(100, 50) == windows(100, 50, 320) == [(slice(0, 100), slice(0, 50))]


def test_the_counts_of_tiles_add_up_to_those_of_their_image() -> None:
    classes, found = image(3, rocks=9)
    whole = count(classes, None, found)
    tiles = count_windows(classes, None, found, windows(*classes.shape, 40))
    assert len(tiles) == 6
    for name in ('pixels', 'rocks', 'levels'):
        total = sum(getattr(tile, name) for tile in tiles)
        np.testing.assert_allclose(total, getattr(whole, name))
    some = count_windows(classes, None, found, windows(*classes.shape, 40)[:2])
    np.testing.assert_array_equal(some[1].rocks, tiles[1].rocks)


def test_only_recall_is_known_for_incomplete_labels() -> None:
    result = summarize(counts_of([image(0), image(1)]), only_recall=True)
    whole = summarize(counts_of([image(0), image(1)]))
    assert result['recall'] == whole['recall']
    assert result['rocks']['recall'] == whole['rocks']['recall']
    assert result['intervals']['recall'] == whole['intervals']['recall']
    for name in ('iou', 'precision', 'boundary_iou', 'false_rock', 'ece'):
        assert result[name] is result['intervals'][name] is None
    assert result['rocks']['precision'] is result['rocks']['found'] is None
    assert result['rocks']['true'] == whole['rocks']['true']


def test_a_paired_difference_has_a_narrower_interval_than_the_metrics() -> None:
    """The images differ much, and one network is slightly worse on each of them."""
    better = [image(seed) for seed in range(12)]
    worse = []
    for classes, found in better:
        ids = found.class_ids.copy()
        ids[80:84] = 1
        worse.append((classes, Segmentation(ids, found.confidence, (1,))))
    ours, theirs = counts_of(better), counts_of(worse)
    result = compare(ours, theirs)['false_rock']
    one, other = summarize(ours), summarize(theirs)
    assert result['difference'] == pytest.approx(one['false_rock'] - other['false_rock'])
    low, high = result['interval']
    assert low <= result['difference'] <= high < 0
    assert result['excludes_zero'] is True
    widths = [np.ptp(each['intervals']['false_rock']) for each in (one, other)]
    assert high - low < 0.5 * min(widths)


def test_a_network_does_not_differ_from_itself_and_one_image_has_no_interval() -> None:
    counts = counts_of([image(seed) for seed in range(4)])
    result = compare(counts, counts)
    assert result['iou'] == {'difference': 0, 'interval': [0, 0], 'excludes_zero': False}
    assert result['rocks']['recall']['difference'] == 0
    one = counts_of([image(0)])
    assert compare(one, one)['iou'] == {'difference': 0, 'interval': None, 'excludes_zero': False}


def test_an_undefined_metric_has_no_difference() -> None:
    ids = np.zeros((40, 40), np.uint8)
    counts = stack([count(ids, None, Segmentation(ids, ids + 255, (1,)))] * 2)
    result = compare(counts, counts)
    assert result['iou'] == {'difference': None, 'interval': None, 'excludes_zero': False}
    assert compare(counts, counts, only_recall=True)['false_rock']['difference'] is None


def test_different_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match='4 and 3 images'):
        compare(counts_of([image(0)] * 4), counts_of([image(0)] * 3))
