# SPDX-License-Identifier: Apache-2.0
"""A training that is stopped goes on as if it never was, and leaves whole files behind."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from training.config import Stage, TrainingConfig
from training.datasets import DataError
from training.losses import segmentation_loss
from training.train import main, train

ROOT = Path(__file__).parents[2]
TINY = """
import runpy
import sys
import training.module
Tiny = runpy.run_path(sys.argv[1])['Tiny']
training.module.build = lambda card, aux: Tiny()
from training.train import main
sys.exit(main(sys.argv[2:]))
"""


class Tiny(nn.Module):
    """A network with batch norm, dropout and an auxiliary head, that trains in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.out = nn.Conv2d(8, 2, 1)
        self.aux = nn.Conv2d(8, 2, 1)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.trunk(pictures)
        return {'out': self.out(features), 'aux': self.aux(features)}


@pytest.fixture(scope='module', autouse=True)
def tiny_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('training.module.build', lambda card, aux: Tiny())
        yield


def small(data: Path, run: Path, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        data=str(data),
        run=str(run),
        stages=[Stage(2, 48, (0.5, 1.0)), Stage(2, 64, (0.5, 1.0))],
        pretrained=False,
        batch_size=2,
        warmup_steps=1,
        steps_per_epoch=2,
        workers=0,
    )
    return dataclasses.replace(config, **changes)


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    """Reads a scalar from all event files of a run."""
    points: list[tuple[int, float]] = []
    for file in sorted((run / 'tensorboard').glob('events*')):
        events = EventAccumulator(str(file)).Reload()
        if name in events.Tags()['scalars']:
            points += [(event.step, event.value) for event in events.Scalars(name)]
    return points


@pytest.fixture(scope='module')
def whole_run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp('whole')
    train(small(discs, run))
    return run


def test_a_resumed_run_ends_with_the_weights_of_one_in_one_go(
    discs: Path, whole_run: Path, tmp_path: Path
) -> None:
    config = small(discs, tmp_path, workers=1)
    train(config, stop_after=1)
    train(config, resume=True)
    one = torch.load(whole_run / 'checkpoints/last.ckpt', weights_only=True)
    two = torch.load(tmp_path / 'checkpoints/last.ckpt', weights_only=True)
    assert two['global_step'] == one['global_step'] == 4
    for part in ('state_dict', 'current_model_state'):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    assert curve(tmp_path, 'loss') == curve(whole_run, 'loss')
    assert curve(tmp_path, 'val_iou') == curve(whole_run, 'val_iou')


def test_the_curves_hold_loss_learning_rate_and_validation_iou(whole_run: Path) -> None:
    assert [step for step, _ in curve(whole_run, 'loss')] == [0, 1, 2, 3]
    rates = [rate for _, rate in curve(whole_run, 'lr')]
    assert rates == pytest.approx([1e-3 * (1 - step / 4) ** 0.9 for step in range(4)])
    assert len(curve(whole_run, 'val_iou')) == 2


def test_a_checkpoint_holds_the_averaged_weights_beside_the_current_ones(whole_run: Path) -> None:
    checkpoint = torch.load(whole_run / 'checkpoints/last.ckpt', weights_only=True)
    averaged, current = checkpoint['state_dict'], checkpoint['current_model_state']
    assert averaged.keys() == current.keys()
    assert not torch.equal(averaged['model.out.weight'], current['model.out.weight'])
    assert checkpoint['averaging_state']['n_averaged'] == 4


def test_a_checkpoint_tells_how_its_data_were_read(discs: Path, tmp_path: Path) -> None:
    train(small(discs, tmp_path, val_fraction=0.5), stop_after=1)
    checkpoint = torch.load(tmp_path / 'checkpoints/last.ckpt', weights_only=True)
    assert checkpoint['val_fraction'] == 0.5
    assert checkpoint['mask_values'] == {0: 0, 255: 1}


def test_the_auxiliary_head_learns(whole_run: Path) -> None:
    torch.manual_seed(0)
    fresh = Tiny().state_dict()['aux.weight']
    checkpoint = torch.load(whole_run / 'checkpoints/last.ckpt', weights_only=True)
    assert not torch.equal(checkpoint['current_model_state']['model.aux.weight'], fresh)


def test_a_checkpoint_appears_after_the_first_epoch_and_not_only_at_the_end(
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
    checkpoint = torch.load(tmp_path / 'checkpoints/last.ckpt', weights_only=True)
    assert checkpoint['global_step'] == 2


def test_a_run_is_never_written_over(discs: Path, whole_run: Path) -> None:
    before = (whole_run / 'checkpoints/last.ckpt').stat()
    with pytest.raises(DataError, match='--resume'):
        train(small(discs, whole_run))
    assert (whole_run / 'checkpoints/last.ckpt').stat().st_mtime_ns == before.st_mtime_ns


def test_resuming_what_never_ran_is_an_error(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='nothing to resume from'):
        train(small(discs, tmp_path), resume=True)


def test_the_copied_configuration_starts_the_same_run(whole_run: Path) -> None:
    copy = yaml.safe_load((whole_run / 'config.yaml').read_text())
    copy['stages'] = [Stage(**stage) for stage in copy['stages']]
    assert TrainingConfig(**copy).stage_at(3).crop == 64


def test_a_bad_setting_is_one_line_and_status_1(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f'--data={discs}', f'--run={tmp_path}', '--decoder=skipp']
    stages = '--stages=[{"steps": 100, "crop": 64, "area": [0.5, 1.0]}]'
    assert main([*given, stages]) == 1
    error = capsys.readouterr().err.strip()
    assert "'skipp'" in error
    assert error.count('\n') == 0


def test_missing_settings_are_told_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert 'data' in capsys.readouterr().err


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(['--help'])
    assert left.value.code == 0
    told = capsys.readouterr().out
    for setting in dataclasses.fields(TrainingConfig):
        assert f'--{setting.name}' in told
    assert 'Peak of the learning rate' in told


def test_the_worked_example_trains_ones_own_pictures_under_ones_own_licence(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[TrainingConfig] = []

    def note(config: TrainingConfig, resume: bool) -> Path:
        configs.append(config)
        return tmp_path

    monkeypatch.setattr('training.train.train', note)
    given = ['--config', str(ROOT / 'config/training.yaml'), '--data', str(discs)]
    given += ['--run', str(tmp_path), '--data_description', 'my quarry', '--licence', 'all mine']
    assert main(given) == 0
    (config,) = configs
    assert (config.data, config.stage_at(0).crop) == (str(discs), 160)
    assert (config.card().data, config.card().licence) == ('my quarry', 'all mine')


def test_the_worked_example_repeats_no_default() -> None:
    example = yaml.safe_load((ROOT / 'config/training.yaml').read_text())
    stages = [Stage(**stage) for stage in example['stages']]
    plain = dataclasses.asdict(TrainingConfig('', '', stages))
    assert [n for n, v in example.items() if n != 'stages' and v == plain[n]] == []


def test_ctrl_c_leaves_a_checkpoint_that_a_resumed_run_goes_on_from(
    discs: Path, tmp_path: Path
) -> None:
    stages = '--stages=[{"steps": 100000, "crop": 48, "area": [0.5, 1.0]}]'
    command = [sys.executable, '-c', TINY, __file__, f'--data={discs}', f'--run={tmp_path}', stages]
    command += ['--steps_per_epoch=2', '--batch_size=2', '--pretrained=false', '--workers=0']
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith('step 2:')
        assert process.stdout.readline().startswith('step 4:')
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'Traceback' not in errors
    assert '--resume' in errors
    checkpoint = torch.load(tmp_path / 'checkpoints/last.ckpt', weights_only=True)
    assert checkpoint['global_step'] >= 2
