# SPDX-License-Identifier: Apache-2.0
"""Known results give known figures; the command says them as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.pipeline import ScoresError
from rock_seg_ros.perception.inference.segmenter import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DataError, DatasetConfig, Labelled, Sample, find_samples
from training.evaluate import main
from training.evaluation import Perturbation, count_image, evaluate, segment_perturbed
from training.metrics import windows

CLASSES = ('background', 'rock')


def all_of(folder: Path, **settings: str) -> list[Sample]:
    return find_samples(DatasetConfig(str(folder), **settings), 'all', CLASSES)  # type: ignore[arg-type]


class Oracle:
    """Finds the truth but for its top rows, which it calls rock."""

    def __init__(self, samples: Sequence[Sample], rows: int = 0) -> None:
        self.card = Card()
        self.truths = [sample.read().classes for sample in samples]
        self.rows = rows

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = self.truths.pop(0).copy()
        ids[: self.rows] = 1
        return Segmentation(ids, np.full_like(ids, 255), (1,))


class BrightIsRock:
    """Finds what is bright, and keeps what it was shown."""

    def __init__(self) -> None:
        self.card = Card()
        self.shown: list[NDArray[np.uint8]] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.shown.append(image)
        ids = (image[..., 1] > 105).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_the_truth_scores_one(discs: Path) -> None:
    samples = all_of(discs)
    figures = evaluate(Oracle(samples), samples).figures  # type: ignore[arg-type]
    ones = ('iou', 'precision', 'recall', 'mean_iou', 'boundary_iou')
    assert {figures[name] for name in ones} == {1.0}
    assert (figures['images'], figures['false_rock'], figures['ece']) == (6, 0, 0)
    told = figures['rocks']
    assert [told[name] for name in ('precision', 'recall', 'mean_iou')] == [1, 1, 1]
    assert 6 <= told['true'] == told['found'] <= 18


def test_invented_rock_costs_precision_and_iou_as_counted_by_hand(discs: Path) -> None:
    samples = all_of(discs)
    truths = [sample.read().classes > 0 for sample in samples]
    figures = evaluate(Oracle(samples, 7), samples).figures  # type: ignore[arg-type]
    rock = [int(truth.sum()) for truth in truths]
    found = [int(truth[7:].sum()) + 7 * 96 for truth in truths]
    assert figures['recall'] == 1
    assert figures['precision'] == pytest.approx(sum(rock) / sum(found))
    assert figures['iou'] == pytest.approx(sum(rock) / sum(found))
    each = [r / f for r, f in zip(rock, found, strict=True)]
    assert figures['mean_iou'] == pytest.approx(np.mean(each))
    assert figures['mean_iou'] != pytest.approx(figures['iou'], abs=1e-6)


def test_ignored_pixels_are_not_counted(discs: Path) -> None:
    samples = find_samples(
        DatasetConfig(str(discs), class_map={'0': 'background', '255': 'ignore'}), 'all', CLASSES
    )
    figures = evaluate(Oracle(samples, 80), samples).figures  # type: ignore[arg-type]
    assert figures['false_rock'] == 1
    assert figures['precision'] == 0, 'no rock is left in the truth'
    assert figures['recall'] is None


def test_a_result_keeps_each_images_counts_and_mask(discs: Path) -> None:
    samples = all_of(discs)
    result = evaluate(Oracle(samples, 7), samples, name='discs')  # type: ignore[arg-type]
    assert [image_result.sample for image_result in result.images] == samples
    assert all(image_result.mask[:7].all() for image_result in result.images)
    ious = [image_result.iou for image_result in result.images]
    assert np.mean(ious) == pytest.approx(result.figures['mean_iou'])  # type: ignore[arg-type]


class Dumbbells:
    """Finds two boxes with a rim between them, and two with a narrow neck."""

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = np.zeros(image.shape[:2], np.uint8)
        ids[4:34, 4:34] = ids[4:34, 37:67] = 1
        ids[4:8, 34:37], ids[8:34, 34:37] = 1, 2
        ids[44:74, 4:34] = ids[44:74, 37:67] = 1
        ids[58:60, 34:37] = 1
        return Segmentation(ids, np.full_like(ids, 250), (1,), 2)


@pytest.mark.parametrize(
    ('split', 'rims', 'found'), [(True, True, 3), (True, False, 4), (False, True, 2)]
)
def test_rocks_are_counted_as_they_are_cut_apart(
    discs: Path, split: bool, rims: bool, found: int
) -> None:
    samples = all_of(discs)[:1]
    settings = RockSettings(split_touching=split)
    result = evaluate(Dumbbells(), samples, settings=settings, rims=rims)  # type: ignore[arg-type]
    assert result.figures['rocks']['found'] == found


@pytest.mark.parametrize('option', ['--no-split-touching', '--no-rims'])
def test_the_command_takes_the_ways_to_cut(
    option: str, weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(weights_file), '--data', str(own_discs), '--split', 'all']
    assert main([*given, option, '--output-stride', '16', '--scale', '0.5']) == 0
    assert 'rocks.small.recall' in capsys.readouterr().out


def test_nothing_to_measure_on_is_an_error() -> None:
    with pytest.raises(DataError, match='discs: no images'):
        evaluate(Oracle([]), [], name='discs')  # type: ignore[arg-type]


@pytest.mark.parametrize('scale', [0.5, 2.0])
def test_a_scaled_image_is_judged_at_the_labels_size(scale: float, discs: Path) -> None:
    samples, network = all_of(discs), BrightIsRock()
    conditions = Perturbation(scale=scale)
    figures = evaluate(network, samples, conditions).figures  # type: ignore[arg-type]
    assert {image.shape for image in network.shown} == {(80 * scale, 96 * scale, 3)}
    assert 0.9 < figures['iou'] < 1
    assert figures['conditions'] == {'grey': False, 'scale': scale, 'gain': 1.0}


def test_scaling_back_moves_nothing() -> None:
    image = np.zeros((80, 96, 3), np.uint8)
    image[20:60, 10:50] = 200
    for scale in (0.5, 2.0):
        found = segment_perturbed(BrightIsRock(), image, Perturbation(scale=scale))  # type: ignore[arg-type]
        assert np.array_equal(found.mask() > 0, image[..., 0] > 0)


def test_conditions_combine_and_say_what_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    conditions = Perturbation(grey=True, scale=0.5, gain=2.0)
    seen = conditions.apply(image)
    assert seen.shape == (20, 30, 3)
    assert (seen[..., 0] == seen[..., 2]).all()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    assert seen.mean() == pytest.approx(np.minimum(2 * grey, 255).mean(), abs=1)
    assert str(conditions) == 'grey, scale 0.5, gain 2'
    assert Perturbation().apply(image) is image
    assert not str(Perturbation())


def test_the_command_prints_one_json_object(
    weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(weights_file), '--data', str(own_discs), '--split', 'all']
    assert main([*given, '--json', '--output-stride', '16', '--scale', '0.5']) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures['images'] == 5
    assert figures['conditions']['scale'] == 0.5
    assert {'iou', 'precision', 'recall', 'mean_iou', 'boundary_iou'} <= figures.keys()
    assert {'precision', 'recall', 'mean_iou', 'small'} <= figures['rocks'].keys()
    low, high = figures['intervals']['false_rock']
    assert 0 <= low <= figures['false_rock'] <= high <= 1


def test_the_command_prints_a_table_and_takes_a_class_map_and_a_threshold(
    weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(weights_file), '--data', str(own_discs), '--split', 'all']
    classes = ['--class-map', '{0: background, 255: ignore}']
    for threshold, told in (('0.0001', '1'), ('0.9999', '0')):
        assert main([*given, *classes, '--threshold', threshold]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ['images', '5'] in rows
        assert ['false_rock', told, told, 'to', told] in rows
        assert ['recall', '-'] in rows


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (('--weights', 'none.safetensors'), 'none.safetensors: no such file'),
        (('--data', 'nowhere'), 'nowhere: no folder'),
        (('--output-stride', '9'), '9'),
        (('--device', 'tpu'), "'tpu'"),
        (('--class-map', '{255: rock}'), 'grey value 0'),
        (('--scale', '0'), 'scale must be above 0'),
        (('--threshold', '7'), 'threshold must be between 0 and 1, not 7'),
    ],
)
def test_an_error_is_one_line_and_status_1(
    change: tuple[str, str],
    told: str,
    weights_file: Path,
    own_discs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {'--weights': str(weights_file), '--data': str(own_discs)} | dict([change])
    assert main([word for pair in given.items() for word in pair]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('training.evaluate: ')
    assert told in last


def test_missing_arguments_are_status_2() -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2


def test_a_tile_is_named_by_its_place_and_read_as_it_was_measured(discs: Path) -> None:
    sample = all_of(discs)[0]
    label = sample.read()
    found = BrightIsRock().segment(label.image)
    tiles = windows(80, 96, 40)
    image_result = count_image(sample, label, found, tiles=tiles[1:])
    assert [own.name for own in image_result] == ['0 48,0', '0 0,40', '0 48,40']
    for own, tile in zip(image_result, tiles[1:], strict=True):
        assert np.array_equal(own.read().image, label.image[tile])
        assert np.array_equal(own.read().classes, label.classes[tile])
        assert own.mask.shape == (40, 48)
    (whole,) = count_image(sample, label, found)
    assert whole.name == '0'
    assert whole.read().classes.shape == (80, 96)


def test_the_worst_images_are_chosen_by_what_is_wrong_with_them(discs: Path) -> None:
    """IoU where there is rock; where there is none, a single pixel must not be as bad as all."""
    sample = all_of(discs)[0]
    label = sample.read()
    rock = label.classes.copy()
    some = rock.copy()
    some[:8] = 1

    def score(classes: NDArray[np.uint8], ids: NDArray[np.uint8], recall: bool) -> float | None:
        found = Segmentation(ids, np.full_like(ids, 255), (1,))
        own = Labelled(label.image, classes, None)
        (image_result,) = count_image(sample, own, found, only_recall=recall)
        return image_result.score

    nothing = np.zeros_like(rock)
    assert score(rock, rock, False) == 1
    assert score(rock, some, False) == pytest.approx(rock.sum() / some.sum())
    assert score(rock, some, True) == 1, 'more rock than is labelled is no fault'
    assert score(nothing, np.eye(80, 96, dtype=np.uint8), False) == pytest.approx(1 - 1 / 96)
    assert score(nothing, nothing, False) is None
    assert score(nothing, some, True) is None


def test_an_image_that_the_network_fails_on_is_named(discs: Path) -> None:
    class Broken:
        card = Card()

        def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
            raise ScoresError

    samples = find_samples(DatasetConfig(str(discs)), 'all', Broken.card.classes)
    with pytest.raises(DataError, match=f'{samples[0].name}: .*not finite'):
        evaluate(Broken(), samples)  # type: ignore[arg-type]
