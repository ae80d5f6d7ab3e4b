# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import cv2
import pytest
import torch
import yaml

from training.config import (
    LossConfig,
    MachineConfig,
    Stage,
    TrainingConfig,
)
from training.curves import read_rows
from training.datasets import DataError, DatasetConfig, Sample, find_samples
from training.run_folder import (
    CurveWriter,
    ValidationImageWriter,
    code_version,
    describe_run,
)

AREA = (0.5, 1.0)


@pytest.fixture
def config(own_discs: Path, tmp_path: Path) -> TrainingConfig:
    source = DatasetConfig(str(own_discs), val_fraction=0.4)
    return TrainingConfig({'mine': source}, str(tmp_path / 'run'), [Stage(100, 32, AREA)])


def samples(config: TrainingConfig) -> dict[str, list[Sample]]:
    return {name: find_samples(s, 'all', config.classes) for name, s in config.sources.items()}


def test_a_run_records_code_version_packages_and_data(config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    described = json.loads((Path(config.run) / 'run.json').read_text())
    assert described['code'] == code_version()
    assert described['packages']['torch'] == version('torch')
    mine = described['sources']['mine']
    assert mine['train'] + mine['val'] == 5
    assert len(mine['sha256']) == 64
    written = yaml.safe_load((Path(config.run) / 'config.yaml').read_text())
    assert written['stages'][0]['area'] == [0.5, 1.0]


def test_the_code_version_is_dirty_after_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_resumed_run_records_code_version_and_machine(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    describe_run(config, samples(config), resume=False)
    began = code_version()
    Path(config.sources['mine'].path).rename(tmp_path / 'moved')
    moved = replace(config, sources={'mine': replace(config.sources['mine'], path='moved')})
    monkeypatch.chdir(tmp_path)
    for code, workers in (('b', 2), ('c', 0)):
        monkeypatch.setattr('training.run_folder.code_version', lambda commit=code: commit)
        other = replace(moved, machine=MachineConfig(workers=workers), run='./run')
        describe_run(other, samples(other), resume=True)
    described = json.loads((Path(config.run) / 'run.json').read_text())
    assert (described['code'], described['resumed_with']) == (began, ['b', 'c'])
    written = yaml.safe_load((Path(config.run) / 'config.yaml').read_text())
    assert (written['machine']['workers'], written['sources']['mine']['path']) == (0, 'moved')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'loss': LossConfig(aux_weight=0.2)}, 'loss.aux_weight is 0.4; .* changed to 0.2'),
        ({'stages': [Stage(100, 48, AREA)]}, 'stages.1.crop is 32; .* 48'),
        ({'stages': [Stage(100, 32, (0.1, 1.0))]}, r'stages.1.area is \[0.5, 1.0\]; .* \[0.1,'),
        ({'stages': [Stage(100, 32, AREA, {'mine': 1})]}, r'stages.1.shares.mine is None; .* 1 '),
        ({'stages': [Stage(100, 32, AREA)] * 2}, 'stages.2.steps is None; .* 100'),
        ({'seed': 1}, 'seed is 0; .* 1'),
    ],
)
def test_a_run_is_not_resumed_with_different_settings(
    changes: dict[str, Any], message: str, config: TrainingConfig
) -> None:
    describe_run(config, samples(config), resume=False)
    describe_run(config, samples(config), resume=True)
    before = (Path(config.run) / 'config.yaml').read_text()
    with pytest.raises(DataError, match=rf'run/config\.yaml: {message}'):
        describe_run(replace(config, **changes), samples(config), resume=True)
    assert (Path(config.run) / 'config.yaml').read_text() == before


def test_a_run_of_an_older_version_is_resumed(config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    file = Path(config.run) / 'config.yaml'
    written = yaml.safe_load(file.read_text())
    assert written['sources']['mine'].pop('images') == ''
    written['sure'] = written.pop('pseudo_label_threshold')
    file.write_text(yaml.safe_dump(written))
    describe_run(config, samples(config), resume=True)


def test_a_run_is_not_resumed_with_a_different_class_map(config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    greys = {'0': 'background', '255': 'ignore'}
    other = replace(config, sources={'mine': replace(config.sources['mine'], class_map=greys)})
    with pytest.raises(DataError, match=r'sources\.mine\.class_map\.0 is None'):
        describe_run(other, samples(other), resume=True)


@pytest.mark.parametrize('text', ['{', 'a list', 'sources: 3', 'run: r'])
def test_an_invalid_recorded_configuration_is_reported(text: str, config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    (Path(config.run) / 'config.yaml').write_text(text)
    with pytest.raises(DataError, match=r'config\.yaml: is not the configuration'):
        describe_run(config, samples(config), resume=True)


def test_a_full_disk_does_not_damage_the_records(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: Any, *_: Any, **__: Any) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, 'No space left on device')

    describe_run(config, samples(config), resume=False)
    before = {file: file.read_bytes() for file in Path(config.run).iterdir()}
    monkeypatch.setattr(Path, 'write_bytes', full)
    monkeypatch.setattr(Path, 'write_text', full)
    for resume in (False, True):
        with pytest.raises(OSError, match='cannot be written: No space left'):
            describe_run(config, samples(config), resume=resume)
        assert {file: file.read_bytes() for file in Path(config.run).iterdir()} == before


def swap_the_split(data: Path) -> None:
    manifest = data / 'manifest.csv'
    swapped = {'train': 'val', 'val': 'train'}
    rows = [row.split(',') for row in manifest.read_text().splitlines()]
    changed = [f'{name},{swapped.get(split, split)}' for name, split in rows]
    manifest.write_text('\n'.join(changed))


def test_a_run_is_not_resumed_with_train_and_val_swapped(
    config: TrainingConfig,
) -> None:
    data = Path(config.sources['mine'].path)
    rows = ['id,split', '0,train', '1,train', '2,val', '3,val', '4,']
    (data / 'manifest.csv').write_text('\n'.join(rows))
    describe_run(config, samples(config), resume=False)
    swap_the_split(data)
    with pytest.raises(DataError, match='the data of source mine have changed'):
        describe_run(config, samples(config), resume=True)


def change_a_mask(data: Path) -> None:
    mask = cv2.imread(str(data / 'masks/0.png'), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(data / 'masks/0.png'), 255 - mask)


def remove_an_image(data: Path) -> None:
    (data / 'masks/0.png').unlink()


def change_the_split(data: Path) -> None:
    rows = [f'{number},{"val" if number else "train"}' for number in range(5)]
    (data / 'manifest.csv').write_text('\n'.join(['id,split', *rows]))


@pytest.mark.parametrize('change', [change_a_mask, remove_an_image, change_the_split])
def test_a_run_is_not_resumed_with_changed_data(change: Any, config: TrainingConfig) -> None:
    describe_run(config, samples(config), resume=False)
    describe_run(config, samples(config), resume=True)
    change(Path(config.sources['mine'].path))
    with pytest.raises(DataError, match='the data of source mine have changed'):
        describe_run(config, samples(config), resume=True)


def test_a_run_is_not_resumed_without_a_source(config: TrainingConfig) -> None:
    both = samples(config) | {'more': samples(config)['mine'][:2]}
    describe_run(config, both, resume=False)
    with pytest.raises(DataError, match='data of source more have changed'):
        describe_run(config, samples(config), resume=True)


def trainer(step: int, **more: Any) -> Any:
    figures = {'loss': torch.tensor(step / 10.0), 'lr': torch.tensor(0.5)}
    given = {'global_step': step, 'callback_metrics': figures, 'is_global_zero': True}
    return SimpleNamespace(**(given | {'accumulate_grad_batches': 1} | more))


def test_the_loss_of_a_step_is_the_mean_of_its_micro_batches(tmp_path: Path) -> None:
    curves = CurveWriter(tmp_path)
    # The step number increases with the last micro-batch of a step.
    for step, loss in [(0, 1.0), (1, 3.0), (1, 2.0), (2, 5.0)]:
        figures = {'loss': torch.tensor(loss)}
        now = trainer(step, callback_metrics=figures, accumulate_grad_batches=2)
        curves.on_train_batch_end(now, None)  # type: ignore[arg-type]
    curves.on_train_epoch_end(trainer(2, callback_metrics={}), None)  # type: ignore[arg-type]
    assert read_rows(tmp_path) == [(1, 'loss', 2.0), (2, 'loss', 3.5)]


def test_losses_are_not_copied_before_the_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    for name in ('__float__', 'item', 'tolist', 'cpu', 'numpy'):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda own, *_, n=name, p=plain: fetched.append(n) or p(own)
        )
    logger = Mock()
    curves, now = CurveWriter(tmp_path, logger), trainer(1)
    for step in (1, 2, 3):
        now = trainer(step)
        curves.on_train_batch_end(now, None)  # type: ignore[arg-type]
        now.callback_metrics['loss'].zero_()  # Lightning may reuse the tensor
    assert fetched == []
    curves.on_train_epoch_end(now, None)  # type: ignore[arg-type]
    assert fetched
    logged = [call.args for call in logger.log_metrics.call_args_list]
    expected = [({'loss': pytest.approx(s / 10), 'lr': 0.5}, s) for s in (1, 2, 3)]
    assert logged == expected
    losses = [row for row in read_rows(tmp_path) if row[1] == 'loss']
    assert [(step, pytest.approx(value)) for step, _, value in losses] == [
        (1, 0.1), (2, 0.2), (3, 0.3)
    ]  # fmt: skip


def test_the_curves_of_a_resumed_run_have_each_step_once(tmp_path: Path) -> None:
    def run(curves: CurveWriter, first: int, last: int) -> None:
        if first > 1:
            curves.on_train_start(trainer(first - 1), None)  # type: ignore[arg-type]
        for step in range(first, last + 1):
            curves.on_train_batch_end(trainer(step), None)  # type: ignore[arg-type]
        curves.on_train_epoch_end(trainer(last), None)  # type: ignore[arg-type]

    run(CurveWriter(tmp_path), 1, 4)  # killed before the checkpoint that belongs to step 4
    run(CurveWriter(tmp_path), 3, 6)
    rows = read_rows(tmp_path)
    assert [step for step, name, _ in rows if name == 'loss'] == [1, 2, 3, 4, 5, 6]
    assert [step for step, name, _ in rows if name == 'lr'] == [6]


def test_validation_images_of_all_sources_are_in_one_row(tmp_path: Path) -> None:
    images = ValidationImageWriter(tmp_path)
    for source, (height, width) in enumerate([(40, 60), (20, 50)]):
        for number in range(4):  # of which two are drawn
            batch = (torch.full((1, 3, height, width), 90, dtype=torch.uint8), None)
            found = torch.ones(height, width, dtype=torch.long)
            images.on_validation_batch_end(
                trainer(7),
                None,  # type: ignore[arg-type]
                found,
                batch,
                number,
                source,
            )
    images.on_validation_end(trainer(7), None)  # type: ignore[arg-type]
    sheet = cv2.imread(str(tmp_path / 'images/step_000007.jpg'))
    assert sheet.shape == (20, 2 * 30 + 2 * 50, 3)
    assert len(list((tmp_path / 'images').iterdir())) == 1


def test_wide_validation_images_fit_into_one_jpeg_file(tmp_path: Path) -> None:
    images = ValidationImageWriter(tmp_path)
    for source in range(6):
        for number in range(2):
            batch = (torch.full((1, 3, 64, 6000), 90, dtype=torch.uint8), None)
            found = torch.zeros(64, 6000, dtype=torch.long)
            images.on_validation_batch_end(trainer(7), None, found, batch, number, source)  # type: ignore[arg-type]
    images.on_validation_end(trainer(7), None)  # type: ignore[arg-type]
    height, width = cv2.imread(str(tmp_path / 'images/step_000007.jpg')).shape[:2]
    assert height == 14
    assert 15000 < width <= 16384


def test_an_image_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/step_000007.jpg').mkdir()
    images = ValidationImageWriter(tmp_path)
    batch = (torch.full((1, 3, 20, 30), 90, dtype=torch.uint8), None)
    found = torch.ones(20, 30, dtype=torch.long)
    images.on_validation_batch_end(trainer(7), None, found, batch, 0)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r'step_000007\.jpg: cannot be written: Is a directory'):
        images.on_validation_end(trainer(7), None)  # type: ignore[arg-type]
