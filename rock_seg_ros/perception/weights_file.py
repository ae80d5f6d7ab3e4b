# SPDX-License-Identifier: Apache-2.0
"""Weights files: read with their card, written with their card, never executed."""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rock_seg_ros.perception.card import FORMAT_VERSION, Card, CardError
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.writing import write_beside

EMBEDDED = ('resnet50', 'light')
ON_CUDA, ON_CPU = EMBEDDED
SCALE_SUFFIX = '.int8_scale'
NOT_THE_NETWORKS = ('distillation.',)  # what a training saves beside the network
TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt')


class WeightsError(ValueError):
    """A weights file that cannot be used; the message is one line naming file and reason."""


@dataclass(frozen=True)
class Weights:
    """A weights file in memory.

    Attributes:
        path: Where it was read from.
        card: What it says of itself.
        state: Parameter name → float32 tensor; empty for an ONNX file, which its backend opens.
    """

    path: Path
    card: Card
    state: dict[str, Tensor] = field(repr=False)

    @property
    def is_onnx(self) -> bool:
        """Whether the file holds a graph of its own instead of a state dict."""
        return self.path.suffix == '.onnx'


def embedded_path(name: str) -> Path:
    """Returns the path of weights that come with the package, 'resnet50' or 'light'."""
    folder = importlib.resources.files('rock_seg_ros.weights')
    return Path(str(folder.joinpath(f'{name}.safetensors')))


def embedded_name(device: str = 'auto') -> str:
    """Returns the name of the embedded weights that suit a device.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    Returns:
        'resnet50' for CUDA, 'light' for a CPU.
    """
    cuda = torch.cuda.is_available() if device == 'auto' else device != 'cpu'
    return ON_CUDA if cuda else ON_CPU


def load_weights(path: str | os.PathLike[str] = '', device: str = 'auto') -> Weights:
    """Reads a weights file.

    Args:
        path: `.safetensors` or `.onnx` with a card, or a torchvision checkpoint (`.pth`, `.pt`,
            `.ckpt`) with an optional `NAME.json` card beside it; or the name of embedded weights,
            'resnet50' or 'light'. Empty: those that suit the device.
        device: Where they will run: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        WeightsError: The file is missing, damaged, foreign, or of a future format.
    """
    name = str(path) or embedded_name(device)
    file = embedded_path(name) if name in EMBEDDED else Path(path)
    readers = {'.safetensors': _read_safetensors, '.onnx': _read_onnx}
    readers.update(dict.fromkeys(TORCH_SUFFIXES, _read_checkpoint))
    if file.suffix not in readers:
        raise WeightsError(f'{file}: the name must end in {", ".join(readers)}')
    if not file.is_file():
        raise WeightsError(f'{file}: no such file')
    try:
        return readers[file.suffix](file)
    except CardError as error:
        raise WeightsError(f'{file}: {error}') from None


def save_weights(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], card: Card, int8: bool = False
) -> None:
    """Writes a `.safetensors` file with its card, beside the target first and then renamed.

    Args:
        path: The file; its folder is made.
        state: Parameter name → float tensor; counters of batches are left out.
        card: Goes into the metadata under the key `card`.
        int8: Weight-only int8: every tensor of two or more dimensions becomes int8 with one
            float32 scale an output channel (symmetric, absolute maximum → 127); the rest stays
            float32. Otherwise tensors of two or more dimensions become float16.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('num_batches_tracked'):
            continue
        tensor = tensor.detach().cpu().float().contiguous()
        if tensor.ndim < 2:
            stored[name] = tensor
        elif int8:
            scale = tensor.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / 127
            shaped = scale.view(-1, *[1] * (tensor.ndim - 1))
            stored[name] = (tensor / shaped).round().to(torch.int8)
            stored[name + SCALE_SUFFIX] = scale
        else:
            stored[name] = tensor.half()
    write_beside(path, lambda temporary: save_file(stored, temporary, {'card': card.to_json()}))


def _read_safetensors(file: Path) -> Weights:
    try:
        with safe_open(file, framework='pt') as opened:
            metadata = opened.metadata() or {}
            if 'card' not in metadata:
                raise WeightsError(f'{file}: has no card in its metadata (key "card")')
            card = Card.from_json(metadata['card'])
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f'{file}: not a whole safetensors file ({first_line(error)})') from None
    return Weights(file, card, _dequantize(stored, file))


def _dequantize(stored: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    state = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored.get(name + SCALE_SUFFIX)
        tensor = tensor.float()
        if scale is not None:
            if tensor.ndim < 1 or scale.shape != tensor.shape[:1]:
                raise WeightsError(f'{file}: {name} and its int8 scale do not fit each other')
            tensor = tensor * scale.view(-1, *[1] * (tensor.ndim - 1))
        state[name] = tensor
    return state


def _read_onnx(file: Path) -> Weights:
    from rock_seg_ros.perception.backends import onnx_backend

    try:
        metadata = onnx_backend.read_metadata(file)
    except ImportError:
        raise WeightsError(f'{file}: reading ONNX needs onnxruntime, not installed here') from None
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors have no class in common)
        raise WeightsError(f'{file}: not a whole ONNX file ({first_line(error)})') from None
    if 'card' not in metadata:
        raise WeightsError(f'{file}: has no card in its metadata (key "card")')
    return Weights(file, Card.from_json(metadata['card']), {})


def _read_checkpoint(file: Path) -> Weights:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded: Any = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:  # noqa: BLE001 (a damaged file makes torch raise anything)
        if 'weights_only' in str(error):
            reason = 'holds more than tensors, and nothing else is unpickled'
        else:
            reason = f'not a whole torch checkpoint ({first_line(error)})'
        raise WeightsError(f'{file}: {reason}') from None
    inner = loaded
    for wrapper in ('model', 'state_dict'):
        if isinstance(inner, dict) and isinstance(inner.get(wrapper), dict):
            inner = inner[wrapper]
    if not isinstance(inner, dict) or not all(isinstance(v, Tensor) for v in inner.values()):
        raise WeightsError(f'{file}: holds no state dict')
    state = {name.removeprefix('module.').removeprefix('model.'): t for name, t in inner.items()}
    state = {name: t for name, t in state.items() if not name.startswith(NOT_THE_NETWORKS)}
    card_file = file.with_suffix('.json')
    if card_file.exists():
        try:
            described = card_file.read_text('utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise WeightsError(f'{card_file}: cannot be read ({first_line(error)})') from None
    elif isinstance(loaded, dict) and isinstance(loaded.get('card'), str):
        described = loaded['card']
    else:
        described = ''
    return Weights(file, _card_of(state, described, file), state)


def _card_of(state: Mapping[str, Tensor], described: str, file: Path) -> Card:
    """Completes what is described of a checkpoint with what its tensors tell."""
    last = state.get('classifier.4.weight', state.get('classifier.score.weight'))
    if last is None:
        raise WeightsError(f'{file}: no DeepLabV3 state dict: classifier.4.weight is missing')
    channels = last.shape[0]
    values: dict[str, Any] = {
        'format_version': FORMAT_VERSION,
        'decoder': 'none' if 'classifier.4.weight' in state else 'skip',
        'activation': 'sigmoid' if channels == 1 else 'softmax',
    }
    if described:
        try:
            given = json.loads(described)
        except json.JSONDecodeError as error:
            raise CardError(f'its card is not JSON: {error}') from None
        if not isinstance(given, dict):
            raise CardError('its card is not a JSON object')
        values.update(given)
    elif channels > 2:
        raise WeightsError(
            f'{file}: has {channels} classes and no card; name them in'
            f' {file.with_suffix(".json").name}: "classes" ({channels} names) and "rock_classes"'
        )
    card = Card.from_json(json.dumps(values))
    if card.channels != channels:
        raise WeightsError(f'{file}: has {channels} channels, its card {card.channels}')
    return card
