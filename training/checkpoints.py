# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are replaced atomically."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

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


def remove_temporary_files(run: Path) -> None:
    """Removes temporary folders that a killed process left in the folder of a run."""
    for folder in run.rglob(f'{TEMPORARY_PREFIX}*'):
        shutil.rmtree(folder)


def checkpoint_callbacks(run: Path) -> list[Callback]:
    """Returns the callbacks that write the latest and best checkpoint after each validation."""
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
