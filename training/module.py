# SPDX-License-Identifier: Apache-2.0
"""The Lightning module that trains a DeepLabV3 network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from typing_extensions import override

from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.preprocessing import normalize
from training.config import TrainingConfig
from training.datasets import IGNORE
from training.distillation import Distillation
from training.losses import segmentation_loss
from training.metrics import rock_metrics
from training.schedule import learning_rate
from training.validation import predict_classes


class RockSegmentation(pl.LightningModule):
    """Trains DeepLabV3 with a loss on its logits and on those of an auxiliary head."""

    def __init__(self, config: TrainingConfig, val_names: Sequence[str] = ()) -> None:
        """Builds the network that the configuration describes.

        Args:
            config: Configuration of the run.
            val_names: Names of the validation sources, in the order of the data loaders.
        """
        super().__init__()
        torch.manual_seed(config.seed)
        self.config = config
        self.metadata = config.metadata()
        self.model = build(self.metadata, aux=True)
        self.model.to(memory_format=torch.channels_last)
        self.model.backbone.requires_grad_(config.optimizer.backbone_rate > 0)
        self.distillation = (
            Distillation(config.distill, self.model, self.metadata)
            if config.distill.teachers
            else None
        )
        self.val_names = list(val_names)
        self.metrics = nn.ModuleList(rock_metrics(f'val_{name}_') for name in val_names)

    def _metrics(self) -> list[MetricCollection]:
        return [cast('MetricCollection', metrics) for metrics in self.metrics]

    def on_train_epoch_start(self) -> None:
        """Keeps the batch norm statistics of a backbone that is not trained."""
        if not self.config.optimizer.backbone_rate:
            self.model.get_submodule('backbone').eval()

    @override
    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Returns the loss of a batch.

        Args:
            batch: N×3×H×W uint8 crops, N×H×W class ids, and the N×3×H×W uint8 crops before
                photometric augmentation, for the teachers; without teachers the last is empty.
            batch_index: Index of the batch in the epoch.
        """
        torch.manual_seed(self.config.seed_at(self._micro_batch(batch_index)))
        images, targets, clean = batch
        prepared = normalize(images, self.metadata).contiguous(memory_format=torch.channels_last)
        logits = self.model(prepared)
        loss = self._loss(logits['out'], targets)
        rate = max(group['lr'] for group in self.trainer.optimizers[0].param_groups)
        # `CurveWriter` passes these values to the logger.
        self.log_dict({'loss': loss, 'lr': rate}, sync_dist=True, logger=False)
        if 'aux' in logits:
            loss = loss + self.config.loss.aux_weight * self._loss(logits['aux'], targets)
        if self.distillation is not None:
            loss = loss + self.distillation(logits['out'], clean)
        return loss

    def _micro_batch(self, batch_index: int) -> int:
        """Returns the index of a micro-batch in the whole run, which seeds its dropout.

        A resumed run therefore repeats the dropout of the interrupted one.
        """
        accumulate = self.config.machine.accumulate
        index = self.global_step * accumulate + batch_index % accumulate
        return index * self.trainer.world_size + self.trainer.global_rank

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        settings = self.config.loss
        return segmentation_loss(
            logits.float(),
            targets,
            settings.region,
            settings.region_weight,
            settings.boundary_weight,
            settings.boundary_width,
            {} if self.metadata.rim_id is None else {self.metadata.rim_id: settings.rim_weight},
        )

    @override
    def validation_step(
        self, batch: tuple[Tensor, Tensor], batch_index: int, dataloader_idx: int = 0
    ) -> Tensor:
        """Updates the metrics with one image.

        Args:
            batch: One image, 1×3×H×W uint8, and its 1×H×W class ids.
            batch_index: Index of the image in its source.
            dataloader_idx: Index of the source in `val_names`.

        Returns:
            H×W predicted mask, int64; 1 is rock.
        """
        images, targets = batch
        class_ids = predict_classes(self.model, self.metadata, images[0])
        rock = torch.tensor(self.metadata.mask_ids, device=class_ids.device)
        truth = torch.where(targets[0] == IGNORE, IGNORE, torch.isin(targets[0], rock).long())
        predicted = torch.isin(class_ids, rock).long()
        self._metrics()[dataloader_idx].update(predicted, truth)
        return predicted

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics of each source, and `val_iou`, the mean IoU of the sources with rock."""
        figures: dict[str, Tensor] = {}
        for metrics in self._metrics():
            figures.update(metrics.compute())
            metrics.reset()
        ious = torch.stack([figures[f'val_{name}_iou'] for name in self.val_names])
        recalls = torch.stack([figures[f'val_{name}_recall'] for name in self.val_names])
        has_rock = (ious > 0) | (recalls < 1)
        self.log_dict({**figures, 'val_iou': (ious * has_rock).sum() / has_rock.sum().clamp(min=1)})

    def configure_optimizers(self) -> Any:
        """Returns the optimizer, and a learning rate schedule that is updated every step."""
        settings = self.config.optimizer
        parameters = []
        for backbone in (True, False):
            group = [
                parameter
                for name, parameter in self.named_parameters()
                if name.startswith('model.backbone.') == backbone
            ]
            rate = settings.backbone_rate if backbone else 1.0
            for decays in (True, False):
                parameters.append(
                    {
                        'params': [p for p in group if (p.ndim > 1) == decays],
                        'weight_decay': settings.weight_decay if decays else 0.0,
                        'lr': rate,
                    }
                )
        optimizer: torch.optim.Optimizer
        if settings.name == 'sgd':
            optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(self.config, step)
        )
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the metadata and the sources, so that export needs only the checkpoint."""
        checkpoint['card'] = self.metadata.to_json()
        checkpoint['classes'] = self.config.all_classes
        checkpoint['sources'] = [asdict(source) for source in self.config.sources.values()]
