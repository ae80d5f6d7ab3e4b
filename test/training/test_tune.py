# SPDX-License-Identifier: Apache-2.0
"""The chosen threshold is the best one on the tuning half within the limits."""

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

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from training.evaluation import Perturbation
from training.tune import ProbabilityCache, main, write_threshold

NO_PERTURBATION = Perturbation()


class FakeSegmenter:
    """Uses brightness as the probability of rock: below 0.24 for ground, above 0.58 for rock."""

    def __init__(self) -> None:
        self.metadata = ModelMetadata(threshold=0.9)
        self.weights = SimpleNamespace(metadata=self.metadata, path=Path('w.safetensors'))
        self.seen: list[bytes] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.seen.append(image.tobytes())
        threshold = self.metadata.threshold if threshold is None else threshold
        level = image.mean(axis=2)
        ids = (level >= threshold * 255).astype(np.uint8)
        confidence = np.rint(np.where(ids > 0, level, 255 - level)).astype(np.uint8)
        return Segmentation(ids, confidence, (1,))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenter:
    made = FakeSegmenter()
    monkeypatch.setattr('training.tune.load_weights', lambda *_: made.weights)
    monkeypatch.setattr('training.tune.Segmenter', lambda *_, **__: made)
    return made


@pytest.fixture
def cases(discs: Path, tmp_path: Path, network: FakeSegmenter) -> Path:
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
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_threshold_with_the_highest_iou_is_chosen(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tuned(cases, capsys)
    assert result['threshold'] == 0.3
    assert result['card_threshold'] == 0.9
    assert [point['threshold'] for point in result['curve']] == [0.05, 0.1, 0.3, 0.7, 0.9]
    ious = [point['mean_iou'] for point in result['curve']]
    assert ious[2] == max(ious) == 1
    assert result['curve'][2]['ious'] == {'rock': 1}
    assert result['curve'][2]['recall'] == 1


def test_limits_of_false_rock_have_priority_over_iou(
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


def test_a_case_whose_limit_no_threshold_keeps_is_reported(
    cases: Path, network: FakeSegmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    network.weights.metadata = ModelMetadata(threshold=0.1)
    words = ['--thresholds', '0.05', '0.15', '--cases.ground.most_false_rock=0']
    assert main(['--config', str(cases), *words, '--write']) == 1
    result = capsys.readouterr()
    last = result.err.splitlines()[-1]
    assert last.endswith('no threshold up to 0.15 keeps false rock within the limits of: ground')
    assert '!' in result.out
    assert 'best' not in result.out


def test_only_the_tuning_half_is_used_and_each_image_is_segmented_twice(
    cases: Path, network: FakeSegmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(cases, capsys)
    assert len(network.seen) == 6
    assert len(set(network.seen)) == 3


def test_cases_without_weight_held_out_or_with_incomplete_labels_are_not_used(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in ('weight=0', 'held_out=true', 'only_recall=true'):
        words = ['--config', str(cases), f'--cases.rock.{change}']
        assert main(words) == 1
        assert 'no threshold can be chosen' in capsys.readouterr().err.splitlines()[-1]


def test_the_table_marks_the_best_and_the_current_threshold(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--thresholds', '0.1', '0.3', '--cases.none', '{"source": {"path": "nowhere"}}']
    assert main(['--config', str(cases), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith('0.')]
    assert [row[0] for row in rows] == ['0.100', '0.300', '0.900']
    assert rows[1][1:4] == ['<-', 'best', '1.0000']
    assert rows[2][1] == 'current'
    assert lines[-1].startswith('missing: none: nowhere')


@pytest.mark.parametrize('weights', ['weights_file', 'rim_weights_file'])
@pytest.mark.parametrize('threshold', [0.1, 0.42, 0.5, 0.77])
def test_cached_results_at_a_threshold_equal_those_of_the_segmenter(
    threshold: float, weights: str, small_image: NDArray[np.uint8], request: pytest.FixtureRequest
) -> None:
    file: Path = request.getfixturevalue(weights)
    segmenter = Segmenter(load_weights(file), 'cpu', backend='torch')
    cache = ProbabilityCache(segmenter)
    rock = cache.at(small_image, NO_PERTURBATION, 1e-5).confidence.astype(int)
    whole = 255 - segmenter.segment(small_image, 1 - 1e-6).confidence.astype(int)
    threshold = float(np.quantile(whole, threshold)) / 255 - 0.2 / 255  # where some are rock
    result = cache.at(small_image, NO_PERTURBATION, threshold)
    wanted = segmenter.segment(small_image, threshold)
    near = (np.abs(rock - threshold * 255) < 1) | (np.abs(whole - threshold * 255) < 1)
    assert 0 < wanted.mask().mean() < 255
    assert not near.all()
    assert np.array_equal(result.class_ids[~near], wanted.class_ids[~near])
    assert np.abs(result.confidence.astype(int) - wanted.confidence)[~near].max() <= 1


def test_writing_the_threshold_does_not_change_the_tensors(
    weights_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'own.safetensors'
    file.write_bytes(weights_file.read_bytes())
    write_threshold(file, 0.37)
    before, after = load_weights(weights_file).metadata, load_weights(file).metadata
    assert after.threshold == 0.37
    assert before.metrics == after.metrics
    with safe_open(weights_file, 'pt') as one, safe_open(file, 'pt') as other:
        names = list(one.keys())
        assert names == list(other.keys())
        for name in names:
            ours, theirs = one.get_tensor(name), other.get_tensor(name)
            assert ours.dtype == theirs.dtype
            assert bool((ours == theirs).all())


def test_the_command_writes_the_chosen_threshold(
    cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Path, float]] = []
    monkeypatch.setattr('training.tune.write_threshold', lambda *what: written.append(what))
    tuned(cases, capsys)
    assert not written
    tuned(cases, capsys, '--write')
    assert written == [(Path('w.safetensors'), 0.3)]


@pytest.mark.parametrize(
    ('words', 'result'),
    [
        (['--thresholds', '0.5', '1.5'], 'thresholds must be between 0 and 1'),
        (['--cases.rock.source.path=nowhere', '--only', 'rock'], 'nowhere'),
        (['--cases.rock.weight=-1'], 'weight must be 0 or more, not -1'),
        (['--cases.ground.most_false_rock=2'], 'most_false_rock must be 0 to 1, not 2'),
    ],
)
def test_an_error_is_reported_in_one_line_with_status_1(
    words: list[str], result: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), *words]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('training.tune: ')
    assert result in last


def test_the_curve_is_printed_although_it_cannot_be_written(cases: Path, capsys: Any) -> None:
    assert main(['--config', str(cases), '--json', '--write']) == 1
    assert json.loads(capsys.readouterr().out)['threshold']


def test_write_needs_a_safetensors_file(
    cases: Path, network: FakeSegmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    network.weights.path = Path('w.onnx')
    assert main(['--config', str(cases), '--write']) == 1
    assert 'w.onnx: --write needs a .safetensors file' in capsys.readouterr().err
