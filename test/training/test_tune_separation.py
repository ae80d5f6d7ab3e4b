# SPDX-License-Identifier: Apache-2.0
"""Settings of the separation are compared on the tuning half, at the threshold of the weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from training.tune_separation import main

CENTRES = ((30, 40), (56, 40))  # of two stones with a radius of 16 px that touch


class FakeSegmenter:
    """Finds two bright stones, and a part of the rim between them."""

    def __init__(self) -> None:
        self.metadata = ModelMetadata(classes=('background', 'rock', 'rim'))
        self.weights = SimpleNamespace(metadata=self.metadata, path=Path('w.safetensors'))
        self.calls = 0

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.calls += 1
        rock = image[..., 0] > 100
        rim = np.zeros_like(rock)
        rim[:38, 42:45] = rock[:38, 42:45]
        ids = np.where(rim, 2, rock).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 230), (1,), 2)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenter:
    made = FakeSegmenter()
    monkeypatch.setattr('training.tune_separation.load_weights', lambda *_: made.weights)
    monkeypatch.setattr('training.tune_separation.Segmenter', lambda *_, **__: made)
    return made


@pytest.fixture
def config(tmp_path: Path, network: FakeSegmenter) -> list[str]:
    for part in ('images', 'masks', 'instances'):
        (tmp_path / part).mkdir()
    for number in range(4):
        ids = np.zeros((80, 96), np.uint8)
        for stone, centre in enumerate(CENTRES, start=1):
            cv2.circle(ids, centre, 16, stone, -1)
        cv2.imwrite(str(tmp_path / f'images/{number}.png'), np.where(ids > 0, 200, number))
        cv2.imwrite(str(tmp_path / f'masks/{number}.png'), np.where(ids > 0, 255, 0))
        cv2.imwrite(str(tmp_path / f'instances/{number}.png'), ids)
    file = tmp_path / 'cases.yaml'
    stones = {'source': {'path': str(tmp_path)}, 'split': 'all'}
    file.write_text(yaml.safe_dump({'cases': {'stones': stones}}))
    return ['--config', str(file)]


def test_the_settings_that_separate_the_rocks_come_first(
    config: list[str], network: FakeSegmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*config, '--rim_share', '0.9', '0.001', '--cells', '20']) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if '.0000' in line]
    scores = {' '.join(row[:-3]): [float(value) for value in row[-3:]] for row in rows}
    assert set(scores) == {'defaults', 'rim_share 0.9', 'rim_share 0.001', 'cells 20'}
    assert scores['defaults'] == scores['rim_share 0.001'] == [1, 1, 1]
    assert scores['rim_share 0.9'][2] == 0.5, 'the stones are one rock, which matches one of them'
    assert list(scores)[-1] == 'rim_share 0.9'
    assert network.calls == 2, 'each of the two images of the tuning half is segmented once'


def test_only_cases_whose_rocks_are_all_labelled_are_compared(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stones = {'source': {'path': str(tmp_path)}, 'split': 'all'}
    cases = {
        'stones': stones,
        'some': stones | {'only_recall': True},
        'empty': {
            'source': {
                'path': str(tmp_path),
                'class_map': {'0': 'background', '255': 'background'},
            },
            'split': 'all',
        },
    }
    Path(config[1]).write_text(yaml.safe_dump({'cases': cases}))
    assert main(config) == 0
    heads = capsys.readouterr().out
    assert 'stones: recall' in heads
    assert 'some' not in heads
    assert 'empty' not in heads


def test_cases_without_labelled_rocks_cannot_be_compared(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_rock = {'path': str(tmp_path), 'class_map': {'0': 'background', '255': 'background'}}
    Path(config[1]).write_text(
        yaml.safe_dump({'cases': {'empty': {'source': no_rock, 'split': 'all'}}})
    )
    assert main(config) == 1
    message = 'training.tune_separation: no case has labelled rocks, so no setting can be chosen'
    assert capsys.readouterr().err.splitlines()[-1] == message


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--softness', '0'], 'softness must be above 0, not 0'),
        (['--only', 'none'], "unknown case 'none'; expected: stones"),
    ],
)
def test_an_invalid_value_is_reported_in_one_line(
    words: list[str], message: str, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*config, *words]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f'training.tune_separation: {message}'


def test_weights_without_rims_are_rejected(
    config: list[str], network: FakeSegmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    network.weights.metadata = ModelMetadata()
    assert main(config) == 1
    assert 'w.safetensors: has no class rim' in capsys.readouterr().err
