# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from rock_seg_ros.perception.weights_file import write_beside


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames; a kill or a full disk leaves the old one.

    Lightning's own goes through the system's temporary folder: a plain copy where that is on
    another file system.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint to a local path."""
        write_beside(path, lambda temporary: torch.save(checkpoint, temporary))


def last_checkpoint(run: Path) -> Path:
    """Returns where a run keeps its checkpoint."""
    return run / 'checkpoints' / 'last.ckpt'


def checkpoint_callback(run: Path) -> ModelCheckpoint:
    """Returns the callback that renews a run's one checkpoint after each validation."""
    last = last_checkpoint(run)
    return ModelCheckpoint(
        last.parent, last.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
