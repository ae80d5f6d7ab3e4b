# SPDX-License-Identifier: Apache-2.0
"""What a training sees: random crops of the sources, and whole images to validate on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from typing_extensions import override

from training.config import TrainingConfig
from training.copy_paste import paste_rocks
from training.datasets import IGNORE, DataError, Labelled, Sample, check, find_samples
from training.rims import mark_rims
from training.self_training import pseudo_label_sources
from training.transforms import geometric_transform, photometric_transform

CACHED_IMAGES = 1024  # decoded images that a loader process keeps for further crops


class ReadableSample(Protocol):
    """An image with labels, not read yet."""

    def __hash__(self) -> int:
        """Tells it from others."""

    def read(self) -> Labelled:
        """Reads it."""


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole images: 3×H×W uint8 and H×W int64 class ids, rims not marked."""

    def __init__(self, samples: Sequence[ReadableSample]) -> None:
        """Takes the samples in the order given."""
        self.samples = samples

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Reads an image."""
        read = self.samples[index].read()
        image = torch.from_numpy(read.image).permute(2, 0, 1)
        return image, torch.from_numpy(read.classes).long()


@dataclass(frozen=True)
class IgnoredSample:
    """An image of which every pixel is ignored, for a process that no other is left for."""

    sample: ReadableSample

    def read(self) -> Labelled:
        """Reads the sample and ignores its labels."""
        read = self.sample.read()
        return Labelled(read.image, np.full_like(read.classes, IGNORE), None)


class RandomCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random crops of a stage, each fixed by the seed and its number in the whole training.

    So a run that is killed and resumed sees what it would have seen, with any number of workers
    and processes.
    """

    def __init__(
        self, sources: Mapping[str, Sequence[ReadableSample]], config: TrainingConfig, stage: int
    ) -> None:
        """Takes the train samples of each source, and the stage's number, from 0."""
        here = config.stages[stage]
        shares = stage_shares(sources, config, stage)
        self.sources = [sources[name] for name in shares]
        self.shares = torch.tensor(list(shares.values()), dtype=torch.float)
        self.config = config
        self.shape = geometric_transform(here.crop, here.area, config.augmentation)
        self.look = photometric_transform(config.augmentation)
        self._read = lru_cache(CACHED_IMAGES)(lambda sample: sample.read())
        card = config.card()
        self.rock_ids = card.rock_ids
        self.rim_id = card.rim_id

    def __len__(self) -> int:
        """Returns the number of draws in the whole training."""
        return self.config.steps * self.config.batch_size

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor, Tensor]:
        """Makes a crop.

        Returns:
            3×crop×crop uint8; crop×crop int64 class ids; and, for teachers, the crop before light,
            lens and sensor changed it, without teachers an empty tensor.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed_at(draw))
            source = self.sources[int(torch.multinomial(self.shares, 1))]
            image, labels = self._crop(source)
            if torch.rand(()) < self.config.augmentation.paste_p:
                other = self.sources[int(torch.multinomial(self.shares, 1))]
                image, labels = paste_rocks(
                    image, labels, *self._crop(other), self.rock_ids, self.config.augmentation
                )
            clean = image.as_subclass(Tensor) if self.config.distill.teachers else torch.empty(0)
            seen, labels = self.look(image, labels)
        classes, instances = labels.numpy()
        if self.rim_id is not None:
            classes = mark_rims(
                classes, instances, self.rock_ids, self.rim_id, self.config.rim_width
            )
        return seen.as_subclass(Tensor), torch.from_numpy(classes).long(), clean

    def _crop(self, source: Sequence[ReadableSample]) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        read = self._read(source[int(torch.randint(len(source), ()))])
        classes = torch.from_numpy(read.classes).int()
        instances = (
            torch.zeros_like(classes)
            if read.instances is None
            else torch.from_numpy(read.instances).int()
        )
        return self.shape(
            tv_tensors.Image(torch.from_numpy(read.image).permute(2, 0, 1)),
            tv_tensors.Mask(torch.stack([classes, instances])),
        )


def stage_shares(
    sources: Mapping[str, Sequence[ReadableSample]], config: TrainingConfig, stage: int
) -> dict[str, float]:
    """Returns name of a source → its share of a stage's crops, above 0.

    Args:
        sources: Name of a source → its train samples.
        config: The run.
        stage: Number of the stage, from 0.

    Raises:
        DataError: The stage has a source without train samples, or none has any.
    """
    here = config.stages[stage]
    shares = here.shares or {
        name: float(len(found))
        for name, found in sources.items()
        if config.sources[name].format != 'unlabelled'
        or name in here.self_train
        or config.distill.teachers
    }
    shares = {name: share for name, share in shares.items() if share}
    for name in shares:
        if not sources[name]:
            raise DataError(f'source {name}: no image in split train; stage {stage + 1} has it')
    if not shares:
        raise DataError(f'stage {stage + 1}: no source has a labelled image in split train')
    return shares


class EpochSampler(Sampler[int]):
    """The draws of one epoch that belong to one of several processes.

    A step's draws are the same however many processes share them.
    """

    def __init__(self, config: TrainingConfig, epoch: int, rank: int = 0, ranks: int = 1) -> None:
        """Takes the epoch, from 0, the process's number and how many there are."""
        self.steps = range(epoch * config.steps_per_epoch, (epoch + 1) * config.steps_per_epoch)
        self.batch_size = config.batch_size
        self.share = config.batch_size // ranks
        self.rank = rank

    def __len__(self) -> int:
        """Returns the number of this process's draws in the epoch."""
        return len(self.steps) * self.share

    def __iter__(self) -> Iterator[int]:
        """Counts through the process's share of each step."""
        for step in self.steps:
            first = step * self.batch_size + self.rank * self.share
            yield from range(first, first + self.share)


class CropLoader(DataLoader[tuple[Tensor, Tensor, Tensor]]):
    """A loader whose processes tell a bad file in the line that this process would."""

    @override
    def __iter__(self) -> Any:
        """Gives the batches.

        Raises:
            DataError: A file cannot be read; without the traceback that torch makes of it.
        """
        try:
            yield from super().__iter__()
        except DataError as error:
            raise DataError(str(error).rpartition('DataError: ')[2].strip()) from None


class RockDataModule(pl.LightningDataModule):
    """Random crops of the train splits, whole images of the val splits.

    Attributes:
        samples: Name of a source → all its samples.
        train: Name of a source → its train samples.
        val: Name of a source → its val samples, only where it has labelled ones.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """Finds the images, without reading them.

        Raises:
            DataError: There are too few of them.
        """
        super().__init__()
        self.config = config
        classes = config.all_classes
        self.samples = {
            name: find_samples(source, 'all', classes) for name, source in config.sources.items()
        }
        self.train: dict[str, list[Sample]] = {}
        self.val: dict[str, list[Sample]] = {}
        for name, samples in self.samples.items():
            self.train[name] = [sample for sample in samples if sample.split == 'train']
            held_out = [sample for sample in samples if sample.split == 'val']
            if held_out and config.sources[name].format != 'unlabelled':
                self.val[name] = held_out
        if not self.val:
            raise DataError('no source has a labelled image in split val')
        for stage in range(len(config.stages)):
            stage_shares(self.train, config, stage)

    def check(self) -> None:
        """Reads every file once, so that a bad one shows before the training, not within.

        Raises:
            DataError: One line for each bad file.
        """
        problems = check([sample for found in self.samples.values() for sample in found])
        if problems:
            raise DataError('\n'.join(problem.reason for problem in problems))

    @override
    def train_dataloader(self) -> DataLoader:
        """Returns batches of the epoch that the trainer stands at; asked anew for each epoch."""
        assert self.trainer is not None
        config, step = self.config, self.trainer.global_step
        stage = config.stage_at(step)
        sources: dict[str, Sequence[ReadableSample]] = dict(self.train)
        sources.update(pseudo_label_sources(self.train, config, stage, self.trainer))
        share = config.batch_size // self.trainer.world_size
        return CropLoader(
            RandomCrops(sources, config, stage),
            share // config.machine.accumulate,
            sampler=EpochSampler(
                config,
                step // config.steps_per_epoch,
                self.trainer.global_rank,
                self.trainer.world_size,
            ),
            num_workers=config.machine.workers,
            pin_memory=self.trainer.strategy.root_device.type == 'cuda',
        )

    @override
    def val_dataloader(self) -> list[DataLoader]:
        """Returns a loader for each source in `val`; one image a batch, as their sizes differ.

        Several processes take turns with the images.
        """
        assert self.trainer is not None
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return [
            DataLoader(WholeImages(samples[rank::ranks] or [IgnoredSample(samples[0])]))
            for samples in self.val.values()
        ]
