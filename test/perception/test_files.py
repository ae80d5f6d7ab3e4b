# SPDX-License-Identifier: Apache-2.0
"""Only regular files up to a size limit are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rock_seg_ros.perception.files import MAX_FILE_BYTES, read_file


def test_a_file_is_read_completely(tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(b'whole')
    (tmp_path / 'b').symlink_to(tmp_path / 'a')
    assert read_file(tmp_path / 'a') == read_file(str(tmp_path / 'b')) == b'whole'


def test_a_file_above_the_size_limit_is_rejected(tmp_path: Path) -> None:
    with (tmp_path / 'a').open('wb') as file:
        file.truncate(MAX_FILE_BYTES + 1)  # a sparse file
    with pytest.raises(OSError, match='a: has 536870913 bytes; the maximum is 536870912'):
        read_file(tmp_path / 'a')
    with pytest.raises(OSError, match='a: has 536870913 bytes; the maximum is 100'):
        read_file(tmp_path / 'a', max_bytes=100)


def test_a_file_of_unknown_size_is_read_up_to_the_limit() -> None:
    with pytest.raises(OSError, match='/proc/self/maps: has more than 100 bytes'):
        read_file('/proc/self/maps', max_bytes=100)


def test_pipes_folders_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'fifo')  # without a writer, opening it would block
    for path in (tmp_path / 'fifo', tmp_path, Path('/dev/zero')):
        with pytest.raises(OSError, match=f'{path}: is not a regular file'):
            read_file(path)


def test_the_error_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_file(tmp_path / 'a')
    assert error.value.filename == str(tmp_path / 'a')
