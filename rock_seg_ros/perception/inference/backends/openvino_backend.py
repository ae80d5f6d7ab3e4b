# SPDX-License-Identifier: Apache-2.0
"""Backend for OpenVINO on the CPU."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from rock_seg_ros.perception.inference.backends import threads_from_environment
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.quantization import quantize
from rock_seg_ros.perception.inference.scaling import resize
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError

# Precision → the precision of the parts that are not int8.
HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'int8': 'f32'}

InputShape = tuple[int, int, int]
RGB = (3, 64, 64)  # shape of the image that the network is traced with


def is_available() -> bool:
    """Returns whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec('openvino') is not None


class OpenVinoBackend:
    """The network, compiled by OpenVINO for any image size and batch size."""

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: str,
        output_stride: int,
        parts: bool = False,
    ) -> None:
        """Compiles the network.

        Args:
            weights: Weights that are not an ONNX file.
            device: The CPU.
            precision: 'fp32', 'bf16' (if the CPU supports it) or 'int8' (if the metadata has
                activation ranges); 'auto' = fp32.
            output_stride: An output stride of the network; 0 = that of the training.
            parts: Whether `deep`, `context` and `decode` are also compiled.

        Raises:
            WeightsError: The state dict does not fit the network, or this backend, this CPU or the
                weights do not support an argument.
        """
        if weights.is_onnx:
            raise WeightsError(f"{weights.path}: an ONNX file needs backend 'onnx', not 'openvino'")
        if device.type != 'cpu':
            raise WeightsError(
                f"{weights.path}: backend 'openvino' needs the CPU; on {str(device)!r} use 'torch'"
            )
        precision = 'fp32' if precision == 'auto' else precision
        if precision not in HINTS:
            raise WeightsError(
                f"{weights.path}: precision with backend 'openvino' must be one of"
                f' {", ".join(HINTS)}, not {precision!r}'
            )
        try:
            model = restore(weights.metadata, weights.state, output_stride)
            if precision == 'int8':
                quantize(model, weights.metadata.activation_ranges)
        except ValueError as error:
            raise WeightsError(f'{weights.path}: {error}') from None
        self.device = device
        self.precision = precision
        # Without the scaling to the image, for which `resize` is several times faster.
        whole = _compile(model, 'coarse_logits', [RGB], weights, precision)
        self._parts = {'coarse_logits': whole}
        self._part = ''
        self._request: Any = None
        if parts:
            self._parts['deep'] = _compile(model, 'deep', [RGB], weights, precision)
            deep = model.deep_channels, 8, 8
            self._parts['context'] = _compile(model, 'context', [deep], weights, precision)
        if parts and model.decoder == 'skip':
            context = model.context_channels, RGB[1] // 4, RGB[2] // 4
            self._parts['decode'] = _compile(model, 'decode', [RGB, context], weights, precision)

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 logits."""
        height, width = images.shape[-2:]
        return resize(self._run('coarse_logits', images), (height, width))

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""
        return self._run('deep', images)

    def context(self, deep: Tensor) -> Tensor:
        """Maps the output of `deep` to N×context_channels×h×w, or N×channels×h×w, float32."""
        return self._run('context', deep)

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their scaled context to N×channels×H/4×W/4 float32 logits."""
        return self._run('decode', images, context)

    def _run(self, part: str, *maps: Tensor) -> Tensor:
        views = [each.contiguous().numpy() for each in maps]
        if part != self._part:  # one request at a time, because each needs much memory
            if self._part:
                self._parts[self._part].release_memory()
            self._part, self._request = part, self._parts[part].create_infer_request()
        return torch.from_numpy(self._request.infer(views, share_inputs=True)[0])


class _Part(nn.Module):
    def __init__(self, model: DeepLabV3, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *maps: Tensor) -> Tensor:
        return getattr(self.model, self.method)(*maps)


@cache
def _core() -> Any:
    """Returns the Core of the process, which is never released.

    The Core allocates a signal stack for the thread that creates it. If another thread released
    the Core, the stack would be freed, and the next signal would end the first thread.
    """
    # OpenVINO sends usage statistics at import if this package can be imported.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _compile(
    model: DeepLabV3, method: str, inputs: list[InputShape], weights: Weights, precision: str
) -> Any:
    """Compiles a method of the network for any image size and batch size."""
    if not is_available():
        raise WeightsError(
            f"{weights.path}: backend 'openvino' needs the package openvino, not installed here"
        )
    core = _core()
    import openvino

    if precision == 'bf16' and 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        raise WeightsError(f"{weights.path}: this CPU has no bf16; use precision 'fp32'")
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter('ignore')
        # OpenVINO would trace the network twice, to compare the results.
        example = tuple(torch.zeros(1, *shape) for shape in inputs)
        traced = torch.jit.trace(_Part(model, method).eval(), example, check_trace=False)
        graph = openvino.convert_model(traced, input=[[-1, shape[0], -1, -1] for shape in inputs])
    settings = {
        'PERFORMANCE_HINT': 'LATENCY',
        'ENABLE_CPU_PINNING': False,  # pinned, other work on a core makes it 50 times slower
        'INFERENCE_PRECISION_HINT': HINTS[precision],
        'INFERENCE_NUM_THREADS': threads_from_environment(),  # 0 = automatic
    }
    return core.compile_model(graph, 'CPU', settings)
