# SPDX-License-Identifier: Apache-2.0
"""Finds and decompresses the storage files of a rosbag2.

Bags are read from their storage files, because metadata.yaml is missing if the recorder was killed
and may be out of date if the bag was edited.
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
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # first bytes of a compressed message; CDR never begins with them
BAG_HELP = (
    'input bag: a rosbag2 folder, an .mcap, .db3, .mcap.zstd or .db3.zstd file, or a rosbag1 file'
)


class BagError(ValueError):
    """A bag that cannot be read; the message is one line with the bag and the reason.

    If several of its files are damaged, `args` has a line for each, which the message joins.
    """

    def __str__(self) -> str:
        return '; '.join(self.args)


def storage_files(folder: Path) -> list[Path]:
    """Finds the storage files of a rosbag2: those that metadata.yaml lists, or all in the folder.

    Raises:
        BagError: There are none, files that metadata.yaml lists are missing, or the compression
            is not zstd.
    """
    metadata = _read_metadata(folder / METADATA)
    if (compression := metadata.get('compression_format') or 'zstd') != 'zstd':
        raise BagError(f'{folder}: compression {compression} is not supported; use zstd or none')
    files = {path.name: path for path in sorted(folder.iterdir()) if _is_storage(path)}
    listed = [PurePath(str(name)).name for name in metadata.get('relative_file_paths') or ()]
    missing = [name for name in listed if name not in files]
    if listed and not missing:
        return [files[name] for name in dict.fromkeys(listed)]
    if not files:
        raise BagError(f'{folder}: not a bag, because it has no {" or ".join(STORAGE)} file')
    if len(files) < len(listed):
        raise BagError(f'{folder}: {", ".join(missing)} is missing, but {METADATA} lists it')
    # A file that was decompressed by hand may lie next to its compressed original.
    return [
        path
        for name, path in files.items()
        if path.suffix != ZSTD or name.removesuffix(ZSTD) not in files
    ]


def decompress(path: Path, folder: Path) -> Path:
    """Decompresses a storage file into a folder; returns the decompressed file."""
    target = folder / path.stem
    with path.open('rb') as file, zstd.open(file, 'rb') as source, target.open('wb') as sink:
        shutil.copyfileobj(source, sink)
    return target


def decompress_message(data: bytes) -> bytes:
    """Returns a message in CDR, decompressed if the recorder compressed it."""
    return zstd.decompress(data) if data.startswith(ZSTD_MAGIC) else data


def _is_storage(path: Path) -> bool:
    plain = path.name.removesuffix(ZSTD)
    return plain.endswith(STORAGE) and not plain.startswith('.') and path.is_file()


def _read_metadata(path: Path) -> dict[str, Any]:
    """Reads metadata.yaml; returns an empty dict if it is missing or invalid."""
    try:
        about = yaml.safe_load(path.read_text())['rosbag2_bagfile_information']
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}
    return about if isinstance(about, dict) else {}
