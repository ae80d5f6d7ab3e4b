# SPDX-License-Identifier: Apache-2.0
"""OpenVINO, on the CPU."""

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
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError

# What the parts that are not int8 are computed in.
HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'int8': 'f32'}

Input = tuple[int, int, int]
RGB = (3, 64, 64)  # channels of the network's input, and a size to trace it with


def is_available() -> bool:
    """Returns whether OpenVINO is installed; imports nothing."""
    return importlib.util.find_spec('openvino') is not None


class OpenVinoBackend:
    """The network as OpenVINO compiles it, for any size and batch."""

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
            weights: Not of an ONNX file.
            device: The CPU.
            precision: 'fp32', 'bf16' (where the CPU has it) or 'int8' (where the card has
                activation ranges); 'auto' is fp32.
            output_stride: One that the network has; 0 = as trained.
            parts: Whether `deep`, `context` and `decode` are wanted, too.

        Raises:
            WeightsError: The state dict does not fit the card's network, or an argument asks for
                what cannot be.
        """
        if weights.is_onnx:
            raise WeightsError(f"{weights.path}: an ONNX file needs backend 'onnx', not 'openvino'")
        if device.type != 'cpu':
            raise WeightsError(
                f"{weights.path}: backend 'openvino' is for the CPU; on {str(device)!r} use 'torch'"
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
        whole = _compile(model, 'forward', [RGB], weights, precision)
        self._request = whole.create_infer_request()
        self._parts: dict[str, Any] = {}
        self._part = ''
        self._request_of_part: Any = None
        if parts:
            self._parts['deep'] = _compile(model, 'deep', [RGB], weights, precision)
            deep = model.deep_channels, 8, 8
            self._parts['context'] = _compile(model, 'context', [deep], weights, precision)
        if parts and model.decoder == 'skip':
            context = model.context_channels, RGB[1] // 4, RGB[2] // 4
            self._parts['decode'] = _compile(model, 'decode', [RGB, context], weights, precision)
        self._channels = weights.metadata.channels

    def scores(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
        from openvino import Tensor as View

        images = images.contiguous()
        batch, _, height, width = images.shape
        scores = torch.empty(batch, self._channels, height, width)
        self._request.set_input_tensor(View(images.numpy(), shared_memory=True))
        self._request.set_output_tensor(View(scores.numpy(), shared_memory=True))
        self._request.infer(share_outputs=True)  # else it would return a copy of the scores
        return scores

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""
        return self._run('deep', images)

    def context(self, deep: Tensor) -> Tensor:
        """Maps that to N×context_channels×h×w, or N×channels×h×w, float32."""
        return self._run('context', deep)

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their scaled context to N×channels×H/4×W/4 float32 scores."""
        return self._run('decode', images, context)

    def _run(self, part: str, *maps: Tensor) -> Tensor:
        views = [one.contiguous().numpy() for one in maps]
        if part != self._part:  # each would keep its inputs and what it works in: a network's worth
            if self._part:
                self._parts[self._part].release_memory()
            self._part, self._request_of_part = part, self._parts[part].create_infer_request()
        return torch.from_numpy(self._request_of_part.infer(views, share_inputs=True)[0])


class _Part(nn.Module):
    def __init__(self, model: DeepLabV3, method: str) -> None:
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *maps: Tensor) -> Tensor:
        result = getattr(self.model, self.method)(*maps)
        return result if isinstance(result, Tensor) else result['out']


@cache
def _core() -> Any:
    """Returns the process's one Core, which is never let go.

    It gives the thread that makes it a stack for signals; let go in another thread, it would free
    that stack under the first one, which then dies of its next signal.
    """
    # At import it would report to its maker; without this package it does not.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _compile(
    model: DeepLabV3, method: str, inputs: list[Input], weights: Weights, precision: str
) -> Any:
    """Returns what a method of the network does, compiled for any size and batch."""
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
        # Traced here, since OpenVINO would trace a second time to compare.
        example = tuple(torch.zeros(1, *one) for one in inputs)
        traced = torch.jit.trace(_Part(model, method).eval(), example, check_trace=False)
        graph = openvino.convert_model(traced, input=[[-1, one[0], -1, -1] for one in inputs])
    settings = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_PRECISION_HINT': HINTS[precision],
        'INFERENCE_NUM_THREADS': threads_from_environment(),  # 0 = its own choice
    }
    return core.compile_model(graph, 'CPU', settings)
