# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures from disk, and the random crops that a training sees of them."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from typing_extensions import override

from rock_seg_ros.perception.decoding import PictureError, read_grey, read_rgb
from training.config import TrainingConfig
from training.transforms import training_transform

IGNORE = 255
PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png')


class DataError(ValueError):
    """A data set that cannot be trained on; the message names the file and the reason."""


@dataclass(frozen=True)
class Sample:
    """A picture file and its mask file."""

    picture: Path
    mask: Path


def find_samples(
    folder: Path, split: str, val_fraction: float = TrainingConfig.val_fraction
) -> list[Sample]:
    """Finds the pictures of a split that have a mask.

    Args:
        folder: Holds `images/ID.jpg|png`, `masks/ID.png` and perhaps `manifest.csv` with the
            columns id and split.
        split: 'train', 'val' or 'all'.
        val_fraction: Share that is 'val' when there is no manifest; the draw is always the same.

    Raises:
        DataError: There is no such folder, or it has no picture of that split.
    """
    if not (folder / 'images').is_dir() or not (folder / 'masks').is_dir():
        raise DataError(f'{folder}: no folder with images/ and masks/ in it')
    found = [
        Sample(picture, folder / 'masks' / f'{picture.stem}.png')
        for picture in sorted((folder / 'images').iterdir())
        if picture.suffix.lower() in PICTURE_SUFFIXES
        and (folder / 'masks' / f'{picture.stem}.png').exists()
    ]
    if split != 'all':
        members = _members(folder, [sample.picture.stem for sample in found], split, val_fraction)
        found = [sample for sample in found if sample.picture.stem in members]
    if not found:
        raise DataError(f'{folder}: no picture with a mask in split {split!r}')
    return found


def _members(folder: Path, names: list[str], split: str, val_fraction: float) -> set[str]:
    manifest = folder / 'manifest.csv'
    if manifest.exists():
        with manifest.open(newline='') as file:
            rows = csv.DictReader(file)
            if not {'id', 'split'} <= set(rows.fieldnames or ()):
                raise DataError(f'{manifest}: needs the columns id and split')
            return {row['id'] for row in rows if row['split'] == split}
    shuffled = list(names)
    random.Random(0).shuffle(shuffled)
    held_out = max(1, round(val_fraction * len(shuffled)))
    return set(shuffled[:held_out] if split == 'val' else shuffled[held_out:])


def read_sample(sample: Sample, mask_values: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Reads a picture and its class ids.

    Returns:
        H×W×3 uint8 RGB, and H×W uint8 class ids (255 = ignored).

    Raises:
        DataError: A file does not decode, the sizes differ, or the mask has a value that
            `mask_values` does not name.
    """
    try:
        picture, mask = read_rgb(sample.picture), read_grey(sample.mask)
    except (PictureError, OSError) as error:
        raise DataError(str(error)) from None
    if mask.shape != picture.shape[:2]:
        raise DataError(
            f'{sample.mask}: is {mask.shape[1]}×{mask.shape[0]},'
            f' its picture {picture.shape[1]}×{picture.shape[0]}'
        )
    table = np.full(256, -1, np.int16)
    for value, class_id in mask_values.items():
        table[value] = class_id
    targets = table[mask]
    if targets.min() < 0:
        stranger = int(mask[targets < 0][0])
        raise DataError(f'{sample.mask}: has the value {stranger}; legal is {sorted(mask_values)}')
    return picture, targets.astype(np.uint8)


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Whole pictures: 3×H×W uint8 and H×W int64 class ids."""

    def __init__(self, samples: list[Sample], mask_values: dict[int, int]) -> None:
        """Takes the samples in the order given."""
        self.samples = samples
        self.mask_values = mask_values

    def __len__(self) -> int:
        """Returns the number of pictures."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Reads a picture."""
        picture, targets = read_sample(self.samples[index], self.mask_values)
        return torch.from_numpy(picture).permute(2, 0, 1), torch.from_numpy(targets).long()


class RandomCrops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of pictures, each fixed by the seed and its number in the whole training.

    So a run that is killed and resumed sees what it would have seen, with any number of workers.
    """

    def __init__(self, samples: list[Sample], config: TrainingConfig) -> None:
        """Takes the samples; the stages of the configuration tell the crop size of each step."""
        self.pictures = Pictures(samples, config.mask_values)
        self.config = config

    def __len__(self) -> int:
        """Returns the number of draws in the whole training."""
        return self.config.steps * self.config.batch_size

    def __getitem__(self, draw: int) -> tuple[Tensor, Tensor]:
        """Makes a crop: 3×crop×crop uint8 and crop×crop int64 class ids."""
        count = len(self.pictures)
        order = torch.Generator().manual_seed(self.config.seed + draw // count)
        index = int(torch.randperm(count, generator=order)[draw % count])
        picture, targets = self.pictures[index]
        transform = training_transform(self.config.stage_at(draw // self.config.batch_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.config.seed << 32) + draw)
            crop: Any = transform(tv_tensors.Image(picture), tv_tensors.Mask(targets))
        return crop[0].as_subclass(Tensor), crop[1].as_subclass(Tensor)


class EpochOfDraws(Sampler[int]):
    """The draws of one epoch after another; Lightning calls `set_epoch` before the next."""

    def __init__(self, config: TrainingConfig, epoch: int = 0) -> None:
        """Takes steps an epoch and crops a step from the configuration, and the first epoch."""
        self.size = config.steps_per_epoch * config.batch_size
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose draws come next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of draws in an epoch."""
        return self.size

    def __iter__(self) -> Iterator[int]:
        """Counts through the epoch's draws."""
        return iter(range(self.epoch * self.size, (self.epoch + 1) * self.size))


class CropsAndPictures(pl.LightningDataModule):
    """Random crops of the train split, whole pictures of the val split."""

    def __init__(self, config: TrainingConfig) -> None:
        """Reads every file once, so that a bad one shows before the training, not within.

        Raises:
            DataError: The data cannot be trained on.
        """
        super().__init__()
        self.config = config
        folder = Path(config.data)
        self._train = find_samples(folder, 'train', config.val_fraction)
        self._val = find_samples(folder, 'val', config.val_fraction)
        for sample in self._train + self._val:
            read_sample(sample, config.mask_values)

    @override
    def train_dataloader(self) -> DataLoader:
        """Returns batches of crops from the trainer's step on.

        Lightning fetches a resumed run's first batches before it sets the sampler's epoch.
        """
        steps_done = self.trainer.global_step if self.trainer else 0
        return DataLoader(
            RandomCrops(self._train, self.config),
            self.config.batch_size,
            sampler=EpochOfDraws(self.config, steps_done // self.config.steps_per_epoch),
            num_workers=self.config.workers,
            pin_memory=torch.cuda.is_available(),
        )

    @override
    def val_dataloader(self) -> DataLoader:
        """Returns one picture a batch, as their sizes differ."""
        return DataLoader(Pictures(self._val, self.config.mask_values), batch_size=1)
