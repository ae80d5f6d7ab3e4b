# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average (EMA) of the weights."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from typing_extensions import override


class AveragedWeights(EMAWeightAveraging):
    """Averaged weights that are stored on the device of the network."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Selects the device; without this, each step would copy the network to the CPU."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
