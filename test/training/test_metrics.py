# SPDX-License-Identifier: Apache-2.0
"""Figures agree with torchmetrics' and with what is counted by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import BinaryCalibrationError

from rock_seg_ros.perception.inference.segmenter import Segmentation
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
    """A label with ignored pixels, and what a poor network would make of it."""
    chance = np.random.default_rng(seed)
    classes = np.zeros((90, 120), np.uint8)
    for _ in range(rocks):
        place = (int(chance.integers(20, 100)), int(chance.integers(20, 70)))
        cv2.circle(classes, place, int(chance.integers(6, 15)), 1, -1)
    blurred = cv2.GaussianBlur(classes.astype(np.float64), (0, 0), 4)
    rock = np.clip(blurred + chance.normal(0, 0.2, classes.shape), 0, 1)
    classes[:9] = 255
    ids = (rock >= 0.5).astype(np.uint8)
    confidence = np.rint(np.where(ids > 0, rock, 1 - rock) * 255).astype(np.uint8)
    return classes, Segmentation(ids, confidence, (1,))


def counts_of(images: list[tuple[NDArray[np.uint8], Segmentation]]) -> Counts:
    return stack([count(classes, None, found) for classes, found in images])


def test_pooled_figures_are_torchmetrics() -> None:
    images = [image(seed) for seed in range(3)]
    pooled = rock_metrics()
    for classes, found in images:
        pooled.update(torch.from_numpy(found.class_ids), torch.from_numpy(classes).long())
    told = figures(weighted_sum(counts_of(images), np.ones(3)))
    for name, value in pooled.compute().items():
        assert told[name] == pytest.approx(float(value), abs=1e-6)
        assert 0.3 < told[name] < 1


def test_the_mean_over_images_leaves_out_those_without_any_rock() -> None:
    ids = np.zeros((90, 120), np.uint8)
    empty = (ids, Segmentation(ids, np.full_like(ids, 255), (1,)))
    some = [image(0), image(1)]
    each = [summarize(counts_of([one]))['iou'] for one in some]
    told = summarize(counts_of([*some, empty]))
    assert told['mean_iou'] == pytest.approx(np.mean(each))
    assert told['images'] == 3


def test_calibration_is_torchmetrics() -> None:
    classes, found = image(5)
    # Probabilities on a bin's edge go to one bin here and, by rounding, to either in torchmetrics.
    confidence = np.where(found.confidence % 17 == 0, found.confidence - 3, found.confidence)
    found = Segmentation(found.class_ids, confidence.astype(np.uint8), (1,))
    rock = np.where(found.mask() > 0, found.confidence, 255 - found.confidence) / 255
    wanted = BinaryCalibrationError(n_bins=15, norm='l1', ignore_index=255)(
        torch.from_numpy(rock), torch.from_numpy(classes).long()
    )
    told = summarize(stack([count(classes, None, found)]))['ece']
    assert told == pytest.approx(float(wanted), abs=1e-6)
    assert told > 0.01


def test_false_rock_is_the_share_of_counted_ground_that_is_called_rock() -> None:
    classes = np.zeros((100, 100), np.uint8)
    classes[:, :50], classes[:50, 50:] = 255, 1
    ids = np.zeros_like(classes)
    ids[90:] = 1
    told = summarize(stack([count(classes, None, Segmentation(ids, ids * 255, (1,)))]))
    assert told['false_rock'] == pytest.approx(0.2)
    assert (told['precision'], told['recall']) == (0, 0)


def test_false_rock_on_empty_looks_only_at_images_without_true_rock() -> None:
    empty = np.zeros((100, 100), np.uint8)
    empty[:50] = 255
    full = np.ones((100, 100), np.uint8)
    full[:50] = 0
    ids = np.zeros_like(empty)
    ids[40:60] = 1
    found = Segmentation(ids, ids * 255, (1,))
    told = summarize(stack([count(classes, None, found) for classes in (empty, full)]))
    assert told['false_rock_on_empty'] == pytest.approx(10 / 50)
    assert told['false_rock'] == pytest.approx((10 + 10) / (50 + 50))
    told = summarize(stack([count(full, None, found)]))
    assert told['false_rock_on_empty'] is None


def test_boundary_iou_is_that_of_bands_of_two_percent_of_the_diagonal() -> None:
    truth = np.zeros((300, 400), bool)  # 2 % of the diagonal: 10 px
    truth[100:200, 100:200] = True
    shifted = np.roll(truth, 5, axis=1)
    both, either = boundary_overlap(truth, shifted, np.ones_like(truth))
    band = np.zeros_like(truth)
    band[100:200, 100:200], band[110:190, 110:190] = True, False
    other = np.roll(band, 5, axis=1)
    assert (both, either) == ((band & other).sum(), (band | other).sum())


def test_the_images_edge_is_outline_and_ignored_boundary_is_not_counted() -> None:
    full = np.ones((300, 400), bool)
    counted = full.copy()
    counted[:, 200:] = False
    everywhere, _ = boundary_overlap(full, full, full)
    half, _ = boundary_overlap(full, full, counted)
    assert everywhere == 300 * 400 - 280 * 380
    assert half == everywhere / 2


def test_rock_found_on_into_ignored_pixels_costs_no_boundary_iou() -> None:
    classes = np.zeros((300, 400), np.uint8)
    classes[100:200, 100:200], classes[:, 200:] = 1, 255
    ids = np.zeros_like(classes)
    ids[100:200, 100:300] = 1
    told = summarize(stack([count(classes, None, Segmentation(ids, ids * 255, (1,)))]))
    assert (told['iou'], told['boundary_iou']) == (1, 1)


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


def test_the_same_images_over_and_over_leave_no_doubt() -> None:
    told = summarize(counts_of([image(0)] * 4))
    assert told['intervals']['iou'] == [pytest.approx(told['iou'])] * 2
    assert told['intervals']['ece'] == [pytest.approx(told['ece'])] * 2


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    few = summarize(counts_of([image(seed) for seed in range(5)]))
    many = summarize(counts_of([image(seed) for seed in range(40)]))
    for told in (few, many):
        for name in ('iou', 'boundary_iou', 'ece', 'mean_iou', 'false_rock'):
            low, high = told['intervals'][name]
            assert low < told[name] < high
        low, high = told['intervals']['rocks']['recall']
        assert low <= told['rocks']['recall'] <= high
    widths = [np.ptp(told['intervals']['iou']) for told in (few, many)]
    assert widths[1] < 0.6 * widths[0]


def test_a_bootstrap_is_the_figure_of_images_drawn_anew() -> None:
    counts = counts_of([image(seed) for seed in range(6)])
    drawn = np.random.default_rng(3).multinomial(6, [1 / 6] * 6, 1)[0]
    repeated = Counts(*(np.repeat(values, drawn, axis=0) for values in vars(counts).values()))
    told = bootstrap(counts, resamples=1, seed=3)
    for name in ('iou', 'boundary_iou', 'ece', 'rocks.recall'):
        path, wanted = name.split('.'), summarize(repeated)
        for part in path:
            wanted = wanted[part]
        assert told[name] == pytest.approx([wanted])


def test_what_cannot_be_told_is_none_and_the_rest_is_plain_json() -> None:
    ids = np.zeros((40, 40), np.uint8)
    told = summarize(stack([count(ids, None, Segmentation(ids, ids + 255, (1,)))]))
    assert (told['iou'], told['mean_iou'], told['rocks']['large']['recall']) == (None, None, None)
    assert (told['false_rock'], told['ece']) == (0, 0)
    assert told['intervals']['iou'] is None
    assert told['intervals']['false_rock'] is None, 'one image tells nothing of others'
    assert json.loads(json.dumps(told)) == told


def test_tiles_cover_an_image_once_and_are_about_as_large_as_asked() -> None:
    seen = np.zeros((960, 1290), int)
    tiles = windows(960, 1290, 320)
    for tile in tiles:
        seen[tile] += 1
        assert 300 < min(seen[tile].shape) <= max(seen[tile].shape) < 340
    assert (seen == 1).all()
    assert len(tiles) == 12
    assert windows(100, 50) == windows(100, 50, 320) == [(slice(0, 100), slice(0, 50))]


def test_tiles_sum_up_to_their_image_but_for_boundaries_and_the_means_over_images() -> None:
    classes, found = image(3, rocks=9)
    whole = count(classes, None, found)
    tiles = count_windows(classes, None, found, windows(*classes.shape, 40))
    assert len(tiles) == 6
    for name in ('pixels', 'rocks', 'levels'):
        total = sum(getattr(tile, name) for tile in tiles)
        np.testing.assert_allclose(total, getattr(whole, name))
    some = count_windows(classes, None, found, windows(*classes.shape, 40)[:2])
    np.testing.assert_array_equal(some[1].rocks, tiles[1].rocks)


def test_where_labels_are_incomplete_only_recall_is_known() -> None:
    told = summarize(counts_of([image(0), image(1)]), only_recall=True)
    whole = summarize(counts_of([image(0), image(1)]))
    assert told['recall'] == whole['recall']
    assert told['rocks']['recall'] == whole['rocks']['recall']
    assert told['intervals']['recall'] == whole['intervals']['recall']
    for name in ('iou', 'precision', 'boundary_iou', 'false_rock', 'ece'):
        assert told[name] is told['intervals'][name] is None
    assert told['rocks']['precision'] is told['rocks']['found'] is None
    assert told['rocks']['true'] == whole['rocks']['true']


def test_a_paired_difference_is_surer_than_the_figures_themselves() -> None:
    """Images differ much, and the one network is a little worse on each of them."""
    better = [image(seed) for seed in range(12)]
    worse = []
    for classes, found in better:
        ids = found.class_ids.copy()
        ids[80:84] = 1
        worse.append((classes, Segmentation(ids, found.confidence, (1,))))
    ours, theirs = counts_of(better), counts_of(worse)
    told = compare(ours, theirs)['false_rock']
    one, other = summarize(ours), summarize(theirs)
    assert told['difference'] == pytest.approx(one['false_rock'] - other['false_rock'])
    low, high = told['interval']
    assert low <= told['difference'] <= high < 0
    assert told['excludes_zero'] is True
    widths = [np.ptp(each['intervals']['false_rock']) for each in (one, other)]
    assert high - low < 0.5 * min(widths)


def test_the_same_network_differs_in_nothing_and_one_image_has_no_interval() -> None:
    counts = counts_of([image(seed) for seed in range(4)])
    told = compare(counts, counts)
    assert told['iou'] == {'difference': 0, 'interval': [0, 0], 'excludes_zero': False}
    assert told['rocks']['recall']['difference'] == 0
    one = counts_of([image(0)])
    assert compare(one, one)['iou'] == {'difference': 0, 'interval': None, 'excludes_zero': False}


def test_a_figure_that_one_network_lacks_has_no_difference() -> None:
    ids = np.zeros((40, 40), np.uint8)
    counts = stack([count(ids, None, Segmentation(ids, ids + 255, (1,)))] * 2)
    told = compare(counts, counts)
    assert told['iou'] == {'difference': None, 'interval': None, 'excludes_zero': False}
    assert compare(counts, counts, only_recall=True)['false_rock']['difference'] is None


def test_different_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match='4 and 3 images'):
        compare(counts_of([image(0)] * 4), counts_of([image(0)] * 3))
