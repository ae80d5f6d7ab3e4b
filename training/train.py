# SPDX-License-Identifier: Apache-2.0
"""Trains a network on labelled images in stages, and resumes an interrupted run."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

from rock_seg_ros.perception.errors import all_lines, first_line
from rock_seg_ros.perception.inference.weights_file import WeightsError
from training.arguments import argument_parser, to_config
from training.averaging import AveragedWeights
from training.checkpoints import (
    AtomicCheckpointIO,
    checkpoint_callbacks,
    last_checkpoint,
    remove_temporary_files,
)
from training.config import Precision, TrainingConfig
from training.data_module import RockDataModule
from training.datasets import DataError
from training.module import RockSegmentation
from training.pretrained import load_initial_weights
from training.progress import RunProgressBar
from training.run_folder import CurveWriter, ValidationImageWriter, describe_run
from training.schedule import restarts
from training.self_training import remove_pseudo_labels

HINTS = {
    'CUDA out of memory': 'increase machine.accumulate or reduce batch_size',
    'DataLoader worker': 'machine.workers: 0 needs less memory',
    'PytorchStreamReader': 'RUN/checkpoints/last.ckpt is damaged',
}


def train(config: TrainingConfig, resume: bool = False, stop_after: int = 0) -> Path:
    """Trains a model.

    Args:
        config: Configuration of the run.
        resume: Resume from `RUN/checkpoints/last.ckpt`; false = start a new run.
        stop_after: Stop after this many epochs, while all schedules keep the length of the whole
            run; 0 = train to the end.

    Returns:
        Path of the last checkpoint, which contains the averaged weights.

    Raises:
        DataError: The data cannot be used, there is no checkpoint to resume from, the run exists
            already, or its settings or data have changed since it began.
        ValueError: The batch cannot be divided among the processes.
        WeightsError: The initial weights cannot be used.
    """
    run = Path(config.run)
    last = last_checkpoint(run)
    if resume and not last.exists():
        raise DataError(f'{last}: does not exist, so there is no run to resume')
    if last.exists() and not resume:
        raise DataError(f'{last}: exists; continue the run with --resume, or choose another --run')
    try:
        trainer = _trainer(config, stop_after)
    except TypeError as error:  # of Lightning, such as devices that do not exist
        raise ValueError(f'machine: {first_line(error)}') from None
    _check_processes(config, trainer.world_size)
    data = RockDataModule(config)
    if trainer.is_global_zero:
        remove_temporary_files(run)
        if not data.check() and config.rim_width:
            print(
                f'training.train: rim_width is {config.rim_width:g}, but no training image has'
                ' instances, so touching rocks will not be separated; label instances, or set'
                ' rim_width: 0 to separate rocks by their shape',
                file=sys.stderr,
            )
        describe_run(config, data.samples, resume)
        if not resume:
            remove_pseudo_labels(run)
    module = RockSegmentation(config, list(data.val))
    if not resume:
        load_initial_weights(module.model, module.metadata, config.start_from, data.first_crops)
    try:
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
    except BaseException:
        _end_other_processes(trainer)
        raise
    return last


def _can_share(config: TrainingConfig, processes: int) -> bool:
    parts = processes * config.machine.accumulate
    return config.batch_size % parts == 0 and config.batch_size >= 2 * parts


def _check_processes(config: TrainingConfig, processes: int) -> None:
    if not _can_share(config, processes):
        raise ValueError(
            f'batch_size is {config.batch_size}; it must be processes × accumulate ({processes} ×'
            f' {config.machine.accumulate}) times 2 or more (batch norm)'
        )


def _devices(config: TrainingConfig, on_cpu: bool) -> int | str:
    """Returns the devices; for 'auto', as many GPUs as the batch can be divided among."""
    if config.machine.devices != 'auto':
        return config.machine.devices
    gpus, nodes = 0 if on_cpu else torch.cuda.device_count(), config.machine.nodes
    used = next((n for n in range(gpus, 0, -1) if _can_share(config, n * nodes)), 1)
    if used < gpus:
        used_gpus = f'uses {used} of {gpus} GPUs, which divide the batch_size {config.batch_size}'
        rank_zero_only(print)(f'training.train: {used_gpus}', file=sys.stderr)
    return used


def _end_other_processes(trainer: pl.Trainer) -> None:
    """Ends the processes that the first one started; they would wait for it for 30 minutes."""
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        trainer.strategy.launcher.kill(signal.SIGKILL)


def _trainer(config: TrainingConfig, stop_after: int) -> pl.Trainer:
    machine, cuda = config.machine, torch.cuda.is_available()
    on_cpu = machine.accelerator == 'cpu' or not cuda
    run = Path(config.run)
    logger = TensorBoardLogger(str(run), name='', version='tensorboard')
    callbacks = [
        *checkpoint_callbacks(run, restarts(config)),
        CurveWriter(run, logger),
        ValidationImageWriter(run),
    ]
    if config.optimizer.ema_decay:
        callbacks.insert(0, AveragedWeights(decay=config.optimizer.ema_decay))
    return pl.Trainer(
        max_epochs=stop_after or config.steps // config.steps_per_epoch,
        accelerator=machine.accelerator,
        devices=_devices(config, on_cpu),
        num_nodes=machine.nodes,
        strategy=machine.strategy,
        precision=_precision(machine.precision, on_cpu),
        accumulate_grad_batches=machine.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        sync_batchnorm=not on_cpu,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=logger,
        callbacks=[*callbacks, RunProgressBar(config.steps)],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _precision(precision: Precision, on_cpu: bool) -> Literal['16-mixed', 'bf16-mixed', '32-true']:
    if precision == 'auto':
        return '32-true' if on_cpu else '16-mixed'
    return precision


def _silence_lightning() -> None:
    """Suppresses Lightning's hints and warnings, which would interrupt the progress bar."""
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    warnings.filterwarnings('ignore', module=r'lightning\..*', category=FutureWarning)
    for message in ('does not have many workers', 'exists and is not empty'):
        warnings.filterwarnings('ignore', message=f'.*{message}.*')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argument_parser('python -m training.train', __doc__ or '')
    parser.add_argument(
        '--resume', action='store_true', help='continue the run from RUN/checkpoints/last.ckpt'
    )
    parsed: Namespace = parser.parse_args(arguments)
    resume = parsed.pop('resume')
    _silence_lightning()
    try:
        last = train(to_config(parser, parsed), resume)
    except (DataError, WeightsError, ValueError, OSError, MisconfigurationException) as error:
        print(f'training.train: {all_lines(error)}', file=sys.stderr)
        return 1
    except RuntimeError as error:
        reason = first_line(error).partition('. ')[0]
        if not (hints := [HINTS[start] for start in HINTS if reason.startswith(start)]):
            raise
        print(f'training.train: {reason}; {hints[0]}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):  # Lightning turns Ctrl-C into SystemExit
        print('training.train: interrupted; continue the run with --resume', file=sys.stderr)
        return 130
    rank_zero_only(print)(
        f'{last}: training finished; export: python -m training.export --checkpoint {last} -o NAME'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
