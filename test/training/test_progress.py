# SPDX-License-Identifier: Apache-2.0
"""The progress bar shows the loss without slowing down the steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from training.progress import RunProgressBar


class Loss:
    """A loss on a GPU, whose conversion to float synchronizes with the device."""

    fetched = 0

    def __float__(self) -> float:
        Loss.fetched += 1
        return 0.25


def trainer(step: int) -> Any:
    return SimpleNamespace(global_step=step, is_global_zero=True, callback_metrics={'loss': Loss()})


def test_the_loss_is_copied_only_when_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Loss, 'fetched', 0)
    now = [0.0]
    monkeypatch.setattr('tqdm.std.time', lambda: now[0])
    bar = RunProgressBar(100)
    bar.on_train_start(trainer(0), None)  # type: ignore[arg-type]
    for step in range(1, 41):
        now[0] += 0.1
        bar.on_train_batch_end(trainer(step), None, None, None, step)  # type: ignore[arg-type]
    bar.on_train_end(trainer(40), None)  # type: ignore[arg-type]
    assert 1 <= Loss.fetched <= 5
    assert 'loss=0.250' in capsys.readouterr().err


def test_a_learning_rate_below_0_001_is_printed_with_its_digits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at_validation = trainer(100)
    at_validation.callback_metrics = {'lr': 3e-4, 'val_iou': 0.84312}
    RunProgressBar(100).on_train_epoch_end(at_validation, None)  # type: ignore[arg-type]
    assert capsys.readouterr().out == 'step 100: lr 0.0003, val_iou 0.843\n'
