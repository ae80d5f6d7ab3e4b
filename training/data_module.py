# SPDX-License-Identifier: Apache-2.0
"""Data of a training: random crops of the train splits, whole images of the val splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from training.datasets import (
    IGNORE,
    DataError,
    Labelled,
    Problem,
    Sample,
    find_samples,
    read_all,
)
from training.rims import mark_rims
from training.self_training import pseudo_label_sources
from training.transforms import geometric_transform, photometric_transform

CACHED_BYTES = 2**31  # of the decoded images in the cache of each loader process


class ReadableSample(Protocol):
    """An image and its labels, which are read on demand."""

    def read(self) -> Labelled:
        """Reads the image and its labels."""


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Whole images: 3×H×W uint8 RGB and H×W int64 class ids without rims."""

    def __init__(self, samples: Sequence[ReadableSample]) -> None:
        """Stores the samples, whose order is kept."""
        self.samples = samples

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Reads the image at an index."""
        read = self.samples[index].read()
        image = torch.from_numpy(read.image).permute(2, 0, 1)
        return image, torch.from_numpy(read.classes).long()


@dataclass(frozen=True)
class IgnoredSample:
    """An image whose pixels are all ignored, for a process that has no image to validate on."""

    sample: ReadableSample

    def read(self) -> Labelled:
        """Reads the image and marks all pixels as ignored."""
        read = self.sample.read()
        return Labelled(read.image, np.full_like(read.classes, IGNORE), None)


class RandomCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random crops of a stage; each depends only on the seed and its index in the whole run.

    A resumed run therefore trains on the same crops as an uninterrupted one, with any number of
    workers and processes.
    """

    def __init__(
        self, sources: Mapping[str, Sequence[ReadableSample]], config: TrainingConfig, stage: int
    ) -> None:
        """Prepares the transforms of a stage.

        Args:
            sources: Name of a source → its train samples.
            config: Configuration of the run.
            stage: Index of the stage.
        """
        settings = config.stages[stage]
        shares = stage_shares(sources, config, stage)
        self.sources = [sources[name] for name in shares]
        self.shares = torch.tensor(list(shares.values()), dtype=torch.float)
        self.config = config
        self.geometric = geometric_transform(settings.crop, settings.area, config.augmentation)
        self.photometric = photometric_transform(config.augmentation)
        self._images: dict[int, Labelled] = {}  # by id of the sample, the latest one last
        self._free = CACHED_BYTES
        metadata = config.metadata()
        self.rock_ids = metadata.rock_ids
        self.rim_id = metadata.rim_id

    def __len__(self) -> int:
        """Returns the number of crops in the whole run."""
        return self.config.steps * self.config.batch_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Makes the crop with this index in the whole run.

        Returns:
            3×crop×crop uint8 RGB; crop×crop int64 class ids; and with teachers the crop before
            photometric augmentation, without teachers an empty tensor.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed_at(index))
            source = self.sources[int(torch.multinomial(self.shares, 1))]
            image, labels = self._crop(source)
            if torch.rand(()) < self.config.augmentation.paste_p:
                other = self.sources[int(torch.multinomial(self.shares, 1))]
                image, labels = paste_rocks(
                    image, labels, *self._crop(other), self.rock_ids, self.config.augmentation
                )
            clean = image.as_subclass(Tensor) if self.config.distill.teachers else torch.empty(0)
            augmented, labels = self.photometric(image, labels)
        classes, instances = labels.numpy()
        if self.rim_id is not None:
            classes = mark_rims(
                classes, instances, self.rock_ids, self.rim_id, self.config.rim_width
            )
        return augmented.as_subclass(Tensor), torch.from_numpy(classes).long(), clean

    def _read(self, sample: ReadableSample) -> Labelled:
        read = self._images.pop(id(sample), None)
        if read is None:
            read = sample.read()
            self._free -= 8 * read.classes.size  # image, classes and instances
        self._images[id(sample)] = read
        while self._free < 0:
            self._free += 8 * self._images.pop(next(iter(self._images))).classes.size
        return read

    def _crop(self, source: Sequence[ReadableSample]) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        read = self._read(source[int(torch.randint(len(source), ()))])
        classes = torch.from_numpy(read.classes).int()
        instances = (
            torch.zeros_like(classes)
            if read.instances is None
            else torch.from_numpy(read.instances).int()
        )
        return self.geometric(
            tv_tensors.Image(torch.from_numpy(read.image).permute(2, 0, 1)),
            tv_tensors.Mask(torch.stack([classes, instances])),
        )


def stage_shares(
    sources: Mapping[str, Sequence[ReadableSample]], config: TrainingConfig, stage: int
) -> dict[str, float]:
    """Returns the share of each source in the crops of a stage, above 0.

    Args:
        sources: Name of a source → its train samples.
        config: Configuration of the run.
        stage: Index of the stage.

    Raises:
        DataError: A source of the stage, or every source, has no train samples.
    """
    settings = config.stages[stage]
    shares = settings.shares or {
        name: float(len(samples))
        for name, samples in sources.items()
        if config.sources[name].format != 'unlabelled'
        or name in settings.self_train
        or config.distill.teachers
    }
    shares = {name: share for name, share in shares.items() if share}
    for name in shares:
        if not sources[name]:
            raise DataError(f'source {name}: no image in split train; stage {stage + 1} uses it')
    if not shares:
        raise DataError(f'stage {stage + 1}: no source has a labelled image in split train')
    return shares


class EpochSampler(Sampler[int]):
    """The crop indices of one epoch for one of several processes.

    The crops of a step do not depend on the number of processes.
    """

    def __init__(self, config: TrainingConfig, epoch: int, rank: int = 0, ranks: int = 1) -> None:
        """Selects the indices.

        Args:
            config: Configuration of the run.
            epoch: Index of the epoch.
            rank: Index of the process.
            ranks: Number of processes.
        """
        self.steps = range(epoch * config.steps_per_epoch, (epoch + 1) * config.steps_per_epoch)
        self.batch_size = config.batch_size
        self.share = config.batch_size // ranks
        self.rank = rank

    def __len__(self) -> int:
        """Returns the number of crops of this process in the epoch."""
        return len(self.steps) * self.share

    def __iter__(self) -> Iterator[int]:
        """Yields the crop indices of this process, step by step."""
        for step in self.steps:
            first = step * self.batch_size + self.rank * self.share
            yield from range(first, first + self.share)


class CropLoader(DataLoader[tuple[Tensor, Tensor, Tensor]]):
    """A data loader that reports an unreadable file in one line, from any worker process."""

    @override
    def __iter__(self) -> Any:
        """Yields the batches.

        Raises:
            DataError: A file cannot be read. The traceback that torch adds to the message of a
                worker is removed.
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
        val: Name of a source → its val samples; only sources with labels.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """Lists the images without reading them.

        Raises:
            DataError: There is no labelled image to train or to validate on.
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

    def check(self) -> bool:
        """Reads every file once, so that an unusable file is reported before the training begins.

        Returns:
            Whether a train sample has instances, from which rims are learned.

        Raises:
            DataError: A file cannot be used; the message has one line per file.
        """
        samples = [sample for of_source in self.samples.values() for sample in of_source]
        problems, has_instances = [], False
        for sample, result in read_all(samples):
            if isinstance(result, Problem):
                problems.append(result.reason)
            elif sample.split == 'train' and result.instances is not None:
                has_instances |= bool(result.instances.any())
        if problems:
            raise DataError('\n'.join(problems))
        return has_instances

    def first_crops(self, count: int) -> Tensor:
        """Returns the first crops of the training, count×3×crop×crop uint8 RGB."""
        crops = RandomCrops(dict(self.train), self.config, 0)
        return torch.stack([crops[index][0] for index in range(count)])

    @override
    def train_dataloader(self) -> DataLoader:
        """Returns the batches of the current epoch; Lightning calls this before each epoch."""
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
        """Returns a loader per source in `val`, with one image per batch, as image sizes differ.

        Several processes share the images of a source.
        """
        assert self.trainer is not None
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return [
            DataLoader(WholeImages(samples[rank::ranks] or [IgnoredSample(samples[0])]))
            for samples in self.val.values()
        ]
