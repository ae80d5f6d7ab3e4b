# SPDX-License-Identifier: Apache-2.0
"""What a training run is made of; `config/training.yaml` is the worked example."""

from __future__ import annotations

from dataclasses import dataclass, field

from rock_seg_ros.perception.card import IMAGENET_MEAN, IMAGENET_STD, Card

MASK_VALUES = {0: 0, 255: 1}
# Kept in checkpoints, so that export measures on what was not trained on.
DATA_SETTINGS = ('val_fraction', 'mask_values')


@dataclass
class Stage:
    """A stretch of the training with one crop size.

    Attributes:
        steps: Optimizer steps.
        crop: Side of the square crops, px.
        area: Smallest and largest share of the picture's area that a crop is cut from, 0 to 1.
    """

    steps: int
    crop: int
    area: tuple[float, float]


@dataclass
class TrainingConfig:
    """A training run.

    Attributes:
        data: Folder with `images/`, `masks/` and, for a fixed split, `manifest.csv` (id, split).
        run: Folder for checkpoints, TensorBoard curves and a copy of this configuration.
        stages: One after the other, each with its own crop size.
        mask_values: Grey value in the mask files → class id; 255 as class id is ignored.
        classes: Class names; the place in the list is the class id.
        rock_classes: The names among `classes` that are rock.
        val_fraction: Share of the pictures kept for validation when there is no manifest.
        decoder: 'skip' or 'none'.
        output_stride: 8 or 16.
        pretrained: Start from torchvision's COCO weights if they are cached or can be downloaded.
        batch_size: Crops a step.
        learning_rate: Peak of the learning rate (AdamW).
        weight_decay: AdamW's.
        warmup_steps: Steps of linear warm-up before the polynomial decay (power 0.9).
        dice_weight: Weight of the Dice loss beside cross-entropy.
        aux_weight: Weight of the auxiliary head's loss.
        ema_decay: Decay a step of the averaged weights that are validated and exported.
        steps_per_epoch: Steps between validations, each with a checkpoint.
        workers: Loader processes.
        seed: Of everything random.
        data_description: For the card: what the data is.
        licence: For the card: the licence of the weights.
    """

    data: str
    run: str
    stages: list[Stage]
    mask_values: dict[int, int] = field(default_factory=lambda: dict(MASK_VALUES))
    classes: list[str] = field(default_factory=lambda: ['background', 'rock'])
    rock_classes: list[str] = field(default_factory=lambda: ['rock'])
    val_fraction: float = 0.2
    decoder: str = 'skip'
    output_stride: int = 16
    pretrained: bool = True
    batch_size: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    dice_weight: float = 1.0
    aux_weight: float = 0.4
    ema_decay: float = 0.99
    steps_per_epoch: int = 100
    workers: int = 1
    seed: int = 0
    data_description: str = ''
    licence: str = ''

    def __post_init__(self) -> None:
        """Refuses what cannot be trained, with ValueError."""
        if not self.stages:
            raise ValueError('stages is empty; at least one stage is needed')
        if self.steps % self.steps_per_epoch:
            raise ValueError(
                f'the stages add up to {self.steps} steps, which is no multiple of'
                f' steps_per_epoch ({self.steps_per_epoch})'
            )
        if self.batch_size < 2:
            raise ValueError(f'batch_size must be at least 2 (batch norm), not {self.batch_size}')
        legal = {*range(len(self.classes)), 255}
        for value, class_id in self.mask_values.items():
            if class_id not in legal:
                raise ValueError(
                    f'mask_values maps {value} to class {class_id}; legal is'
                    f' 0 to {len(self.classes) - 1}, or 255 to ignore'
                )
            if not 0 <= value <= 255:
                raise ValueError(f'mask_values has the grey value {value}; legal is 0 to 255')
        self.card()  # refuses what the card would refuse, before the training instead of after

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Returns the stage that a step belongs to; the last one past the end."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def card(self) -> Card:
        """Returns the card of the weights that this run makes, without metrics."""
        crop = self.stages[-1].crop
        return Card(
            classes=tuple(self.classes),
            rock_classes=tuple(self.rock_classes),
            decoder=self.decoder,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            training_size=(crop, crop),
            output_stride=self.output_stride,
            data=self.data_description,
            licence=self.licence,
        )
