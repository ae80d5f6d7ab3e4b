# SPDX-License-Identifier: Apache-2.0
"""One progress bar for the whole training, with the remaining time."""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm
from typing_extensions import override


class RunProgressBar(pl.Callback):
    """Shows the progress in optimizer steps, and prints a line after each validation."""

    def __init__(self, steps: int) -> None:
        """Stores the number of steps of the whole run, including steps before it was resumed."""
        self._steps = steps
        self._bar: tqdm | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar at the current step."""
        self._bar = tqdm(
            total=self._steps,
            initial=trainer.global_step,
            unit='step',
            desc='training',
            mininterval=1.0,
            dynamic_ncols=True,
            disable=not trainer.is_global_zero,
        )

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advances the bar when a step is complete; the loss is copied only when it is shown."""
        if self._bar is not None and self._bar.update(trainer.global_step - self._bar.n):
            loss = float(trainer.callback_metrics['loss'])
            self._bar.set_postfix(loss=f'{loss:.3f}')

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the validation metrics above the bar."""
        if not trainer.is_global_zero:
            return
        figures = (f'{n} {float(v):.3g}' for n, v in trainer.callback_metrics.items())
        tqdm.write(f'step {trainer.global_step}: {", ".join(figures)}')
        sys.stdout.flush()

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Closes the bar, so that the error message starts on a new line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
