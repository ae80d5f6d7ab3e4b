# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of PyTorch → state dict and what is described of it; nothing in them is executed."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.files import read_file
from rock_seg_ros.perception.inference.card import ARCHITECTURE, FORMAT_VERSION, Card, read_object
from rock_seg_ros.perception.inference.networks import NETWORKS

MAX_FILE_BYTES = 2**31  # bytes of a weights file, packed or not
MAX_CARD_BYTES = 2**24  # bytes
LAST_LAYERS = {'classifier.4.weight': 'none', 'classifier.score.weight': 'skip'}  # → decoder
PARTS = ('backbone', 'classifier', 'aux_classifier')
WRAPPERS = {'module', '_orig_mod', 'model', 'net'}  # of distributed, compiled, trained networks
# Where training scripts keep the network itself, beside averages, teachers and the like.
USUAL_KEYS = ('model', 'state_dict', 'model_state_dict', 'module', 'net')
Place = tuple[str, ...]


class ArchiveError(ValueError):
    """A packed file that is not to be unpacked."""


class _Unread:
    """Stands in for a NumPy scalar beside the weights, so that NumPy is never called."""

    def __init__(self, *_: object) -> None:
        """Takes whatever a NumPy scalar or its type is made of."""

    def __setstate__(self, _: object) -> None:
        """Takes whatever the type of a NumPy scalar is completed with."""


NUMPY = ('numpy._core.multiarray.scalar', 'numpy.core.multiarray.scalar', 'numpy.dtype')
UNPICKLED: list[Any] = [argparse.Namespace, *((_Unread, name) for name in NUMPY)]


def read_checkpoint(file: Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads a checkpoint.

    Args:
        file: `.pth`, `.pt` or `.ckpt`; `NAME.json` beside it may hold its card.

    Returns:
        The card, completed with what the tensors tell, and parameter name → tensor as stored.

    Raises:
        ValueError: The file holds no one network that is known, or something else than data.
    """
    loaded = _load(file)
    state = _choose(loaded)
    card_file = file.with_suffix('.json')
    if card_file.exists() or card_file.is_symlink():
        try:
            described = read_file(card_file, MAX_CARD_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f'its card cannot be read: {first_line(error)}') from None
    elif isinstance(loaded, dict) and isinstance(loaded.get('card'), str):
        described = loaded['card']
    else:
        described = ''
    return _card_of(state, described, card_file.name), state


def _load(file: Path) -> Any:
    """Returns what a checkpoint holds, without executing any of it."""
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(UNPICKLED):
            return torch.load(file, map_location='cpu', weights_only=True)
    except ArchiveError:
        raise
    except Exception as error:  # noqa: BLE001 (a damaged file makes torch raise anything)
        told = str(error)
        _, refused, reason = told.partition('WeightsUnpickler error: ')
        if named := re.search(r'(?:GLOBAL|function|class|but got) \W*([\w.]*\w)', reason):
            raise ValueError(
                f'holds {named[1]} beside tensors, and nothing else is unpickled;'
                ' save the state_dict() alone'
            ) from None
        reason = reason.strip().partition('\n')[0] if refused else first_line(error)
        raise ValueError(f'not a whole torch checkpoint ({reason})') from None


def _check_archive(file: Path) -> None:
    """Raises ArchiveError where the directory of a packed checkpoint says that it is of no use."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if size > MAX_FILE_BYTES:
        raise ArchiveError(f'unpacks to {size} bytes; {MAX_FILE_BYTES} are the most')
    if any(entry.filename.endswith('/constants.pkl') for entry in entries):
        raise ArchiveError('is a TorchScript program; save its state_dict() instead')


def _choose(loaded: Any) -> dict[str, Tensor]:
    """Returns the state dict of the network that a checkpoint is about, its names as they are here.

    Raises:
        ValueError: There is none, or several and none of them is where it usually is.
    """
    found = {
        (*place, prefix): state
        for place, tensors in _dicts_of_tensors(loaded)
        for prefix, state in _networks_in(tensors)
    }
    usual = [key for key in found if not key[-1] and set(key[:-1]) <= set(USUAL_KEYS)]
    if usual:
        return found[min(usual, key=lambda key: [USUAL_KEYS.index(part) for part in key[:-1]])]
    if len(found) > 1:
        places = ', '.join('.'.join(filter(None, key)) for key in list(found)[:3])
        raise ValueError(f'holds {len(found)} networks ({places}); save the state_dict() of one')
    if found:
        return next(iter(found.values()))
    names = [name for _, tensors in _dicts_of_tensors(loaded) for name in tensors]
    if not names:
        raise ValueError('holds no state dict')
    raise ValueError(
        f'no DeepLabV3 state dict: {" or ".join(LAST_LAYERS)} is missing among {len(names)}'
        f' tensors, such as {names[0]}'
    )


def _dicts_of_tensors(loaded: Any) -> Iterator[tuple[Place, dict[str, Tensor]]]:
    """Yields the tensors of each dictionary with their names, and under which keys it lies."""
    waiting: list[tuple[Place, Any]] = [((), loaded)]
    seen: set[int] = set()  # a pickle may hold itself
    while waiting:
        place, value = waiting.pop(0)
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        waiting += [((*place, str(key)), inner) for key, inner in value.items()]
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if tensors:
            yield place, tensors


def _networks_in(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the networks among tensors, each with what stands before its names."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = '.'.join(part for part in name.split('.') if part not in WRAPPERS)
        if plain.setdefault(bare, tensor) is not tensor:
            raise ValueError(f'holds {bare} twice, once as {name}')
    for name in plain:
        for last in LAST_LAYERS:
            prefix = name.removesuffix(last)
            if prefix != name and prefix[-1:] in ('', '.'):
                under = tuple(f'{prefix}{part}.' for part in PARTS)
                yield (
                    prefix,
                    {n.removeprefix(prefix): t for n, t in plain.items() if n.startswith(under)},
                )


def _card_of(state: Mapping[str, Tensor], described: str, card_name: str) -> Card:
    """Completes what is described of a checkpoint with what its tensors tell."""
    last = next(name for name in LAST_LAYERS if name in state)
    if not state[last].ndim:
        raise ValueError(f'{last} has no dimensions')
    channels = state[last].shape[0]
    given = read_object(described) if described else {}
    if not described and channels > 2:
        raise ValueError(
            f'has {channels} classes and no card; name them in {card_name}:'
            f' "classes" ({channels} names) and "rock_classes"'
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
    card = Card.from_values(values | given)
    if card.channels != channels:
        raise ValueError(f'has {channels} channels, its card {card.channels}')
    return card


def _architecture_of(state: Mapping[str, Tensor], decoder: str, channels: int) -> str:
    """Returns the first architecture that has all of some tensors, else that of the default."""
    shapes = {(n, tensor.shape) for n, tensor in state.items() if not n.startswith('aux_')}
    for architecture, network in NETWORKS.items():
        if decoder in network.decoders:
            with torch.device('meta'):
                model = network.make(channels, decoder, network.output_strides[0], False)
            if shapes <= {(name, tensor.shape) for name, tensor in model.state_dict().items()}:
                return architecture
    return ARCHITECTURE
