# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rock_seg_ros.perception import writing as module
from rock_seg_ros.perception.writing import atomic_write, make_folder, temporary_folder

SLOW_WRITE = """
import sys, time
from pathlib import Path
from rock_seg_ros.perception.writing import atomic_write

def write(temporary):
    temporary.write_text('half')
    print(temporary.parent, flush=True)
    time.sleep(60)

atomic_write(Path(sys.argv[1]), write)
"""


@pytest.fixture
def writing(tmp_path):
    """A process that is writing tmp_path/a, and its folder."""
    command = [sys.executable, '-c', SLOW_WRITE, str(tmp_path / 'a')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_leftovers_of_a_killed_process_are_removed_by_the_next_write(tmp_path, writing):
    process, left = writing
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (left / 'a').read_text() == 'half'
    atomic_write(tmp_path / 'b', lambda temporary: temporary.write_text('whole'))
    assert [path.name for path in tmp_path.iterdir()] == ['b']


def test_temporary_files_of_another_running_process_are_kept(tmp_path, writing):
    _, folder = writing
    atomic_write(tmp_path / 'b', lambda temporary: temporary.write_text('whole'))
    assert (folder / 'a').read_text() == 'half'


def test_nested_writes_of_one_process_do_not_remove_each_other(tmp_path):
    def write(temporary):
        temporary.write_text('outer')
        atomic_write(tmp_path / 'b', lambda inner: inner.write_text('inner'))

    atomic_write(tmp_path / 'a', write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        'a': 'outer',
        'b': 'inner',
    }


def test_files_and_folders_of_users_are_kept(tmp_path):
    for name in ('.writing-notes-on-rocks', '.writing', 'writing-abcdefgh'):
        (tmp_path / name).mkdir()
    (tmp_path / '.writing-abcdefgh').write_text('a file')
    (tmp_path / '.writing-abcdefgi').symlink_to(tmp_path / 'writing-abcdefgh')
    before = sorted(tmp_path.iterdir())
    atomic_write(tmp_path / 'z', lambda temporary: temporary.write_text('whole'))
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / 'z']


def test_a_temporary_folder_that_was_removed_before_its_lock_is_created_again(
    tmp_path, monkeypatch
):
    lock, removed = module._lock, []

    def remove_first(folder, wait=True):
        if not removed:
            (made,) = tmp_path.iterdir()
            made.rmdir()
            removed.append(made)
        return lock(folder, wait)

    monkeypatch.setattr(module, '_lock', remove_first)
    with temporary_folder(tmp_path / 'a') as folder:
        assert folder.is_dir()
        assert folder != removed[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(IsADirectoryError) as error:
        atomic_write(tmp_path, lambda _: pytest.fail('was called'))
    assert error.value.filename == str(tmp_path)


def test_a_folder_below_a_file_is_named_as_no_folder(tmp_path):
    file = tmp_path / 'file'
    file.touch()
    for write in (lambda: make_folder(file), lambda: atomic_write(file / 'x', Path.touch)):
        with pytest.raises(NotADirectoryError) as error:
            write()
        assert error.value.filename == str(file)
