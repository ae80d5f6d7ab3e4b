# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole at every moment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.writing import write_beside

TEMPORARY_PREFIX = '.writing-'  # of write_beside's folders


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; a kill or a full disk leaves the old one.

    Lightning's own goes through the system's temporary folder: a plain copy where that is on
    another file system.
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
            write_beside(path, lambda temporary: torch.save(checkpoint, temporary))
        except RuntimeError as error:  # torch's word for a disk that is full
            raise OSError(f'{path}: cannot be written ({first_line(error)})') from None


def last_checkpoint(run: Path) -> Path:
    """Returns where a run keeps its newest checkpoint."""
    return run / 'checkpoints' / 'last.ckpt'


def best_checkpoint(run: Path) -> Path:
    """Returns where a run keeps the checkpoint with the best validation figure."""
    return run / 'checkpoints' / 'best.ckpt'


def remove_temporary_files(run: Path) -> None:
    """Removes what a kill in the middle of a write has left in a run's folder."""
    for left in run.rglob(f'{TEMPORARY_PREFIX}*'):
        shutil.rmtree(left)


def checkpoint_callbacks(run: Path) -> list[Callback]:
    """Returns the callbacks that renew a run's newest and best checkpoint after each validation."""
    last, best = last_checkpoint(run), best_checkpoint(run)
    return [
        ModelCheckpoint(
            best.parent,
            best.stem,
            monitor='val_iou',
            mode='max',
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        ),
        ModelCheckpoint(
            last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True
        ),
    ]
