# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
import yaml

from training.config import Stage, TrainingConfig
from training.run_folder import (
    Curves,
    PicturesOfProgress,
    code_version,
    describe_run,
    read_curves,
)
from training.sources import DataError, Sample, SourceConfig, find_samples


@pytest.fixture
def config(own_discs: Path, tmp_path: Path) -> TrainingConfig:
    source = SourceConfig(str(own_discs), val_fraction=0.4)
    return TrainingConfig({'mine': source}, str(tmp_path / 'run'), [Stage(100, 32, (0.5, 1.0))])


def samples(config: TrainingConfig) -> dict[str, list[Sample]]:
    return {name: find_samples(s, 'all', config.classes) for name, s in config.sources.items()}


def test_the_run_says_code_packages_and_data(config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    described = json.loads((Path(config.run) / 'run.json').read_text())
    assert described['code'] == code_version()
    assert described['packages']['torch'] == version('torch')
    mine = described['sources']['mine']
    assert mine['train'] + mine['val'] == 5
    assert len(mine['sha256']) == 64
    written = yaml.safe_load((Path(config.run) / 'config.yaml').read_text())
    assert written['stages'][0]['area'] == [0.5, 1.0]


def test_the_code_version_tells_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> str:
        given = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *command]
        return subprocess.run(
            given, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / 'run_folder.py').write_text('old')
    git('init')
    git('add', '.')
    git('commit', '--message=first')
    monkeypatch.setattr('training.run_folder.__file__', str(tmp_path / 'run_folder.py'))
    commit = git('rev-parse', '--short=12', 'HEAD')
    assert code_version() == commit
    (tmp_path / 'run_folder.py').write_text('new')
    assert code_version() == f'{commit}-dirty'


def change_a_mask(data: Path) -> None:
    mask = cv2.imread(str(data / 'masks/0.png'), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(data / 'masks/0.png'), 255 - mask)


def take_a_picture_away(data: Path) -> None:
    (data / 'masks/0.png').unlink()


def change_the_split(data: Path) -> None:
    rows = [f'{number},{"val" if number else "train"}' for number in range(5)]
    (data / 'manifest.csv').write_text('\n'.join(['id,split', *rows]))


@pytest.mark.parametrize('change', [change_a_mask, take_a_picture_away, change_the_split])
def test_a_run_does_not_go_on_with_other_data(change: Any, config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    describe_run(config, samples(config), resume=True)
    change(Path(config.sources['mine'].path))
    with pytest.raises(DataError, match='source mine is not what the run began with'):
        describe_run(config, samples(config), resume=True)


def test_a_run_does_not_go_on_without_a_source(config: TrainingConfig) -> None:
    both = samples(config) | {'more': samples(config)['mine'][:2]}
    describe_run(config, both, resume=False)
    with pytest.raises(DataError, match='source more is not'):
        describe_run(config, samples(config), resume=True)


def trainer(step: int, **more: Any) -> Any:
    figures = {'loss': torch.tensor(step / 10.0), 'lr': torch.tensor(0.5)}
    given = {'global_step': step, 'callback_metrics': figures, 'is_global_zero': True}
    return SimpleNamespace(**(given | {'accumulate_grad_batches': 1} | more))


def test_a_step_in_parts_has_one_loss_the_mean(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    # The step's number rises with its last part.
    for step, loss in [(0, 1.0), (1, 3.0), (1, 2.0), (2, 5.0)]:
        figures = {'loss': torch.tensor(loss)}
        now = trainer(step, callback_metrics=figures, accumulate_grad_batches=2)
        curves.on_train_batch_end(now, None)  # type: ignore[arg-type]
    curves.on_train_epoch_end(trainer(2, callback_metrics={}), None)  # type: ignore[arg-type]
    assert read_curves(tmp_path / 'curves.csv') == [(1, 'loss', 2.0), (2, 'loss', 3.5)]


def test_a_run_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    def run(curves: Curves, first: int, last: int) -> None:
        if first > 1:
            curves.on_train_start(trainer(first - 1), None)  # type: ignore[arg-type]
        for step in range(first, last + 1):
            curves.on_train_batch_end(trainer(step), None)  # type: ignore[arg-type]
        curves.on_train_epoch_end(trainer(last), None)  # type: ignore[arg-type]

    run(Curves(tmp_path), 1, 4)  # killed before the checkpoint that belongs to step 4
    run(Curves(tmp_path), 3, 6)
    rows = read_curves(tmp_path / 'curves.csv')
    assert [step for step, name, _ in rows if name == 'loss'] == [1, 2, 3, 4, 5, 6]
    assert [step for step, name, _ in rows if name == 'lr'] == [6]


def test_pictures_of_all_sources_are_side_by_side(tmp_path: Path) -> None:
    pictures = PicturesOfProgress(tmp_path)
    for source, (height, width) in enumerate([(40, 60), (20, 50)]):
        for number in range(4):  # of which two are drawn
            batch = (torch.full((1, 3, height, width), 90, dtype=torch.uint8), None)
            found = torch.ones(height, width, dtype=torch.long)
            pictures.on_validation_batch_end(
                trainer(7),
                None,  # type: ignore[arg-type]
                found,
                batch,
                number,
                source,
            )
    pictures.on_validation_end(trainer(7), None)  # type: ignore[arg-type]
    sheet = cv2.imread(str(tmp_path / 'pictures/step_000007.jpg'))
    assert sheet.shape == (20, 2 * 30 + 2 * 50, 3)
    assert len(list((tmp_path / 'pictures').iterdir())) == 1
