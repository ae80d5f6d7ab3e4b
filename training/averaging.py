# SPDX-License-Identifier: Apache-2.0
"""The averaged weights of a training."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging
from typing_extensions import override


class AveragedWeights(EMAWeightAveraging):
    """Averaged weights that lie on the device where the network will be."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Makes them there: the network is moved later, and each step would copy it back."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
