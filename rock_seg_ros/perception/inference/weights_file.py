# SPDX-License-Identifier: Apache-2.0
"""Reading and writing of weights files with their metadata. Nothing in a file is executed."""

from __future__ import annotations

import codecs
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
from rock_seg_ros.perception.inference.checkpoint import MAX_FILE_BYTES, read_checkpoint
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.writing import atomic_write

EMBEDDED = ('resnet50', 'light')
ON_CUDA, ON_CPU = EMBEDDED
SCALE_SUFFIX = '.int8_scale'
INT8_STEPS = 127  # signed 8 bit, symmetric
MIN_INT8_NUMBERS = 32768  # smaller tensors save little space in int8 and lose most accuracy
TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt')
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_NUMBERS = 2**28  # parameters of a network; DeepLabV3-ResNet50 has 4e7
FOREIGN = {  # beginning of a text file → what it is instead of weights
    '<': 'a web page or XML, not the file itself; download it again',
    'version https://git-lfs': 'a Git LFS pointer, not the file itself; run git lfs pull',
}
BYTE_ORDER_MARKS = {b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16'}  # of text that is not UTF-8


class WeightsError(ValueError):
    """The weights file cannot be used; the message is one line that names the file and reason."""


@dataclass(frozen=True)
class Weights:
    """A weights file in memory.

    Attributes:
        path: The file.
        metadata: The metadata of the weights.
        state: Parameter name → float32 tensor; empty for an ONNX file, which its backend opens.
    """

    path: Path
    metadata: ModelMetadata
    state: dict[str, Tensor] = field(repr=False)

    @property
    def is_onnx(self) -> bool:
        """Whether the file contains an ONNX graph instead of a state dict."""
        return self.path.suffix.lower() == '.onnx'


def embedded_path(name: str) -> Path:
    """Returns the path of embedded weights, 'resnet50' or 'light'."""
    folder = importlib.resources.files('rock_seg_ros.weights')
    return Path(str(folder.joinpath(f'{name}.safetensors')))


def auto_device(backend: str = 'auto', precision: str = 'auto') -> str:
    """Returns the device that 'auto' selects: 'cuda' if it is available and supported, else 'cpu'.

    Args:
        backend: 'auto', 'torch', 'onnx' or 'openvino' (CPU only).
        precision: 'auto', 'fp32', 'fp16', 'bf16' or 'int8' (CPU only).
    """
    for_cpu = backend == 'openvino' or precision == 'int8'
    return 'cuda' if torch.cuda.is_available() and not for_cpu else 'cpu'


def embedded_name(device: str = 'auto', backend: str = 'auto', precision: str = 'auto') -> str:
    """Returns the name of the embedded weights that suit a device.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        backend: The backend; with device 'auto', the device depends on it.
        precision: The precision; with device 'auto', the device depends on it.

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
        path: `.safetensors` or `.onnx` with metadata, or a checkpoint (`.pth`, `.pt`, `.ckpt`) with
            optional metadata in `NAME.json` next to it; or the name of embedded weights, 'resnet50'
            or 'light'. Empty = the embedded weights that suit the device.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'. It selects the embedded weights.
        backend: The backend; with device 'auto', the device depends on it.
        precision: The precision; with device 'auto', the device depends on it.

    Raises:
        WeightsError: The file is missing or damaged, is not a weights file, or has metadata of
            another format version.
    """
    file = weights_path(path, device, backend, precision)
    readers = {'.safetensors': _read_safetensors, '.onnx': _read_onnx}
    readers.update(dict.fromkeys(TORCH_SUFFIXES, read_checkpoint))
    suffix = file.suffix.lower()
    try:
        if suffix not in readers:
            *others, last = readers
            raise ValueError(
                f'the name must end in {", ".join(others)} or {last},'
                f' or be that of embedded weights: {" or ".join(EMBEDDED)}'
            )
        _check_file(file)
        metadata, stored = readers[suffix](file)
        return Weights(file, metadata, _usable(stored))
    except (ValueError, OSError) as error:
        raise WeightsError(printable(f'{file}: {error}')) from None


def _check_file(file: Path) -> None:
    """Raises ValueError if a file cannot contain weights, from its size and first bytes."""
    if not file.exists():
        raise ValueError('no such file')
    if not file.is_file():
        raise ValueError('is not a regular file')
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f'has {size} bytes; the maximum is {MAX_FILE_BYTES}')
    with file.open('rb') as opened:
        start = opened.read(200)
    encoding = BYTE_ORDER_MARKS.get(start[:2], 'utf-8-sig')
    try:  # the last character may be incomplete
        text = codecs.getincrementaldecoder(encoding)().decode(start).strip()
    except UnicodeDecodeError:
        return
    if not text or not ''.join(text.split()).isprintable():
        return
    for beginning, what in FOREIGN.items():
        if text.startswith(beginning):
            raise ValueError(f'is {what}')
    line = text.splitlines()[0]
    raise ValueError(f'is text that begins with {line!r}, not weights; download it again')


def _usable(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters as float32; raises ValueError if one is not a finite float tensor."""
    state = {n: tensor for n, tensor in stored.items() if not n.endswith('num_batches_tracked')}
    _check_count(state)
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            raise ValueError(f'{name} must be a dense floating-point tensor, not {_kind(tensor)}')
        state[name] = tensor = tensor.detach().float()
        if not tensor.isfinite().all():
            raise ValueError(f'{name} contains NaN or infinity; the file is damaged')
    return state


def _kind(tensor: Tensor) -> str:
    """Describes a tensor that cannot be a parameter."""
    dtype = f'{tensor.dtype}'.removeprefix('torch.')
    if tensor.is_meta:
        return f'a meta tensor without values ({dtype}); load the network before it is saved'
    if tensor.layout != torch.strided:
        layout = f'{tensor.layout}'.removeprefix('torch.')
        return f'{layout} ({dtype}); save its to_dense()'
    if tensor.is_quantized:
        return f'quantized ({dtype}); save the network before it is quantized'
    return dtype


def _check_count(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if the tensors are too large; views can be larger than the file."""
    count = sum(tensor.numel() for tensor in tensors.values())
    if count > MAX_NUMBERS:
        raise ValueError(f'has {count} parameters; the maximum is {MAX_NUMBERS}')


def save_weights(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    metadata: ModelMetadata,
    int8: bool = False,
) -> None:
    """Writes a `.safetensors` file with its metadata, atomically.

    Tensors of two or more dimensions become float16, those of one dimension stay float32.

    Args:
        path: The file; its folder is created if necessary.
        state: Parameter name → float tensor; counters of batches are not written.
        metadata: The metadata, written under the key `card`.
        int8: Whether large tensors become int8 instead of float16, with one float32 scale per
            output channel (symmetric, absolute maximum → 127). Depthwise convolutions stay
            float16, because they lose most accuracy.

    Raises:
        WeightsError: A tensor contains NaN, infinity or values that float16 cannot represent.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('num_batches_tracked'):
            continue
        tensor = tensor.detach().cpu().float().contiguous()
        if tensor.ndim < 2:
            stored[name] = tensor
        elif int8 and stored_as_int8(tensor):
            scale = int8_scale(tensor)
            shaped = scale.view(-1, *[1] * (tensor.ndim - 1))
            stored[name] = (tensor / shaped).round().to(torch.int8)
            stored[name + SCALE_SUFFIX] = scale
        else:
            stored[name] = tensor.half()
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(
                f'{path}: {name} contains NaN, infinity or values beyond the range of float16'
            )
    atomic_write(path, lambda temporary: save_file(stored, temporary, {'card': metadata.to_json()}))


def stored_as_int8(weight: Tensor) -> bool:
    """Whether `save_weights` with int8 stores a tensor as int8."""
    return weight.ndim >= 2 and weight.numel() >= MIN_INT8_NUMBERS and weight.shape[1] > 1


def int8_scale(weight: Tensor) -> Tensor:
    """Returns the size of an int8 step of each output channel (the first dimension), float."""
    return weight.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / INT8_STEPS


def _read_safetensors(file: Path) -> tuple[ModelMetadata, dict[str, Tensor]]:
    try:
        with safe_open(file, framework='pt') as opened:
            metadata = _parse_metadata(opened.metadata() or {})
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f'not a complete safetensors file ({first_line(error)})') from None
    return metadata, _dequantize(stored)


def _parse_metadata(stored: Mapping[str, str]) -> ModelMetadata:
    """Returns the model metadata among the key-value metadata of a file."""
    if 'card' not in stored:
        raise ValueError('has no model metadata (key "card")')
    return ModelMetadata.from_json(stored['card'])


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
            else f'{differing[0]} has an int8 scale, but is not int8'
        )
    for name, scale in _usable(scales).items():
        tensor = state[name]
        if tensor.ndim < 1 or scale.shape != tensor.shape[:1]:
            raise ValueError(f'{name} and its int8 scale have shapes that do not match')
        state[name] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    return state


def _read_onnx(file: Path) -> tuple[ModelMetadata, dict[str, Tensor]]:
    from rock_seg_ros.perception.inference.backends import onnx_backend

    try:
        stored = onnx_backend.read_metadata(file)
    except ImportError:
        raise ValueError('an ONNX file needs the package onnxruntime, not installed here') from None
    except TimeoutError:  # the file may be complete
        raise
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors have no common base class)
        raise ValueError(f'not a complete ONNX file ({first_line(error)})') from None
    return _parse_metadata(stored), {}
