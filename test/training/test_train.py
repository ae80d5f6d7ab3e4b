# SPDX-License-Identifier: Apache-2.0
"""A resumed training has the same result as an uninterrupted one, and files are complete."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import cv2
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from training.arguments import argument_parser, read_config, to_config
from training.augmentation import AugmentationConfig
from training.config import LossConfig, MachineConfig, OptimizerConfig, Stage, TrainingConfig
from training.curves import read_rows
from training.data_module import RockDataModule
from training.datasets import DataError, DatasetConfig
from training.datasets.labelme import labelme_labels
from training.losses import segmentation_loss
from training.train import HINTS, _trainer, main, train

ROOT = Path(__file__).parents[2]
CPU = MachineConfig(accelerator='cpu', workers=0)
TWO_PROCESSES = """
import os
import runpy
import sys
from pathlib import Path

import torch

import training.data_module
import training.module

test, notes = runpy.run_path(sys.argv.pop(1)), Path(sys.argv.pop(1))
sys.argv[1:1] = [str(test['__file__']), str(notes)]  # the second process is started with these
rank = os.environ.get('LOCAL_RANK', '0')
training.module.build = lambda metadata, aux: test['Tiny'](plain=True)
crop = training.data_module.RandomCrops.__getitem__


def noted(self, draw):
    with (notes / f'draws_{rank}').open('a') as file:
        print(draw, file=file)
    return crop(self, draw)


training.data_module.RandomCrops.__getitem__ = noted
training.module.RockSegmentation.on_train_end = lambda self: torch.save(
    self.model.state_dict(), notes / f'weights_{rank}.pt'
)
from training.train import main

sys.exit(main(sys.argv[3:]))
"""


class Tiny(nn.Module):
    """A tiny network with an auxiliary head; `plain` = without batch norm and dropout."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        more = () if plain else (nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *more)
        self.out = nn.Conv2d(8, 2, 1)
        self.aux = nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.backbone(images)
        return {'out': self.out(features), 'aux': self.aux(features)}


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('training.module.build', lambda metadata, aux: Tiny())


@pytest.fixture
def plain_network(tiny_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('training.module.build', lambda metadata, aux: Tiny(plain=True))


def small(data: Path, run: Path, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        sources={'discs': DatasetConfig(str(data))},
        run=str(run),
        stages=[Stage(2, 48, (0.5, 1.0)), Stage(2, 64, (0.5, 1.0))],
        start_from='',
        batch_size=4,
        optimizer=OptimizerConfig(warmup_steps=1, learning_rate=1e-2),
        machine=CPU,
        steps_per_epoch=2,
    )
    return dataclasses.replace(config, **changes)


def arguments(config: TrainingConfig) -> list[str]:
    """Writes a configuration next to its run folder; returns the command line that reads it."""
    file = Path(f'{config.run}.yaml')
    file.write_text(json.dumps(dataclasses.asdict(config)))
    return ['--config', str(file)]


def load(run: Path, name: str = 'last') -> dict:
    return torch.load(run / f'checkpoints/{name}.ckpt', weights_only=True)


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(step, value) for step, n, value in read_rows(run) if n == name]


def assert_same_end(one: Path, two: Path) -> None:
    first, second = load(one), load(two)
    assert first['global_step'] == second['global_step'] == 4
    for part in ('state_dict', 'current_model_state'):
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), name
    assert (one / 'curves.csv').read_text() == (two / 'curves.csv').read_text()


def in_a_process(fault: Callable[[pytest.MonkeyPatch], None], given: list[str]) -> int:
    """Trains in a separate process; returns its exit status, negative if a signal ended it."""
    script = 'import runpy, sys; runpy.run_path(sys.argv[1])["train_with_fault"](*sys.argv[2:])'
    command = [sys.executable, '-c', script, __file__, fault.__name__, *given]
    return subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode


def train_with_fault(fault: str, *given: str) -> None:
    """Injects a fault and trains; the separate process calls this."""
    torch.set_num_threads(1)  # as in the tests, because sums depend on it
    patch = pytest.MonkeyPatch()
    patch.setattr('training.module.build', lambda metadata, aux: Tiny())
    globals()[fault](patch)
    sys.exit(main(list(given)))


@pytest.fixture(scope='module')
def complete_run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp('complete')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('training.module.build', lambda metadata, aux: Tiny())
        train(small(discs, run))
    return run


def test_a_resumed_run_has_the_result_of_an_uninterrupted_one(
    discs: Path, complete_run: Path, tmp_path: Path
) -> None:
    config = small(discs, tmp_path, machine=dataclasses.replace(CPU, workers=1))
    train(config, stop_after=1)
    assert load(tmp_path)['global_step'] == 2
    train(config, resume=True)
    assert_same_end(tmp_path, complete_run)


def kill_in_the_middle_of_an_epoch(patch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))  # two per step: logits and auxiliary logits

    def loss(*given: object) -> Tensor:
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return segmentation_loss(*given)  # type: ignore[arg-type]

    patch.setattr('training.module.segmentation_loss', loss)


def kill_in_the_middle_of_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    saves, save = iter(range(100)), torch.save

    def save_half(checkpoint: object, file: Path) -> None:
        save(checkpoint, file)
        if next(saves) == 3:  # best and last of the first epoch and best of the second are written
            os.truncate(file, file.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(torch, 'save', save_half)


@pytest.mark.parametrize(
    'kill', [kill_in_the_middle_of_an_epoch, kill_in_the_middle_of_a_checkpoint]
)
def test_a_killed_run_is_resumed_with_the_same_result(
    kill: Callable[[pytest.MonkeyPatch], None],
    discs: Path,
    complete_run: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / 'run'
    config = small(discs, run)
    assert in_a_process(kill, arguments(config)) == -signal.SIGKILL
    assert load(run)['global_step'] == 2
    train(config, resume=True)
    assert_same_end(run, complete_run)
    assert list(tmp_path.rglob('.writing-*')) == [], 'temporary files are removed'


def fill_the_disk(patch: pytest.MonkeyPatch) -> None:
    size = int(os.environ['LARGEST_FILE'])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_reported_in_one_line_and_keeps_the_previous_checkpoint(
    discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = small(discs, tmp_path / 'run')
    train(config, stop_after=1)
    size = (tmp_path / 'run/checkpoints/last.ckpt').stat().st_size
    monkeypatch.setenv('LARGEST_FILE', str(size // 2))
    capfd.readouterr()
    assert in_a_process(fill_the_disk, [*arguments(config), '--resume']) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if 'training.train' in line]
    assert len(errors) == 1
    assert 'ckpt' in errors[0]
    assert load(tmp_path / 'run')['global_step'] == 2
    assert list((tmp_path / 'run').rglob('.writing-*')) == []


@pytest.mark.parametrize('has_instances', [False, True])
def test_rims_without_instances_to_learn_them_from_cause_a_warning(
    has_instances: bool,
    own_discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if has_instances:
        shutil.copytree(own_discs / 'masks', own_discs / 'instances')
    trainer = Mock(world_size=1, fit=Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr('training.train._trainer', lambda *_: trainer)
    with pytest.raises(KeyboardInterrupt):
        train(small(own_discs, tmp_path / 'run', rim_width=1.5))
    warned = 'rim_width is 1.5, but no training image has instances' in capsys.readouterr().err
    assert warned is not has_instances


def press_ctrl_c(patch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def loss(*given: object) -> Tensor:
        if next(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return segmentation_loss(*given)  # type: ignore[arg-type]

    patch.setattr('training.module.segmentation_loss', loss)


def test_ctrl_c_prints_how_to_continue(
    discs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = arguments(small(discs, tmp_path / 'run'))
    assert in_a_process(press_ctrl_c, given) == 130
    errors = capfd.readouterr().err
    assert 'Traceback' not in errors
    assert errors.count('--resume') == 1
    assert load(tmp_path / 'run')['global_step'] == 2


def test_resuming_a_finished_run_changes_nothing(
    discs: Path, complete_run: Path, tmp_path: Path
) -> None:
    config = small(discs, tmp_path)
    train(config)
    train(config, resume=True)
    assert_same_end(tmp_path, complete_run)


def test_resuming_with_changed_data_is_an_error(own_discs: Path, tmp_path: Path) -> None:
    config = small(own_discs, tmp_path / 'run')
    train(config, stop_after=1)
    image = cv2.imread(str(own_discs / 'images/0.png'))
    cv2.imwrite(str(own_discs / 'images/0.png'), image // 2)
    with pytest.raises(
        DataError, match='run: the data of source discs have changed since the run began'
    ):
        train(config, resume=True)
    assert load(tmp_path / 'run')['global_step'] == 2


def test_resuming_with_changed_settings_is_an_error_that_names_the_setting(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(discs, tmp_path / 'run')
    train(config, stop_after=1)
    given = [*arguments(config), '--resume']
    capsys.readouterr()
    assert main([*given, '--optimizer.learning_rate=0.1']) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'training.train' in line]
    assert line.endswith(
        'config.yaml: optimizer.learning_rate is 0.01; it cannot be changed to 0.1 when the run is'
        ' resumed'
    )
    assert load(tmp_path / 'run')['global_step'] == 2
    assert main([*given, '--machine.workers=1']) == 0
    assert load(tmp_path / 'run')['global_step'] == 4


def test_an_existing_run_is_not_overwritten(discs: Path, complete_run: Path) -> None:
    before = (complete_run / 'checkpoints/last.ckpt').stat()
    with pytest.raises(DataError, match='--resume'):
        train(small(discs, complete_run))
    assert (complete_run / 'checkpoints/last.ckpt').stat().st_mtime_ns == before.st_mtime_ns


def test_resuming_a_run_without_checkpoint_is_an_error(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='does not exist, so there is no run to resume'):
        train(small(discs, tmp_path), resume=True)


@pytest.mark.parametrize('reason', list(HINTS))
def test_too_little_memory_and_a_damaged_checkpoint_are_reported_in_one_line(
    reason: str, discs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    error = RuntimeError(f'{reason} 1. Tried to allocate 2 GiB')
    monkeypatch.setattr('training.module.segmentation_loss', Mock(side_effect=error))
    assert main(arguments(small(discs, tmp_path / 'run'))) == 1
    assert f'training.train: {reason} 1; ' in capsys.readouterr().err.splitlines()[-1]


def test_the_curves_have_loss_learning_rate_and_validation_metrics(complete_run: Path) -> None:
    assert [step for step, _ in curve(complete_run, 'loss')] == [1, 2, 3, 4]
    assert [step for step, _ in curve(complete_run, 'val_iou')] == [2, 4]
    assert curve(complete_run, 'val_iou') == curve(complete_run, 'val_discs_iou')
    events = EventAccumulator(str(complete_run / 'tensorboard')).Reload()
    rates = [event.value for event in events.Scalars('lr')]
    assert rates == pytest.approx([1e-2 * (1 - step / 4) ** 0.9 for step in range(4)])
    losses = [event.value for event in events.Scalars('loss')]
    assert losses == pytest.approx([value for _, value in curve(complete_run, 'loss')])


def test_a_checkpoint_has_the_averaged_and_the_current_weights(complete_run: Path) -> None:
    checkpoint = load(complete_run)
    averaged, current = checkpoint['state_dict'], checkpoint['current_model_state']
    assert averaged.keys() == current.keys()
    assert not torch.equal(averaged['model.out.weight'], current['model.out.weight'])
    assert checkpoint['averaging_state']['n_averaged'] == 4


def test_without_averaging_a_checkpoint_has_only_the_current_weights(
    discs: Path, tmp_path: Path
) -> None:
    plain = OptimizerConfig(ema_decay=0, warmup_steps=1)
    config = small(discs, tmp_path, optimizer=plain)
    train(config, stop_after=1)
    train(config, resume=True)
    assert 'averaging_state' not in load(tmp_path)
    assert load(tmp_path)['global_step'] == 4


@pytest.mark.parametrize(('name', 'state'), [('sgd', 'momentum_buffer'), ('adamw', 'exp_avg')])
def test_the_configured_optimizer_is_used(
    name: str, state: str, discs: Path, tmp_path: Path
) -> None:
    settings = OptimizerConfig(name=name, schedule='cosine', learning_rate=1e-2, warmup_steps=0)
    train(small(discs, tmp_path, optimizer=settings))
    (optimizer,) = load(tmp_path)['optimizer_states']
    assert state in optimizer['state'][0]
    losses = [value for _, value in curve(tmp_path, 'loss')]
    assert len(losses) == 4
    assert all(value < 5 for value in losses)


def test_a_backbone_with_rate_zero_is_not_trained(discs: Path, tmp_path: Path) -> None:
    config = small(discs, tmp_path)
    config = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, backbone_rate=0.0)
    )
    train(config)
    events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    assert events.Scalars('lr')[0].value == pytest.approx(config.optimizer.learning_rate)
    torch.manual_seed(config.seed)
    fresh = Tiny().state_dict()
    trained = load(tmp_path)['current_model_state']
    same = {name for name in fresh if torch.equal(trained[f'model.{name}'], fresh[name])}
    assert same == {name for name in fresh if name.startswith('backbone.')}


def test_a_checkpoint_has_the_configuration_of_its_sources(complete_run: Path, discs: Path) -> None:
    checkpoint = load(complete_run)
    (source,) = checkpoint['sources']
    assert DatasetConfig(**source) == DatasetConfig(str(discs))
    assert checkpoint['classes'] == ['background', 'rock']


def test_the_auxiliary_head_is_trained(complete_run: Path) -> None:
    torch.manual_seed(0)
    fresh = Tiny().state_dict()['aux.weight']
    assert not torch.equal(load(complete_run)['current_model_state']['model.aux.weight'], fresh)


def test_a_checkpoint_is_written_after_each_epoch(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError('the third step fails')

    monkeypatch.setattr(
        'training.module.segmentation_loss',
        lambda *a: fail() if (tmp_path / 'checkpoints').exists() else segmentation_loss(*a),
    )
    with pytest.raises(RuntimeError, match='third step'):
        train(small(discs, tmp_path))
    assert load(tmp_path)['global_step'] == 2


@pytest.mark.parametrize('moved', [False, True])
def test_the_best_checkpoint_has_the_best_validation_result(
    moved: bool, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ious = iter([0.2, 0.6, 0.4])
    monkeypatch.setattr(
        'training.module.RockSegmentation.on_validation_epoch_end',
        lambda self: self.log('val_iou', torch.tensor(next(ious))),
    )
    config = small(discs, tmp_path / 'run', stages=[Stage(6, 48, (0.5, 1.0))])
    train(config, stop_after=2)
    run = Path(config.run)
    if moved:
        run = run.rename(tmp_path / 'moved')
    train(dataclasses.replace(config, run=str(run)), resume=True)
    assert (load(run, 'best')['global_step'], load(run)['global_step']) == (4, 6)
    assert sorted(f.name for f in (run / 'checkpoints').iterdir()) == [
        'best.ckpt',
        'last.ckpt',
    ]


def test_the_checkpoint_at_the_end_of_a_cycle_is_kept(discs: Path, tmp_path: Path) -> None:
    stages = [
        Stage(2, 48, (0.5, 1.0)),
        Stage(2, 48, (0.5, 1.0)),
        Stage(2, 48, (0.5, 1.0), learning_rate=1e-2),
    ]
    config = small(discs, tmp_path, stages=stages)
    train(config, stop_after=2)
    state = load(tmp_path)['state_dict']
    train(config, resume=True)
    kept = load(tmp_path, 'step4')
    assert (kept['global_step'], load(tmp_path)['global_step']) == (4, 6)
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept['state_dict'].items())
    assert not (tmp_path / 'checkpoints/step2.ckpt').exists()


def test_a_stage_can_use_self_training(discs: Path, tmp_path: Path, own_discs: Path) -> None:
    made: list[object] = []

    def segmenter(*_: object) -> object:
        made.append(None)
        return object()

    sources = {
        'discs': DatasetConfig(str(discs)),
        'more': DatasetConfig(str(own_discs / 'images'), format='unlabelled', val_fraction=0),
    }
    last = Stage(2, 48, (0.5, 1.0), {'more': 1}, self_train=['more'])
    config = small(discs, tmp_path, sources=sources, stages=[Stage(2, 48, (0.5, 1.0)), last])
    with pytest.MonkeyPatch.context() as patch:
        weights = SimpleNamespace(metadata=config.metadata())
        patch.setattr('training.self_training.load_weights', lambda path: weights)
        patch.setattr('training.self_training.Segmenter', segmenter)
        patch.setattr(
            'training.self_training.pseudo_labels',
            lambda _, image, threshold: (image[..., 0] > 100).astype('uint8'),
        )
        earlier_label = tmp_path / 'self_training/stage_1/more/3.png'
        earlier_label.parent.mkdir(parents=True)
        earlier_label.touch()
        train(config, stop_after=1)
        assert not earlier_label.exists()
        assert made == []
        train(config, resume=True)
    assert len(made) == 1
    labels = cv2.imread(str(tmp_path / 'self_training/stage_1/more/3.png'), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(str(own_discs / 'masks/3.png'), cv2.IMREAD_GRAYSCALE)
    assert (labels == mask // 255).all()


def deterministic(config: TrainingConfig) -> TrainingConfig:
    """Removes what makes the loss of a batch differ from the mean loss of its micro-batches."""
    return dataclasses.replace(
        config,
        loss=LossConfig(region='none'),
        augmentation=AugmentationConfig(rotation_p=0, perspective_p=0),
    )


@pytest.fixture
def plain_run(discs: Path, tmp_path: Path, plain_network: None) -> Path:
    run = tmp_path / 'plain'
    train(deterministic(small(discs, run)))
    return run


def assert_close_end(one: Path, two: Path) -> None:
    for name, tensor in load(one)['current_model_state'].items():
        assert torch.allclose(tensor, load(two)['current_model_state'][name], atol=1e-5), name
    assert curve(one, 'loss') == [(n, pytest.approx(v, abs=1e-5)) for n, v in curve(two, 'loss')]
    assert curve(one, 'val_iou') == [
        (n, pytest.approx(v, abs=0.01)) for n, v in curve(two, 'val_iou')
    ]


def test_micro_batches_do_not_change_the_result(
    discs: Path, plain_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / 'parts'
    train(deterministic(small(discs, run, machine=dataclasses.replace(CPU, accumulate=2))))
    assert load(run)['global_step'] == 4
    assert_close_end(run, plain_run)


def test_two_processes_have_the_result_of_one_and_print_everything_once(
    discs: Path, plain_run: Path, tmp_path: Path
) -> None:
    run, script = tmp_path / 'two', tmp_path / 'script.py'
    script.write_text(TWO_PROCESSES)
    given = arguments(deterministic(small(discs, run)))
    given += ['--machine.devices=2', '--machine.strategy=ddp']
    done = subprocess.run(
        [sys.executable, str(script), __file__, str(tmp_path), *given],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(':')[0] for line in done.stdout.splitlines()[:2]] == ['step 2', 'step 4']
    assert done.stdout.count('\n') == 3
    assert done.stderr.count('reading:   0%|') == 1
    draws = [
        {int(line) for line in (tmp_path / f'draws_{rank}').read_text().split()} for rank in (0, 1)
    ]
    assert draws == [{0, 1, 4, 5, 8, 9, 12, 13}, {2, 3, 6, 7, 10, 11, 14, 15}]
    first, second = (torch.load(tmp_path / f'weights_{rank}.pt') for rank in (0, 1))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert_close_end(run, plain_run)


@pytest.mark.parametrize(('devices', 'accumulate', 'product'), [(1, 3, '1 × 3'), (2, 2, '2 × 2')])
def test_a_batch_that_cannot_be_divided_is_an_error(
    devices: int, accumulate: int, product: str, discs: Path, tmp_path: Path
) -> None:
    machine = dataclasses.replace(CPU, devices=devices, accumulate=accumulate)
    with pytest.raises(ValueError, match=rf'batch_size is 4; .*{product}'):
        train(small(discs, tmp_path, machine=machine))
    assert not any(tmp_path.iterdir())


def test_each_invalid_file_is_reported_in_a_line_before_the_training(
    own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_discs / 'images/1.png').write_bytes(b'')
    (own_discs / 'masks/3.png').write_bytes(b'no image')
    assert main(arguments(small(own_discs, tmp_path / 'run'))) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'does not decode' in line]
    assert len(lines) == 2
    assert 'images/1.png' in lines[0]
    assert 'masks/3.png' in lines[1]
    assert not (tmp_path / 'run').exists()


def test_a_file_that_is_deleted_after_the_check_is_reported_in_one_line(
    own_discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def delete_images(data: RockDataModule) -> None:
        for sample in data.train['discs']:
            sample.image.unlink()

    monkeypatch.setattr(RockDataModule, 'check', delete_images)
    monkeypatch.setattr('training.train.describe_run', lambda *_: None)
    config = small(own_discs, tmp_path / 'run', machine=dataclasses.replace(CPU, workers=1))
    assert main(arguments(config)) == 1
    errors = capsys.readouterr().err
    assert 'Traceback' not in errors
    (line,) = [line for line in errors.splitlines() if 'training.train: ' in line]
    assert re.search(r'training\.train: .*images/\d\.png: no such file$', line)


def test_one_progress_bar_counts_the_steps_of_the_whole_run(
    discs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = small(discs, tmp_path, machine=dataclasses.replace(CPU, accumulate=2))
    train(config, stop_after=1)
    capfd.readouterr()
    train(config, resume=True)
    output = capfd.readouterr()
    assert '4/4' in output.err
    assert 'Epoch' not in output.err
    assert output.out.startswith('step 4: ')
    assert output.out.count('\n') == 1


def test_an_invalid_setting_is_reported_in_one_line_with_status_1(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f'--sources={{"mine": {{"path": "{discs}"}}}}', f'--run={tmp_path}']
    stages = '--stages=[{"steps": 100, "crop": 64, "area": [0.5, 1.0]}]'
    assert main([*given, '--decoder=skipp', stages]) == 1
    error = capsys.readouterr().err.strip()
    assert "'skipp'" in error
    assert error.count('\n') == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='has a GPU')
@pytest.mark.parametrize('missing', [{'accelerator': 'gpu'}, {'devices': '0,1'}, {'devices': -1}])
def test_a_missing_device_is_reported_in_one_line(
    missing: dict[str, Any], discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = dataclasses.replace(CPU, **missing)
    assert main(arguments(small(discs, tmp_path / 'run', machine=machine))) == 1
    assert capsys.readouterr().err.strip().count('\n') == 0


@pytest.mark.parametrize(
    ('gpus', 'given', 'used'),
    [
        *(zip(range(1, 9), [{}] * 8, [1, 2, 2, 4, 4, 4, 4, 4], strict=True)),
        (8, {'batch_size': 12}, 6),
        (8, {'batch_size': 7}, 1),
        (8, {'machine': MachineConfig(nodes=2)}, 2),
        (8, {'machine': MachineConfig(accumulate=2)}, 2),
        (8, {'machine': MachineConfig(devices=3)}, 3),
        (8, {'machine': MachineConfig(accelerator='cpu')}, 1),
    ],
)
def test_as_many_gpus_are_used_as_divide_the_batch(
    gpus: int, given: dict[str, Any], used: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    made = Mock()
    monkeypatch.setattr('training.train.pl.Trainer', made)
    config = small(tmp_path, tmp_path, **{'batch_size': 8, 'machine': MachineConfig(), **given})
    _trainer(config, stop_after=0)
    assert made.call_args.kwargs['devices'] == used


def test_missing_settings_are_reported_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert 'sources' in capsys.readouterr().err


def output_of(argument: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([argument])
    assert left.value.code == 0
    return ' '.join(capsys.readouterr().out.split()).replace('- ', '-')  # it breaks at hyphens


def explained(settings: type) -> Iterator[str]:
    """Yields the beginning of the description of each setting of a configuration."""
    text = (settings.__doc__ or '').split('Attributes:')[1]
    for setting in dataclasses.fields(settings):
        first = text.split(f' {setting.name}: ')[1].split('\n')[0]
        yield first.split(';')[0].strip(' .').replace('- ', '-')


@pytest.mark.parametrize(
    ('argument', 'prefix', 'settings'),
    [
        ('--help', '--', TrainingConfig),
        ('--help', '--optimizer.', OptimizerConfig),
        ('--help', '--loss.', LossConfig),
        ('--help', '--augmentation.', AugmentationConfig),
        ('--help', '--machine.', MachineConfig),
        ('--sources.help', '', DatasetConfig),
        ('--stages.help', '', Stage),
    ],
)
def test_help_describes_every_setting(
    argument: str, prefix: str, settings: type, capsys: pytest.CaptureFixture[str]
) -> None:
    output = output_of(argument, capsys)
    assert [s.name for s in dataclasses.fields(settings) if f'{prefix}{s.name}' not in output] == []
    assert [words for words in explained(settings) if words not in output] == []


def test_the_recorded_configuration_equals_that_of_the_run(complete_run: Path, discs: Path) -> None:
    copy = read_config(str(complete_run / 'config.yaml'))
    assert copy == small(discs, complete_run)


@pytest.mark.parametrize(
    'name',
    ['training.yaml', 'training/light.yaml', 'training/resnet50.yaml', 'training/ladder.yaml'],
)
def test_configurations_of_the_package_are_valid_and_repeat_no_default(name: str) -> None:
    file = ROOT / 'config' / name
    config = read_config(str(file))
    assert config.steps > 0
    example = yaml.safe_load(file.read_text())
    bare = TrainingConfig({'x': DatasetConfig('')}, '', [Stage(100, 64, (0.5, 1.0))])
    assert repeated(example, dataclasses.asdict(bare)) == []


def test_the_training_of_light_uses_all_regions_with_all_their_labels() -> None:
    config = read_config(str(ROOT / 'config/training/light.yaml'))
    folders = {str(file.relative_to(ROOT)) for file in (ROOT / 'training/regions').iterdir()}
    sources = [source for source in config.sources.values() if source.format == 'labelme']
    assert {source.path for source in sources} == folders
    for source in sources:
        assert set(source.class_map) >= set(labelme_labels(ROOT / source.path)), source.path


def test_the_later_trainings_of_resnet50_override_the_first() -> None:
    parser = argument_parser('train', '')

    def read(*names: str) -> TrainingConfig:
        files = [f'{ROOT}/config/training/{name}.yaml' for name in names]
        return to_config(parser, parser.parse_args([f'--config={file}' for file in files]))

    first, rims = read('resnet50'), read('resnet50', 'resnet50_rims')
    whole = read('resnet50', 'resnet50_whole')
    assert rims.start_from == f'{first.run}/checkpoints/last.ckpt'
    assert whole.start_from == f'{rims.run}/mean.safetensors'
    assert len({first.run, rims.run, whole.run}) == 3
    assert first.data_description == rims.data_description == whole.data_description
    assert (rims.optimizer.backbone_rate, whole.optimizer.backbone_rate) == (0, 0.25)
    assert (rims.distill.teachers, whole.distill.teachers) == ([], ['light'])


def repeated(given: dict, defaults: dict) -> list[str]:
    """Returns the settings of a file that equal the defaults, except texts for the metadata."""
    names = []
    for name, value in given.items():
        if name in ('sources', 'stages', 'run', 'data_description', 'licence'):
            continue
        if isinstance(value, dict):
            names += [f'{name}.{inner}' for inner in repeated(value, defaults[name])]
        elif value == defaults[name]:
            names.append(name)
    return names


def test_the_example_configuration_accepts_other_data_and_another_licence(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[TrainingConfig] = []

    def note(config: TrainingConfig, resume: bool) -> Path:
        configs.append(config)
        return tmp_path

    monkeypatch.setattr('training.train.train', note)
    given = ['--config', str(ROOT / 'config/training.yaml')]
    given += ['--sources', f'{{mine: {{path: {discs}}}}}', '--run', str(tmp_path)]
    given += ['--data_description', 'my quarry', '--licence', 'all mine']
    assert main(given) == 0
    (config,) = configs
    assert config.sources == {'mine': DatasetConfig(str(discs))}
    assert (config.metadata().data, config.metadata().licence) == ('my quarry', 'all mine')


def test_the_run_folder_has_validation_images_and_records(complete_run: Path) -> None:
    assert cv2.imread(str(complete_run / 'images/step_000004.jpg')) is not None
    described = json.loads((complete_run / 'run.json').read_text())
    assert len(described['sources']['discs']['sha256']) == 64
    with (complete_run / 'curves.csv').open() as file:
        assert next(csv.reader(file)) == ['step', 'name', 'value']
