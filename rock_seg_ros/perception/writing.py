# SPDX-License-Identifier: Apache-2.0
"""Atomic writing of files and folders."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = '.writing-'
NAME = re.compile(re.escape(PREFIX) + r'\w{8}')  # as tempfile makes them


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Calls `write(temporary_path)` and renames the result to `path`.

    Raises:
        OSError: The path is a folder, or a file cannot be written.
    """
    target = Path(path)
    if target.is_dir():  # before a long computation
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    with temporary_folder(target) as folder:
        temporary = folder / target.name
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors creates files that only their owner can read
        temporary.replace(target)


def make_folder(folder: Path) -> None:
    """Creates a folder and its parents, unless it exists.

    Raises:
        OSError: It cannot be created; a NotADirectoryError if it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yields a new temporary folder next to a target, and removes it at the end.

    The folder of the target is created if necessary. Temporary folders of processes that were
    killed are removed before the first one of this process is created; a folder that is in use is
    locked by its process.
    """
    make_folder(target.parent)
    _remove_leftovers(target.parent.resolve())
    while True:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=PREFIX) as folder:
            held = os.open(folder, os.O_RDONLY)
            try:
                _lock(held)
                if not os.fstat(held).st_nlink:  # another process removed it before the lock
                    Path(folder).mkdir()  # TemporaryDirectory removes it
                    continue
                yield Path(folder)
                return
            finally:
                os.close(held)


def _lock(folder: int, wait: bool = True) -> bool:
    """Locks an open folder; returns whether it is locked by this process now."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # in use, or on a file system without locks
        return False
    return True


@functools.cache  # listing a folder with many results for each new file would be slow
def _remove_leftovers(parent: Path) -> None:
    for left in parent.iterdir():
        if NAME.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            try:
                held = os.open(left, os.O_RDONLY)
            except OSError:  # already removed, or of another user
                continue
            try:
                if _lock(held, wait=False):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
