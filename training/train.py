# SPDX-License-Identifier: Apache-2.0
"""Trains a network on a folder of pictures and masks, and goes on exactly where it stopped."""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger

from training.checkpoints import AtomicCheckpointIO, checkpoint_callback, last_checkpoint
from training.config import TrainingConfig
from training.datasets import CropsAndPictures, DataError
from training.module import RockSegmentation
from training.pretrained import load_pretrained
from training.progress import WholeRunBar


def train(config: TrainingConfig, resume: bool = False, stop_after: int = 0) -> Path:
    """Trains a model.

    Args:
        config: The run.
        resume: Go on from `RUN/checkpoints/last.ckpt` instead of starting anew.
        stop_after: Stop after this many epochs, with all schedules as for the whole run; 0 = never.

    Returns:
        The last checkpoint, whose weights are the averaged ones.

    Raises:
        DataError: The data cannot be trained on, there is nothing to resume from, or a run
            would be written over.
    """
    data = CropsAndPictures(config)
    run = Path(config.run)
    last = last_checkpoint(run)
    if resume and not last.exists():
        raise DataError(f'{last}: nothing to resume from')
    if last.exists() and not resume:
        raise DataError(f'{last}: exists; give --resume to go on, or another --run')
    run.mkdir(parents=True, exist_ok=True)
    (run / 'config.yaml').write_text(yaml.safe_dump(asdict(config), sort_keys=False))

    module = RockSegmentation(config)
    if config.pretrained and not resume:
        load_pretrained(module.model)
    _trainer(config, stop_after).fit(
        module, data, ckpt_path=str(last) if resume else None, weights_only=True
    )
    return last


def _trainer(config: TrainingConfig, stop_after: int) -> pl.Trainer:
    cuda = torch.cuda.is_available()
    run = Path(config.run)
    return pl.Trainer(
        max_epochs=stop_after or config.steps // config.steps_per_epoch,
        accelerator='gpu' if cuda else 'cpu',
        devices=1,
        precision='16-mixed' if cuda else '32-true',
        gradient_clip_val=5.0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=TensorBoardLogger(str(run), name='', version='tensorboard'),
        callbacks=[
            EMAWeightAveraging(device='cuda' if cuda else 'cpu', decay=config.ema_decay),
            checkpoint_callback(run),
            WholeRunBar(config.steps),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _be_quiet() -> None:
    """Leaves the terminal to the progress bar: no tips, no advice on loader processes."""
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', module=r'lightning\..*', category=FutureWarning)
    for advice in ('does not have many workers', 'exists and is not empty'):
        warnings.filterwarnings('ignore', message=f'.*{advice}.*')


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
    _be_quiet()
    try:
        last = train(TrainingConfig(**parser.instantiate(parsed).as_dict()), resume)
    except (DataError, ValueError) as error:
        print(f'training.train: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        print('training.train: interrupted; --resume goes on from the last epoch', file=sys.stderr)
        return 130
    print(f'{last}: trained; next: python -m training.export --checkpoint {last} -o NAME')
    return 0


if __name__ == '__main__':
    sys.exit(main())
