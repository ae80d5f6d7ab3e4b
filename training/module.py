# SPDX-License-Identifier: Apache-2.0
"""The Lightning module: one DeepLabV3 under training."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from rock_seg_ros.perception.model import build
from rock_seg_ros.perception.preparation import normalize
from rock_seg_ros.perception.segmenter import classify
from training.config import DATA_SETTINGS, TrainingConfig
from training.datasets import IGNORE
from training.losses import segmentation_loss
from training.metrics import rock_metrics


class RockSegmentation(pl.LightningModule):
    """Trains DeepLabV3 with cross-entropy, Dice and an auxiliary head."""

    def __init__(self, config: TrainingConfig) -> None:
        """Builds the network of the configuration's card."""
        super().__init__()
        torch.manual_seed(config.seed)
        self.config = config
        self.card = config.card()
        self.model = build(self.card, aux=True)
        self.model.to(memory_format=torch.channels_last)
        self.metrics = rock_metrics('val_')

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Returns the loss of a batch of N×3×H×W uint8 crops and N×H×W class ids."""
        torch.manual_seed(self.config.seed + self.global_step)  # dropout, alike when resumed
        pictures, targets = batch
        prepared = normalize(pictures, self.card).contiguous(memory_format=torch.channels_last)
        scores = self.model(prepared)
        loss = segmentation_loss(scores['out'], targets, self.config.dice_weight)
        aux = segmentation_loss(scores['aux'], targets, self.config.dice_weight)
        rate = self.trainer.optimizers[0].param_groups[0]['lr']
        self.log_dict({'loss': loss, 'lr': rate})
        return loss + self.config.aux_weight * aux

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Counts rock pixels found, missed and invented in a batch of one picture."""
        pictures, targets = batch
        scores = self.model(normalize(pictures, self.card))['out'].float()
        class_ids, _ = classify(scores[0], self.card, self.card.threshold)
        rock = torch.tensor(self.card.rock_ids, device=class_ids.device)
        truth = torch.where(targets[0] == IGNORE, IGNORE, torch.isin(targets[0], rock).long())
        self.metrics.update(torch.isin(class_ids, rock).long(), truth)

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of all validation pictures together."""
        self.log_dict(self.metrics.compute())
        self.metrics.reset()

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and polynomial decay (power 0.9), stepped every step."""
        config = self.config
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {'params': decayed, 'weight_decay': config.weight_decay},
                {'params': rest, 'weight_decay': 0.0},
            ],
            lr=config.learning_rate,
        )

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
            return warm * max(0.0, 1 - step / config.steps) ** 0.9

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts in the card and how the data are read, so that export needs nothing else."""
        checkpoint['card'] = self.card.to_json()
        for name in DATA_SETTINGS:
            checkpoint[name] = getattr(self.config, name)
