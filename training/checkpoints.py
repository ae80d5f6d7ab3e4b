# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are replaced atomically."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.writing import atomic_write

TEMPORARY_PREFIX = '.writing-'  # of the folders that atomic_write creates


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file next to the checkpoint and renames it.

    If the process is killed or the disk is full, the previous checkpoint is intact. Lightning's
    own implementation uses the temporary folder of the system, which may be another file system,
    where moving is not atomic.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint to a local path.

        Raises:
            OSError: It cannot be written.
        """
        try:
            atomic_write(path, lambda temporary: torch.save(checkpoint, temporary))
        except RuntimeError as error:  # torch raises it when the disk is full
            raise OSError(f'{path}: cannot be written ({first_line(error)})') from None


def last_checkpoint(run: Path) -> Path:
    """Returns the path of the latest checkpoint of a run."""
    return run / 'checkpoints' / 'last.ckpt'


def best_checkpoint(run: Path) -> Path:
    """Returns the path of the checkpoint with the best validation result of a run."""
    return run / 'checkpoints' / 'best.ckpt'


class CycleCheckpoint(Callback):
    """Keeps the checkpoint at the end of each learning rate cycle but the last, as stepN.ckpt.

    The mean of the weights at the ends of cycles is often better than the last ones (Izmailov et
    al. 2018, arXiv:1803.05407); `training.export --interpolate` averages two.
    """

    def __init__(self, run: Path, restarts: Sequence[int]) -> None:
        """Stores the folder of the run and the numbers of steps."""
        self._folder = last_checkpoint(run).parent
        self._restarts = frozenset(restarts)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the checkpoint."""
        if trainer.global_step in self._restarts:
            trainer.save_checkpoint(self._folder / f'step{trainer.global_step}.ckpt')


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint whose best score is kept when the folder of the run is moved.

    `ModelCheckpoint` forgets it then, and the next validation would replace the best checkpoint.
    """

    @property
    @override
    def state_key(self) -> str:
        """The key of `ModelCheckpoint`, so that its checkpoints can be resumed."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state with the present folder of the run."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or '', Path(path).name)) if path else ''

        paths = {name: here(path) for name, path in state_dict.items() if name.endswith('_path')}
        best = {here(path): score for path, score in state_dict['best_k_models'].items()}
        super().load_state_dict(
            {**state_dict, **paths, 'best_k_models': best, 'dirpath': self.dirpath}
        )


def remove_temporary_files(run: Path) -> None:
    """Removes temporary folders that a killed process left in the folder of a run."""
    for folder in run.rglob(f'{TEMPORARY_PREFIX}*'):
        shutil.rmtree(folder)


def checkpoint_callbacks(run: Path, restarts: Sequence[int]) -> list[Callback]:
    """Returns the callbacks that write the latest, the best and the kept checkpoints of a run.

    Args:
        run: The folder of the run.
        restarts: Numbers of steps after which the checkpoint is kept.
    """
    last, best = last_checkpoint(run), best_checkpoint(run)
    return [
        RunCheckpoint(
            best.parent,
            best.stem,
            monitor='val_iou',
            mode='max',
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        ),
        RunCheckpoint(
            last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True
        ),
        CycleCheckpoint(run, restarts),
    ]
