# SPDX-License-Identifier: Apache-2.0
"""Files of other people's making, read whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 2**29  # bytes; COCO's own largest label file has 448 MiB


def read_file(path: str | os.PathLike[str], most: int = MAX_FILE_BYTES) -> bytes:
    """Reads a regular file; a pipe or a device, which might never end, is not even opened.

    Args:
        path: The file; links are followed.
        most: Bytes that it may have.

    Raises:
        OSError: There is no such file, it is no regular one or too large, or cannot be read.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f'{path}: is no regular file')
    if status.st_size > most:
        raise OSError(f'{path}: has {status.st_size} bytes; {most} are the most')
    with Path(path).open('rb') as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew, or is one of those that have no size
        raise OSError(f'{path}: has more than {most} bytes')
    return content
