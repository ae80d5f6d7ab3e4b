# SPDX-License-Identifier: Apache-2.0
"""`python -m training.train --config config/training.yaml`: trains, and resumes exactly."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from training.config import TrainingConfig
from training.datasets import (
    DataError,
    EpochOfDraws,
    Pictures,
    RandomCrops,
    find_samples,
    read_sample,
)
from training.module import RockSegmentation


def train(config: TrainingConfig, resume: bool = False, stop_after: int = 0) -> Path:
    """Trains a model.

    Args:
        config: The run.
        resume: Go on from `RUN/checkpoints/last.ckpt` instead of starting anew.
        stop_after: Stop after this many epochs, with all schedules as for the whole run; 0 = never.

    Returns:
        The last checkpoint, whose weights are the averaged ones.

    Raises:
        DataError: The data cannot be trained on, or there is nothing to resume from.
    """
    samples = {
        split: find_samples(Path(config.data), split, config.val_fraction)
        for split in ('train', 'val')
    }
    for sample in samples['train'] + samples['val']:
        read_sample(sample, config.mask_values)
    run = Path(config.run)
    last = run / 'checkpoints' / 'last.ckpt'
    if resume and not last.exists():
        raise DataError(f'{last}: nothing to resume from')
    if last.exists() and not resume:
        raise DataError(f'{last}: exists; give --resume to go on, or another --run')
    run.mkdir(parents=True, exist_ok=True)
    (run / 'config.yaml').write_text(yaml.safe_dump(asdict(config), sort_keys=False))

    cuda = torch.cuda.is_available()
    trainer = pl.Trainer(
        max_epochs=stop_after or config.steps // config.steps_per_epoch,
        accelerator='gpu' if cuda else 'cpu',
        precision='16-mixed' if cuda else '32-true',
        gradient_clip_val=5.0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=TensorBoardLogger(str(run), name='', version='tensorboard'),
        callbacks=[
            EMAWeightAveraging(decay=config.ema_decay),
            LearningRateMonitor('step'),
            ModelCheckpoint(run / 'checkpoints', save_last=True, save_top_k=0),
            TQDMProgressBar(),
        ],
    )
    trainer.fit(
        RockSegmentation(config),
        DataLoader(
            RandomCrops(samples['train'], config),
            config.batch_size,
            sampler=EpochOfDraws(config),
            num_workers=config.workers,
            pin_memory=cuda,
        ),
        DataLoader(Pictures(samples['val'], config.mask_values), batch_size=1),
        ckpt_path=str(last) if resume else None,
        weights_only=False,
    )
    return last


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = ArgumentParser(description=__doc__, prog='python -m training.train')
    parser.add_argument('--config', action='config', help='YAML file with the settings below')
    parser.add_class_arguments(TrainingConfig, as_group=False)
    parser.add_argument(
        '--resume', action='store_true', help='go on from RUN/checkpoints/last.ckpt'
    )
    parsed: Namespace = parser.parse_args(arguments)
    resume = parsed.pop('resume')
    parsed.pop('config')
    try:
        train(TrainingConfig(**parser.instantiate_classes(parsed).as_dict()), resume)
    except (DataError, ValueError) as error:
        print(f'training.train: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
