# SPDX-License-Identifier: Apache-2.0
"""The metrics of known predictions, and the command that prints them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.pipeline import LogitsError
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.datasets import DataError, DatasetConfig, Labelled, Sample, find_samples
from training.evaluate import main
from training.evaluation import Perturbation, count_image, evaluate, segment_perturbed
from training.metrics import windows

CLASSES = ('background', 'rock')
pytestmark = pytest.mark.usefixtures('torch_backend')


def all_of(folder: Path, **settings: str) -> list[Sample]:
    return find_samples(DatasetConfig(str(folder), **settings), 'all', CLASSES)  # type: ignore[arg-type]


class Oracle:
    """Predicts the labels, and rock in the top rows."""

    def __init__(self, samples: Sequence[Sample], rows: int = 0) -> None:
        self.metadata = ModelMetadata()
        self.truths = [sample.read().classes for sample in samples]
        self.rows = rows

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = self.truths.pop(0).copy()
        ids[: self.rows] = 1
        return Segmentation(ids, np.full_like(ids, 255), (1,))


class FakeSegmenter:
    """Classifies bright pixels as rock, and records its inputs."""

    def __init__(self) -> None:
        self.metadata = ModelMetadata()
        self.shown: list[NDArray[np.uint8]] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.shown.append(image)
        ids = (image[..., 1] > 105).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_perfect_predictions_have_perfect_metrics(discs: Path) -> None:
    samples = all_of(discs)
    figures = evaluate(Oracle(samples), samples).figures  # type: ignore[arg-type]
    ones = ('iou', 'precision', 'recall', 'mean_iou', 'boundary_iou')
    assert {figures[name] for name in ones} == {1.0}
    assert (figures['images'], figures['false_rock'], figures['ece']) == (6, 0, 0)
    rocks = figures['rocks']
    assert [rocks[name] for name in ('precision', 'recall', 'mean_iou')] == [1, 1, 1]
    assert 6 <= rocks['true'] == rocks['found'] <= 18


def test_false_positives_reduce_precision_and_iou_as_expected(discs: Path) -> None:
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
    assert figures['precision'] == 0, 'all true rock is ignored'
    assert figures['recall'] is None


def test_a_result_has_counts_and_mask_of_each_image(discs: Path) -> None:
    samples = all_of(discs)
    result = evaluate(Oracle(samples, 7), samples, name='discs')  # type: ignore[arg-type]
    assert [image_result.sample for image_result in result.images] == samples
    assert all(image_result.mask[:7].all() for image_result in result.images)
    ious = [image_result.iou for image_result in result.images]
    assert np.mean(ious) == pytest.approx(result.figures['mean_iou'])  # type: ignore[arg-type]


class Dumbbells:
    """Predicts two boxes with a rim between them, and two boxes with a narrow connection."""

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = np.zeros(image.shape[:2], np.uint8)
        ids[4:34, 4:34] = ids[4:34, 37:67] = 1
        ids[4:8, 34:37], ids[8:34, 34:37] = 1, 2
        ids[44:74, 4:34] = ids[44:74, 37:67] = 1
        ids[58:60, 34:37] = 1
        return Segmentation(ids, np.full_like(ids, 250), (1,), 2)


@pytest.mark.parametrize(
    ('split', 'rims', 'found'), [(True, True, 3), (True, False, 3), (False, True, 2)]
)
def test_the_settings_select_how_touching_rocks_are_separated(
    discs: Path, split: bool, rims: bool, found: int
) -> None:
    samples = all_of(discs)[:1]
    settings = RockSettings(split_touching=split)
    result = evaluate(Dumbbells(), samples, settings=settings, rims=rims)  # type: ignore[arg-type]
    assert result.figures['rocks']['found'] == found


@pytest.mark.parametrize('option', ['--no-split-touching', '--no-rims'])
def test_the_command_has_options_for_the_separation_of_rocks(
    option: str, light_weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(light_weights_file), '--data', str(own_discs), '--split', 'all']
    assert main([*given, option, '--scale', '0.5']) == 0
    assert 'rocks.small.recall' in capsys.readouterr().out


def test_no_images_are_an_error() -> None:
    with pytest.raises(DataError, match='discs: no images'):
        evaluate(Oracle([]), [], name='discs')  # type: ignore[arg-type]


@pytest.mark.parametrize('scale', [0.5, 2.0])
def test_predictions_of_a_scaled_image_are_compared_at_label_size(
    scale: float, discs: Path
) -> None:
    samples, network = all_of(discs), FakeSegmenter()
    perturbation = Perturbation(scale=scale)
    figures = evaluate(network, samples, perturbation).figures  # type: ignore[arg-type]
    assert {image.shape for image in network.shown} == {(80 * scale, 96 * scale, 3)}
    assert 0.9 < figures['iou'] < 1
    assert figures['conditions'] == {
        'grey': False, 'scale': scale, 'gain': 1.0, 'flare': 0.0, 'motion_blur': 1.0
    }  # fmt: skip


def test_scaling_does_not_shift_the_result() -> None:
    image = np.zeros((80, 96, 3), np.uint8)
    image[20:60, 10:50] = 200
    for scale in (0.5, 2.0):
        found = segment_perturbed(FakeSegmenter(), image, Perturbation(scale=scale))  # type: ignore[arg-type]
        assert np.array_equal(found.mask() > 0, image[..., 0] > 0)


def test_perturbations_can_be_combined_and_have_a_description() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    perturbation = Perturbation(grey=True, scale=0.5, gain=2.0)
    seen = perturbation.apply(image)
    assert seen.shape == (20, 30, 3)
    assert (seen[..., 0] == seen[..., 2]).all()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    assert seen.mean() == pytest.approx(np.minimum(2 * grey, 255).mean(), abs=1)
    assert str(perturbation) == 'grey, scale 0.5, gain 2'
    assert Perturbation().apply(image) is image
    assert not str(Perturbation())


def test_the_command_prints_one_json_object(
    light_weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(light_weights_file), '--data', str(own_discs), '--split', 'all']
    assert main([*given, '--json', '--scale', '0.5']) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures['images'] == 5
    assert figures['conditions']['scale'] == 0.5
    assert {'iou', 'precision', 'recall', 'mean_iou', 'boundary_iou'} <= figures.keys()
    assert {'precision', 'recall', 'mean_iou', 'small'} <= figures['rocks'].keys()
    low, high = figures['intervals']['false_rock']
    assert 0 <= low <= figures['false_rock'] <= high <= 1


def test_the_command_prints_a_table_and_accepts_class_map_and_threshold(
    light_weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(light_weights_file), '--data', str(own_discs), '--split', 'all']
    classes = ['--class-map', '{0: background, 255: ignore}']
    for threshold, rate in (('0.0001', '1'), ('0.9999', '0')):
        assert main([*given, *classes, '--threshold', threshold]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ['images', '5'] in rows
        assert ['false_rock', rate, rate, 'to', rate] in rows
        assert ['recall', '-'] in rows


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('--weights', 'none.safetensors'), 'none.safetensors: no such file'),
        (('--data', 'nowhere'), 'nowhere: must be a folder'),
        (('--output-stride', '9'), '9'),
        (('--device', 'tpu'), "'tpu'"),
        (('--class-map', '{255: rock}'), 'pixel value 0'),
        (('--scale', '0'), 'scale must be above 0'),
        (('--threshold', '7'), 'threshold must be between 0 and 1, not 7'),
    ],
)
def test_an_error_is_reported_in_one_line_with_status_1(
    change: tuple[str, str],
    message: str,
    light_weights_file: Path,
    own_discs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {'--weights': str(light_weights_file), '--data': str(own_discs)} | dict([change])
    assert main([word for pair in given.items() for word in pair]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('training.evaluate: ')
    assert message in last


def test_images_without_labels_are_an_error(
    light_weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(light_weights_file), '--data', str(own_discs / 'images')]
    assert main([*given, '--split', 'all']) == 1
    assert capsys.readouterr().err.endswith(
        'training.evaluate: images, all: the images have no labels\n'
    )


def test_missing_arguments_end_with_status_2() -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2


def test_the_result_of_a_tile_has_its_position_and_its_pixels(discs: Path) -> None:
    sample = all_of(discs)[0]
    label = sample.read()
    found = FakeSegmenter().segment(label.image)
    tiles = windows(80, 96, 40)
    results = count_image(sample, label, found, tiles=tiles[1:])
    assert [result.name for result in results] == ['0 48,0', '0 0,40', '0 48,40']
    for result, tile in zip(results, tiles[1:], strict=True):
        assert np.array_equal(result.read().image, label.image[tile])
        assert np.array_equal(result.read().classes, label.classes[tile])
        assert result.mask.shape == (40, 48)
    (whole,) = count_image(sample, label, found)
    assert whole.name == '0'
    assert whole.read().classes.shape == (80, 96)


def test_the_score_of_an_image_depends_on_its_labels(discs: Path) -> None:
    """It is the IoU with rock, and the true negative rate without rock."""
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
    assert score(rock, some, True) == 1, 'false positives are unknown for incomplete labels'
    assert score(nothing, np.eye(80, 96, dtype=np.uint8), False) == pytest.approx(1 - 1 / 96)
    assert score(nothing, nothing, False) is None
    assert score(nothing, some, True) is None


def test_an_image_on_which_the_network_fails_is_reported(discs: Path) -> None:
    class FailingSegmenter:
        metadata = ModelMetadata()

        def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
            raise LogitsError

    samples = find_samples(DatasetConfig(str(discs)), 'all', FailingSegmenter.metadata.classes)
    with pytest.raises(DataError, match=f'{samples[0].name}: .*not finite'):
        evaluate(FailingSegmenter(), samples)  # type: ignore[arg-type]
