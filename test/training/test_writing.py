# SPDX-License-Identifier: Apache-2.0
"""Files are written atomically, and errors name the file."""

from __future__ import annotations

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.writing import write_atomically, write_image


def test_images_and_labels_are_written_exactly(tmp_path: Path) -> None:
    image = np.full((4, 6, 3), (250, 100, 10), np.uint8)
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    write_image(tmp_path / 'new/a.png', image)
    write_image(tmp_path / 'new/b.png', labels)
    assert (cv2.imread(str(tmp_path / 'new/a.png'))[..., ::-1] == image).all()
    assert (cv2.imread(str(tmp_path / 'new/b.png'), cv2.IMREAD_UNCHANGED) == labels).all()


def test_a_full_disk_is_reported_and_keeps_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    write_atomically(tmp_path / 'a.jpg', b'old')
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match=r'a\.jpg: cannot be written: No space left on device$'):
        write_image(tmp_path / 'a.jpg', np.zeros((4, 6, 3), np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ['a.jpg']
    assert (tmp_path / 'a.jpg').read_bytes() == b'old'
