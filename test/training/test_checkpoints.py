# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.checkpoints import AtomicCheckpointIO, remove_temporary_files


@pytest.mark.parametrize(
    'error',
    [
        OSError(28, 'No space left on device'),
        RuntimeError('unexpected pos 64 vs 0\nfrom many\nlines of C++'),
    ],
)
def test_a_failed_write_keeps_the_previous_checkpoint_and_leaves_no_temporary_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, last = AtomicCheckpointIO(), tmp_path / 'last.ckpt'
    writer.save_checkpoint({'step': 1}, last)

    def disk_full(checkpoint: object, file: Path) -> None:
        file.write_bytes(b'half')
        raise error

    monkeypatch.setattr(torch, 'save', disk_full)
    with pytest.raises(OSError, match=r'No space left|cannot be written') as raised:
        writer.save_checkpoint({'step': 2}, last)
    assert '\n' not in str(raised.value)
    assert torch.load(last, weights_only=True) == {'step': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['last.ckpt']


def test_only_temporary_folders_are_removed(tmp_path: Path) -> None:
    for folder in (tmp_path / '.writing-a', tmp_path / 'checkpoints/.writing-b'):
        folder.mkdir(parents=True)
        (folder / 'last.ckpt').write_bytes(b'half')
    (tmp_path / 'checkpoints/last.ckpt').write_bytes(b'whole')
    remove_temporary_files(tmp_path)
    kept = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob('*'))
    assert kept == ['checkpoints', 'checkpoints/last.ckpt']


def test_a_new_run_has_no_temporary_files(tmp_path: Path) -> None:
    remove_temporary_files(tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
