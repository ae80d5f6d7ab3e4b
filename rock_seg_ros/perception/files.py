# SPDX-License-Identifier: Apache-2.0
"""Reading of whole files with a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 2**29  # bytes; COCO's own largest label file has 448 MiB


def size_of_regular_file(path: str | os.PathLike[str]) -> int:
    """Returns the size of a file in bytes, without opening it.

    Args:
        path: The file; symbolic links are followed.

    Raises:
        OSError: The file does not exist, or is not a regular file.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f'{path}: is not a regular file')
    return status.st_size


def read_file(path: str | os.PathLike[str], max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads a regular file. Pipes and devices, which might never end, are not opened.

    Args:
        path: The file; symbolic links are followed.
        max_bytes: Maximum size of the file, bytes.

    Raises:
        OSError: The file does not exist, is not a regular file, is too large or cannot be read.
    """
    size = size_of_regular_file(path)
    if size > max_bytes:
        raise OSError(f'{path}: has {size} bytes; the maximum is {max_bytes}')
    with Path(path).open('rb') as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # the file grew, or its file system reports no sizes
        raise OSError(f'{path}: has more than {max_bytes} bytes')
    return content
