# SPDX-License-Identifier: Apache-2.0
"""The storage files of a rosbag2, which say all that metadata.yaml does, and are never out of date.

A recorder that is killed leaves no metadata.yaml, and one that was edited hides messages.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path, PurePath
from typing import Any

import yaml

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METADATA = 'metadata.yaml'
STORAGE = ('.mcap', '.db3')
ZSTD = '.zstd'
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # of a compressed message; none in CDR begins so
BAG_HELP = 'rosbag2: a folder, or an .mcap, .db3, .mcap.zstd or .db3.zstd file; or a rosbag1 file'


class BagError(ValueError):
    """A bag that cannot be read; the message is one line naming bag and reason."""


def storage_files(folder: Path) -> list[Path]:
    """Finds the storage files of a rosbag2: those that metadata.yaml names, else all there are.

    Raises:
        BagError: There are none, fewer than metadata.yaml names, or they are compressed in
            another way than with zstd.
    """
    metadata = _read_metadata(folder / METADATA)
    if (packed := metadata.get('compression_format') or 'zstd') != 'zstd':
        raise BagError(f'{folder}: compressed with {packed}; only zstd is read')
    there = {path.name: path for path in sorted(folder.iterdir()) if _is_storage(path)}
    named = [PurePath(str(name)).name for name in metadata.get('relative_file_paths') or ()]
    missing = [name for name in named if name not in there]
    if named and not missing:
        return [there[name] for name in dict.fromkeys(named)]
    if not there:
        raise BagError(f'{folder}: no such bag, it holds no {" or ".join(STORAGE)} file')
    if len(there) < len(named):
        raise BagError(f'{folder}: {", ".join(missing)} is missing, which {METADATA} names')
    # One that was unpacked by hand lies beside its packed one.
    return [
        path
        for name, path in there.items()
        if path.suffix != ZSTD or name.removesuffix(ZSTD) not in there
    ]


def unpack(path: Path, folder: Path) -> Path:
    """Unpacks a compressed storage file into a folder; returns the file there."""
    target = folder / path.stem
    with path.open('rb') as file, zstd.open(file, 'rb') as source, target.open('wb') as sink:
        shutil.copyfileobj(source, sink)
    return target


def unpack_message(data: bytes) -> bytes:
    """Returns a message in CDR, which is unpacked where the recorder has compressed it."""
    return zstd.decompress(data) if data.startswith(ZSTD_MAGIC) else data


def _is_storage(path: Path) -> bool:
    plain = path.name.removesuffix(ZSTD)
    return plain.endswith(STORAGE) and not plain.startswith('.') and path.is_file()


def _read_metadata(path: Path) -> dict[str, Any]:
    """Reads what metadata.yaml says of the bag; nothing where it is not there, or not readable."""
    try:
        about = yaml.safe_load(path.read_text())['rosbag2_bagfile_information']
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}
    return about if isinstance(about, dict) else {}
