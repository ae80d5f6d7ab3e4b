# SPDX-License-Identifier: Apache-2.0
"""Reading of PyTorch checkpoints: state dict and metadata. Nothing in a file is executed."""

from __future__ import annotations

import argparse
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.files import read_file
from rock_seg_ros.perception.inference.metadata import (
    ARCHITECTURE,
    FORMAT_VERSION,
    ModelMetadata,
    read_object,
)
from rock_seg_ros.perception.inference.networks import NETWORKS

MAX_FILE_BYTES = 2**31  # bytes of a weights file, and of its content if it is a ZIP archive
MAX_METADATA_BYTES = 2**24  # bytes
LAST_LAYERS = {'classifier.4.weight': 'none', 'classifier.score.weight': 'skip'}  # → decoder
PARTS = ('backbone', 'classifier', 'aux_classifier')
# Name parts that DistributedDataParallel, torch.compile and training scripts add.
WRAPPERS = {'module', '_orig_mod', 'model', 'net'}
# Keys under which training scripts store the network, next to averaged weights or teachers.
USUAL_KEYS = ('model', 'state_dict', 'model_state_dict', 'module', 'net')
CHUNK_BYTES = 2**20  # that are read at once
KeyPath = tuple[str | int, ...]  # keys of dictionaries, and indices of lists and tuples


class ArchiveError(ValueError):
    """The ZIP archive of a checkpoint is not loaded."""


class _Ignored:
    """Replaces NumPy scalars and their types in a checkpoint, so that NumPy is never called."""

    def __init__(self, *_: object) -> None:
        """Ignores the arguments."""

    def __setstate__(self, _: object) -> None:
        """Ignores the state."""


NUMPY = ('numpy._core.multiarray.scalar', 'numpy.core.multiarray.scalar', 'numpy.dtype')
UNPICKLED: list[Any] = [argparse.Namespace, *((_Ignored, name) for name in NUMPY)]


def read_checkpoint(file: Path) -> tuple[ModelMetadata, dict[str, Tensor]]:
    """Reads a checkpoint.

    Args:
        file: `.pth`, `.pt` or `.ckpt`; `NAME.json` next to it may contain its metadata.

    Returns:
        The metadata, completed from the shapes of the tensors, and parameter name → stored tensor.

    Raises:
        ValueError: The file contains no supported network or several, or objects that are not data.
    """
    loaded = _load(file)
    state = _choose(loaded)
    metadata_file = file.with_suffix('.json')
    if metadata_file.exists() or metadata_file.is_symlink():
        try:
            described = read_file(metadata_file, MAX_METADATA_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f'its metadata cannot be read: {first_line(error)}') from None
    elif isinstance(loaded, dict) and isinstance(loaded.get('card'), str):
        described = loaded['card']
    else:
        described = ''
    return _complete_metadata(state, described, metadata_file.name), state


def _load(file: Path) -> Any:
    """Returns the content of a checkpoint, without executing any of it."""
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(UNPICKLED):
            return torch.load(file, map_location='cpu', weights_only=True)
    except ArchiveError:
        raise
    except Exception as error:  # noqa: BLE001 (a damaged file makes torch raise anything)
        _, rejected, reason = str(error).partition('WeightsUnpickler error: ')
        if named := re.search(r'(?:GLOBAL|function|class|but got) \W*([\w.]*\w)', reason):
            raise ValueError(
                f'contains {named[1]}, but only tensors are unpickled; save only the state_dict()'
            ) from None
        reason = reason.strip().partition('\n')[0] if rejected else first_line(error)
        raise ValueError(f'not a complete torch checkpoint ({reason})') from None


def _check_archive(file: Path) -> None:
    """Raises ArchiveError if a ZIP archive is too large, contains a program or is damaged."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if size > MAX_FILE_BYTES:
            raise ArchiveError(f'unpacks to {size} bytes; the maximum is {MAX_FILE_BYTES}')
        if any(entry.filename.endswith('/constants.pkl') for entry in entries):
            raise ArchiveError('is a TorchScript program; save its state_dict() instead')
        for entry in entries:
            # torch can write 0 as the checksum
            if entry.CRC and not _matches_checksum(archive, entry):
                raise ArchiveError(f'is damaged: {entry.filename} does not match its checksum')


def _matches_checksum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry of a ZIP archive has its checksum, which torch does not compare."""
    try:
        with archive.open(entry) as content:
            while content.read(CHUNK_BYTES):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True


def _choose(loaded: Any) -> dict[str, Tensor]:
    """Returns the state dict of the network in a checkpoint, with the names of this project.

    Raises:
        ValueError: There is no network, or there are several and none has a usual key.
    """
    found = {
        (*path, prefix): state
        for path, tensors in _dicts_of_tensors(loaded)
        for prefix, state in _networks_in(tensors)
    }
    usual = [key for key in found if not key[-1] and set(key[:-1]) <= set(USUAL_KEYS)]
    if usual:
        return found[min(usual, key=lambda key: [USUAL_KEYS.index(str(part)) for part in key[:-1]])]
    if len(found) > 1:
        paths = ', '.join(_place(key) for key in list(found)[:3])
        raise ValueError(
            f'contains {len(found)} networks: {paths}; choose one, such as the first one, and save'
            f' only its tensors: {_saving(next(iter(found)))}'
        )
    if found:
        return next(iter(found.values()))
    names = [name for _, tensors in _dicts_of_tensors(loaded) for name in tensors]
    if not names:
        raise ValueError('contains no state dict')
    raise ValueError(
        f'no DeepLabV3 state dict: none of the {len(names)} tensors, such as {names[0]}, is named'
        f' {" or ".join(LAST_LAYERS)}'
    )


def _place(key: KeyPath) -> str:
    """Describes where a network is: the keys that lead to it, and the prefix of its names."""
    return '.'.join(str(part) for part in key if part != '').removesuffix('.')


def _saving(key: KeyPath) -> str:
    """Returns Python code that saves one of the networks of a checkpoint."""
    *path, prefix = key
    found = f"torch.load('FILE'){''.join(f'[{part!r}]' for part in path)}"
    if prefix:
        found = f'{{n: t for n, t in {found}.items() if {prefix!r} in n}}'
    return f"torch.save({found}, 'ONE.pth')"


def _dicts_of_tensors(loaded: Any) -> Iterator[tuple[KeyPath, dict[str, Tensor]]]:
    """Yields the keys and indices that lead to each dictionary, and its tensors by name."""
    pending: deque[tuple[KeyPath, Any]] = deque([((), loaded)])
    seen: set[int] = set()  # a pickle may contain itself
    while pending:
        path, value = pending.popleft()
        if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if not isinstance(value, Mapping):
            pending += [((*path, index), inner) for index, inner in enumerate(value)]
            continue
        pending += [
            ((*path, key if isinstance(key, int) else str(key)), inner)
            for key, inner in value.items()
        ]
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if tensors:
            yield path, tensors


def _networks_in(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the prefix of the names of each network among the tensors, and its tensors."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = '.'.join(part for part in name.split('.') if part not in WRAPPERS)
        if plain.setdefault(bare, tensor) is not tensor:
            raise ValueError(f'contains {bare} twice, once as {name}')
    for name in plain:
        for last in LAST_LAYERS:
            prefix = name.removesuffix(last)
            if prefix != name and prefix[-1:] in ('', '.'):
                under = tuple(f'{prefix}{part}.' for part in PARTS)
                yield (
                    prefix,
                    {n.removeprefix(prefix): t for n, t in plain.items() if n.startswith(under)},
                )


def _complete_metadata(
    state: Mapping[str, Tensor], described: str, metadata_name: str
) -> ModelMetadata:
    """Completes the metadata of a checkpoint (JSON, or empty) from the shapes of its tensors."""
    last = next(name for name in LAST_LAYERS if name in state)
    if not state[last].ndim:
        raise ValueError(f'{last} has no dimensions')
    channels = state[last].shape[0]
    given = read_object(described) if described else {}
    if not described and channels > 2:
        raise ValueError(
            f'has {channels} classes, but no metadata; write "classes" ({channels} names) and'
            f' "rock_classes" to {metadata_name}'
        )
    decoder = LAST_LAYERS[last]
    architecture = given.get('architecture', _architecture_of(state, decoder, channels))
    values: dict[str, Any] = {
        'format_version': FORMAT_VERSION,
        'decoder': decoder,
        'activation': 'sigmoid' if channels == 1 else 'softmax',
        'architecture': architecture,
    }
    if isinstance(architecture, str) and (network := NETWORKS.get(architecture)):
        values |= {
            'output_stride': network.output_strides[0],
            'mean': network.mean,
            'std': network.std,
        }
    metadata = ModelMetadata.from_values(values | given)
    if metadata.channels != channels:
        raise ValueError(f'has {channels} channels, but its metadata {metadata.channels}')
    return metadata


def _architecture_of(state: Mapping[str, Tensor], decoder: str, channels: int) -> str:
    """Returns the first architecture that has all tensors; the default if there is none."""
    shapes = {(n, tensor.shape) for n, tensor in state.items() if not n.startswith('aux_')}
    for architecture, network in NETWORKS.items():
        if decoder in network.decoders:
            with torch.device('meta'):
                model = network.make(channels, decoder, network.output_strides[0], False)
            if shapes <= {(name, tensor.shape) for name, tensor in model.state_dict().items()}:
                return architecture
    return ARCHITECTURE
