# SPDX-License-Identifier: Apache-2.0
"""Known results give known figures; the command says them as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.segmenter import Segmentation
from training.config import MASK_VALUES
from training.datasets import Sample, find_samples, read_sample
from training.evaluate import evaluate, main, read_mask_values


class Oracle:
    """Finds the truth but for its top rows, which it calls rock."""

    def __init__(self, samples: list[Sample], rows: int) -> None:
        self.card = Card()
        self.truths = [read_sample(sample, MASK_VALUES)[1] for sample in samples]
        self.rows = rows

    def segment(self, picture: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = self.truths.pop(0).copy()
        ids[: self.rows] = 1
        return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_the_truth_scores_one(discs: Path) -> None:
    samples = find_samples(discs, 'all')
    figures = evaluate(Oracle(samples, 0), samples, MASK_VALUES)  # type: ignore[arg-type]
    assert figures == {'images': 6, 'iou': 1, 'precision': 1, 'recall': 1, 'mean_iou': 1}


def test_invented_rock_costs_precision_and_iou_as_counted_by_hand(discs: Path) -> None:
    samples = find_samples(discs, 'all')
    truths = [read_sample(sample, MASK_VALUES)[1] > 0 for sample in samples]
    figures = evaluate(Oracle(samples, 7), samples, MASK_VALUES)  # type: ignore[arg-type]
    rock = [int(truth.sum()) for truth in truths]
    found = [int(truth[7:].sum()) + 7 * 96 for truth in truths]
    assert figures['recall'] == 1
    assert figures['precision'] == pytest.approx(sum(rock) / sum(found))
    assert figures['iou'] == pytest.approx(sum(rock) / sum(found))
    each = [r / f for r, f in zip(rock, found, strict=True)]
    assert figures['mean_iou'] == pytest.approx(np.mean(each))
    assert figures['mean_iou'] != pytest.approx(figures['iou'], abs=1e-6)


def test_ignored_pixels_are_not_counted(own_discs: Path) -> None:
    samples = find_samples(own_discs, 'all')
    oracle = Oracle(samples, 0)
    figures = evaluate(oracle, samples, {0: 0, 255: 255})  # type: ignore[arg-type]
    assert figures['precision'] == 0, 'no rock is left in the truth'
    assert figures['iou'] == 0


def test_the_command_prints_one_json_object(
    weights_file: Path, own_discs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ['--weights', str(weights_file), '--data', str(own_discs)]
    assert main([*given, '--json', '--output-stride', '16']) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures['images'] == 1
    assert {'iou', 'precision', 'recall'} <= figures.keys()
    assert all(0 <= figures[name] <= 1 for name in ('iou', 'precision', 'recall', 'mean_iou'))


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (('--weights', 'none.safetensors'), 'none.safetensors: no such file'),
        (('--data', 'nowhere'), 'nowhere: no folder'),
        (('--output-stride', '9'), '9'),
        (('--device', 'tpu'), "'tpu'"),
        (('--mask-values', '{255: 1}'), 'has the value 0'),
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


def test_mask_values_are_read_and_nonsense_is_refused() -> None:
    assert read_mask_values('{0: 0, 128: 255}') == {0: 0, 128: 255}
    for text in ('7', '{0: rock}', '{0: 300}', '{'):
        with pytest.raises(argparse.ArgumentTypeError):
            read_mask_values(text)
