# SPDX-License-Identifier: Apache-2.0
"""Averaged weights are stored on the device of the network."""

from __future__ import annotations

from types import SimpleNamespace

import lightning.pytorch as pl
import torch
from torch import nn

from training.averaging import AveragedWeights


def test_averaged_weights_are_on_the_device_of_the_training() -> None:
    module = pl.LightningModule()
    module.layer = nn.Linear(2, 3)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device('meta')))
    averaged = AveragedWeights(decay=0.9)
    averaged.setup(trainer, module, 'fit')  # type: ignore[arg-type]
    assert averaged._average_model is not None
    assert {p.device.type for p in averaged._average_model.module.parameters()} == {'meta'}
    assert {p.device.type for p in module.parameters()} == {'cpu'}
