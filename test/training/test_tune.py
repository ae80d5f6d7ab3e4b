# SPDX-License-Identifier: Apache-2.0
"""The threshold is the best one on the half that may be chosen by, within the limits."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from safetensors import safe_open

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.segmenter import Segmentation, Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from training.evaluation import Perturbation
from training.tune import Probabilities, main, write_threshold

NO_CONDITIONS = Perturbation()


class Unsure:
    """Takes brightness for the probability of rock: ground has below 0.24, rock above 0.58."""

    def __init__(self) -> None:
        self.card = Card(threshold=0.9)
        self.weights = SimpleNamespace(card=self.card, path=Path('w.safetensors'))
        self.seen: list[bytes] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.seen.append(image.tobytes())
        threshold = self.card.threshold if threshold is None else threshold
        level = image.mean(axis=2)
        ids = (level >= threshold * 255).astype(np.uint8)
        sure = np.rint(np.where(ids > 0, level, 255 - level)).astype(np.uint8)
        return Segmentation(ids, sure, (1,))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Unsure:
    made = Unsure()
    monkeypatch.setattr('training.tune.load_weights', lambda *_: made.weights)
    monkeypatch.setattr('training.tune.Segmenter', lambda *_, **__: made)
    return made


@pytest.fixture
def cases(discs: Path, tmp_path: Path, network: Unsure) -> Path:
    rock = {'path': str(discs)}
    ground = rock | {'class_map': {'0': 'background', '255': 'ignore'}}
    written = {
        'rock': {'source': rock, 'split': 'all'},
        'ground': {'source': ground, 'split': 'all', 'most_false_rock': 0.5},
    }
    file = tmp_path / 'cases.yaml'
    file.write_text(yaml.safe_dump({'cases': written}))
    return file


def tuned(cases: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    given = ['--config', str(cases), '--thresholds', '0.05', '0.1', '0.3', '0.7']
    assert main([*given, '--json', *words]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_threshold_of_the_highest_iou_is_chosen(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tuned(cases, capsys)
    assert told['threshold'] == 0.3
    assert told['card_threshold'] == 0.9
    assert [point['threshold'] for point in told['curve']] == [0.05, 0.1, 0.3, 0.7, 0.9]
    ious = [point['mean_iou'] for point in told['curve']]
    assert ious[2] == max(ious) == 1
    assert told['curve'][2]['ious'] == {'rock': 1}
    assert told['curve'][2]['recall'] == 1


def test_a_limit_on_false_rock_comes_before_iou(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--config', str(cases), '--thresholds', '0.1', '--json']
    chosen = {}
    for limit in ('0.5', '1'):
        assert main([*words, f'--cases.ground.most_false_rock={limit}']) == 0
        chosen[limit] = json.loads(capsys.readouterr().out)
    assert chosen['1']['threshold'] == 0.1, 'at 0.9 no rock is found'
    assert chosen['1']['curve'][0]['false_rock']['ground'] > 0.5
    assert chosen['0.5']['threshold'] == 0.9
    assert chosen['0.5']['curve'][0]['exceeded'] == ['ground']


def test_where_no_threshold_keeps_a_limit_the_case_is_named(
    cases: Path, network: Unsure, capsys: pytest.CaptureFixture[str]
) -> None:
    network.weights.card = Card(threshold=0.1)
    words = ['--thresholds', '0.05', '0.15', '--cases.ground.most_false_rock=0']
    assert main(['--config', str(cases), *words, '--write']) == 1
    told = capsys.readouterr()
    last = told.err.splitlines()[-1]
    assert last.endswith('no threshold up to 0.15 keeps false rock within the limits of: ground')
    assert '!' in told.out
    assert 'best' not in told.out


def test_only_the_half_that_may_be_chosen_by_is_seen_and_each_image_twice(
    cases: Path, network: Unsure, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(cases, capsys)
    assert len(network.seen) == 6
    assert len(set(network.seen)) == 3


def test_cases_without_weight_held_out_or_of_incomplete_labels_are_not_chosen_by(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in ('weight=0', 'held_out=true', 'only_recall=true'):
        words = ['--config', str(cases), f'--cases.rock.{change}']
        assert main(words) == 1
        assert 'nothing to choose by' in capsys.readouterr().err.splitlines()[-1]


def test_people_get_the_curve_with_the_best_marked(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--thresholds', '0.1', '0.3', '--cases.none', '{"source": {"path": "nowhere"}}']
    assert main(['--config', str(cases), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith('0.')]
    assert [row[0] for row in rows] == ['0.100', '0.300', '0.900']
    assert rows[1][1:4] == ['<-', 'best', '1.0000']
    assert rows[2][1] == "card's"
    assert lines[-1].startswith('missing: none: nowhere')


@pytest.mark.parametrize('threshold', [0.1, 0.42, 0.5, 0.77])
def test_what_is_found_at_a_threshold_is_what_the_segmenter_finds_there(
    threshold: float, weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    segmenter = Segmenter(load_weights(weights_file), 'cpu', backend='torch')
    probabilities = Probabilities(segmenter)
    rock = probabilities.at(small_image, NO_CONDITIONS, 1e-5).confidence.astype(int)
    threshold = float(np.quantile(rock, threshold)) / 255 - 0.2 / 255  # where some are rock
    told = probabilities.at(small_image, NO_CONDITIONS, threshold)
    wanted = segmenter.segment(small_image, threshold)
    near = np.abs(rock - threshold * 255) < 1
    assert 0 < wanted.mask().mean() < 255
    assert np.array_equal(told.class_ids[~near], wanted.class_ids[~near])
    assert np.abs(told.confidence.astype(int) - wanted.confidence)[~near].max() <= 1


def test_the_threshold_is_written_and_all_else_stays_bit_for_bit(
    weights_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'own.safetensors'
    file.write_bytes(weights_file.read_bytes())
    write_threshold(file, 0.37)
    before, after = load_weights(weights_file).card, load_weights(file).card
    assert after.threshold == 0.37
    assert before.metrics == after.metrics
    with safe_open(weights_file, 'pt') as one, safe_open(file, 'pt') as other:
        names = list(one.keys())
        assert names == list(other.keys())
        for name in names:
            ours, theirs = one.get_tensor(name), other.get_tensor(name)
            assert ours.dtype == theirs.dtype
            assert bool((ours == theirs).all())


def test_the_command_writes_only_what_it_chose(
    cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Path, float]] = []
    monkeypatch.setattr('training.tune.write_threshold', lambda *what: written.append(what))
    tuned(cases, capsys)
    assert not written
    tuned(cases, capsys, '--write')
    assert written == [(Path('w.safetensors'), 0.3)]


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--thresholds', '0.5', '1.5'], 'thresholds must be between 0 and 1'),
        (['--cases.rock.source.path=nowhere', '--only', 'rock'], 'nowhere'),
        (['--cases.rock.weight=-1'], 'weight must be 0 or more, not -1'),
        (['--cases.ground.most_false_rock=2'], 'most_false_rock must be 0 to 1, not 2'),
    ],
)
def test_an_error_is_one_line_and_status_1(
    words: list[str], told: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('training.tune: ')
    assert told in last


def test_only_safetensors_are_written_to(
    cases: Path, network: Unsure, capsys: pytest.CaptureFixture[str]
) -> None:
    network.weights.path = Path('w.onnx')
    assert main(['--config', str(cases), '--write']) == 1
    assert 'w.onnx: --write is for .safetensors' in capsys.readouterr().err
