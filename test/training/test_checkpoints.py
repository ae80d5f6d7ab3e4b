# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.checkpoints import AtomicCheckpointIO


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, last = AtomicCheckpointIO(), tmp_path / 'last.ckpt'
    writer.save_checkpoint({'step': 1}, last)

    def disk_full(checkpoint: object, file: Path) -> None:
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', disk_full)
    with pytest.raises(OSError, match='No space left'):
        writer.save_checkpoint({'step': 2}, last)
    assert torch.load(last, weights_only=True) == {'step': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']
