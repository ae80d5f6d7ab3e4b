# SPDX-License-Identifier: Apache-2.0
"""Weights files: read with their card, written with their card, never executed."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rock_seg_ros.perception.errors import first_line, printable
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.checkpoint import MAX_FILE_BYTES, read_checkpoint
from rock_seg_ros.perception.writing import atomic_write

EMBEDDED = ('resnet50', 'light')
ON_CUDA, ON_CPU = EMBEDDED
SCALE_SUFFIX = '.int8_scale'
MIN_INT8_NUMBERS = 32768  # numbers of a tensor; smaller ones save little space and lose most
TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt')
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_NUMBERS = 2**28  # of a network; DeepLabV3-ResNet50 has 4e7
FOREIGN = {  # how a file begins → what it is instead of weights
    **dict.fromkeys(
        (b'<!doctype', b'<html', b'<head', b'<?xml'),
        'a web page, not the file itself; fetch it again',
    ),
    b'version https://git-lfs': 'a Git LFS pointer, not the file itself; run git lfs pull',
}


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
        return self.path.suffix.lower() == '.onnx'


def embedded_path(name: str) -> Path:
    """Returns the path of weights that come with the package, 'resnet50' or 'light'."""
    folder = importlib.resources.files('rock_seg_ros.weights')
    return Path(str(folder.joinpath(f'{name}.safetensors')))


def auto_device(backend: str = 'auto', precision: str = 'auto') -> str:
    """Returns what device 'auto' means: 'cuda' where there is one and what is named can use it.

    Args:
        backend: 'auto', 'torch', 'onnx' or 'openvino', which is for the CPU.
        precision: 'auto', 'fp32', 'fp16', 'bf16' or 'int8', which is for the CPU.
    """
    for_cpu = backend == 'openvino' or precision == 'int8'
    return 'cuda' if torch.cuda.is_available() and not for_cpu else 'cpu'


def embedded_name(device: str = 'auto', backend: str = 'auto', precision: str = 'auto') -> str:
    """Returns the name of the embedded weights that suit a device.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        backend: That will run them, which with device 'auto' tells the device.
        precision: That they will be run in, which with device 'auto' tells the device.

    Returns:
        'resnet50' for CUDA, 'light' for a CPU.
    """
    device = auto_device(backend, precision) if device == 'auto' else device
    return ON_CPU if device == 'cpu' else ON_CUDA


def weights_path(
    path: str | os.PathLike[str] = '',
    device: str = 'auto',
    backend: str = 'auto',
    precision: str = 'auto',
) -> Path:
    """Returns the file that `load_weights` reads for the same arguments."""
    name = str(path) or embedded_name(device, backend, precision)
    return embedded_path(name) if name in EMBEDDED else Path(path)


def load_weights(
    path: str | os.PathLike[str] = '',
    device: str = 'auto',
    backend: str = 'auto',
    precision: str = 'auto',
) -> Weights:
    """Reads a weights file.

    Args:
        path: `.safetensors` or `.onnx` with a card, or a checkpoint (`.pth`, `.pt`, `.ckpt`) with
            an optional `NAME.json` card beside it; or the name of embedded weights, 'resnet50' or
            'light'. Empty: those that suit the device.
        device: Where they will run: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        backend: That will run them; with device 'auto' it helps to choose among the embedded.
        precision: That they will be run in; likewise.

    Raises:
        WeightsError: The file is missing, damaged, foreign, or of a future format.
    """
    file = weights_path(path, device, backend, precision)
    readers = {'.safetensors': _read_safetensors, '.onnx': _read_onnx}
    readers.update(dict.fromkeys(TORCH_SUFFIXES, read_checkpoint))
    suffix = file.suffix.lower()
    try:
        if suffix not in readers:
            raise ValueError(f'the name must end in {", ".join(readers)}')
        _check_file(file)
        card, stored = readers[suffix](file)
        return Weights(file, card, _usable(stored))
    except (ValueError, OSError) as error:
        raise WeightsError(printable(f'{file}: {error}')) from None


def _check_file(file: Path) -> None:
    """Raises ValueError where a file cannot hold weights, before anything of it is read."""
    if not file.exists():
        raise ValueError('no such file')
    if not file.is_file():
        raise ValueError('is no regular file')
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f'has {size} bytes; {MAX_FILE_BYTES} are the most')
    with file.open('rb') as opened:
        start = opened.read(200).lstrip().lower()
    for beginning, what in FOREIGN.items():
        if start.startswith(beginning):
            raise ValueError(f'is {what}')


def _usable(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters as float32; raises ValueError where one is not what it has to be."""
    state = {n: tensor for n, tensor in stored.items() if not n.endswith('num_batches_tracked')}
    _check_count(state)
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            kind = f'{tensor.dtype}'.removeprefix('torch.')
            raise ValueError(f'{name} is {kind}, not a plain tensor of floating-point numbers')
        state[name] = tensor = tensor.detach().float()
        if not tensor.isfinite().all():
            raise ValueError(f'{name} holds NaN or infinity: the file is damaged')
    return state


def _check_count(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError where tensors claim to hold more than a network does, as views may."""
    count = sum(tensor.numel() for tensor in tensors.values())
    if count > MAX_NUMBERS:
        raise ValueError(f'holds {count} numbers; {MAX_NUMBERS} are the most')


def save_weights(
    path: str | os.PathLike[str], state: Mapping[str, Tensor], card: Card, int8: bool = False
) -> None:
    """Writes a `.safetensors` file with its card, beside the target first and then renamed.

    Args:
        path: The file; its folder is made.
        state: Parameter name → float tensor; counters of batches are left out.
        card: Goes into the metadata under the key `card`.
        int8: Weight-only int8: a large tensor becomes int8 with one float32 scale an output channel
            (symmetric, absolute maximum → 127). Depthwise convolutions, which lose most, and small
            tensors become float16, as all tensors of two or more dimensions do without int8; those
            of one dimension stay float32.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('num_batches_tracked'):
            continue
        tensor = tensor.detach().cpu().float().contiguous()
        if tensor.ndim < 2:
            stored[name] = tensor
        elif int8 and tensor.numel() >= MIN_INT8_NUMBERS and tensor.shape[1] > 1:
            scale = tensor.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / 127
            shaped = scale.view(-1, *[1] * (tensor.ndim - 1))
            stored[name] = (tensor / shaped).round().to(torch.int8)
            stored[name + SCALE_SUFFIX] = scale
        else:
            stored[name] = tensor.half()
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f'{path}: {name} holds NaN, infinity, or what float16 cannot hold')
    atomic_write(path, lambda temporary: save_file(stored, temporary, {'card': card.to_json()}))


def _read_safetensors(file: Path) -> tuple[Card, dict[str, Tensor]]:
    try:
        with safe_open(file, framework='pt') as opened:
            metadata = opened.metadata() or {}
            if 'card' not in metadata:
                raise ValueError('has no card in its metadata (key "card")')
            card = Card.from_json(metadata['card'])
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f'not a whole safetensors file ({first_line(error)})') from None
    return card, _dequantize(stored)


def _dequantize(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _check_count(stored)
    state = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE_SUFFIX)}
    scales = {
        name.removesuffix(SCALE_SUFFIX): stored[name] for name in stored.keys() - state.keys()
    }
    quantized = {name for name, tensor in state.items() if tensor.dtype == torch.int8}
    if differing := sorted(quantized ^ scales.keys()):
        raise ValueError(
            f'{differing[0]} is int8 without a scale'
            if differing[0] in quantized
            else f'{differing[0]} has an int8 scale and is not int8'
        )
    for name, scale in _usable(scales).items():
        tensor = state[name]
        if tensor.ndim < 1 or scale.shape != tensor.shape[:1]:
            raise ValueError(f'{name} and its int8 scale do not fit each other')
        state[name] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    return state


def _read_onnx(file: Path) -> tuple[Card, dict[str, Tensor]]:
    from rock_seg_ros.perception.inference.backends import onnx_backend

    try:
        metadata = onnx_backend.read_metadata(file)
    except ImportError:
        raise ValueError('reading ONNX needs onnxruntime, not installed here') from None
    except TimeoutError:  # the file may be whole
        raise
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors have no class in common)
        raise ValueError(f'not a whole ONNX file ({first_line(error)})') from None
    if 'card' not in metadata:
        raise ValueError('has no card in its metadata (key "card")')
    return Card.from_json(metadata['card']), {}
