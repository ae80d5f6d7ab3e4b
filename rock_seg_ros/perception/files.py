# SPDX-License-Identifier: Apache-2.0
"""Reading of whole files with a size limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 2**29  # bytes; COCO's own largest label file has 448 MiB


def read_file(path: str | os.PathLike[str], max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Reads a regular file. Pipes and devices, which might never end, are not opened.

    Args:
        path: The file; symbolic links are followed.
        max_bytes: Maximum size of the file, bytes.

    Raises:
        OSError: The file does not exist, is not a regular file, is too large or cannot be read.
    """
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f'{path}: is not a regular file')
    if status.st_size > max_bytes:
        raise OSError(f'{path}: has {status.st_size} bytes; the maximum is {max_bytes}')
    with Path(path).open('rb') as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # the file grew, or its file system reports no sizes
        raise OSError(f'{path}: has more than {max_bytes} bytes')
    return content
