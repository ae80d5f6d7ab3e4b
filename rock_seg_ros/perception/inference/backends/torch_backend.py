# SPDX-License-Identifier: Apache-2.0
"""PyTorch, on CUDA or the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rock_seg_ros.perception.inference.folding import fold_batch_norm
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class TorchBackend:
    """The network as a PyTorch module in channels-last memory."""

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: str,
        output_stride: int,
        parts: bool = False,
    ) -> None:
        """Builds the network on the device.

        Args:
            weights: Weights that are not an ONNX file.
            device: A CUDA device or the CPU.
            precision: 'fp32', 'fp16' or 'bf16'; 'auto' = fp16 on CUDA and fp32 on the CPU.
            output_stride: An output stride of the network; 0 = that of the training.
            parts: Whether `deep`, `context` and `decode` are used; they are always available.

        Raises:
            WeightsError: The state dict does not fit the network, or this backend does not support
                the precision.
        """
        if weights.is_onnx:
            raise WeightsError(f"{weights.path}: an ONNX file needs backend 'onnx', not 'torch'")
        if precision == 'auto':
            precision = 'fp16' if device.type == 'cuda' else 'fp32'
        if precision not in DTYPES:
            raise WeightsError(
                f"{weights.path}: precision with backend 'torch' must be one of"
                f' {", ".join(DTYPES)}, not {precision!r}'
            )
        try:
            model = restore(weights.metadata, weights.state, output_stride)
        except ValueError as error:
            raise WeightsError(f'{weights.path}: {error}') from None
        fold_batch_norm(model)
        if device.type == 'cuda' and precision == 'fp32':
            compute_in_full_fp32()
        self.device = device
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._model = model.to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 logits."""
        return self._run(lambda prepared: self._model(prepared)['out'], images)

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""
        return self._run(self._model.deep, images)

    def context(self, deep: Tensor) -> Tensor:
        """Maps the output of `deep` to N×context_channels×h×w, or N×channels×h×w, float32."""
        return self._run(self._model.context, deep)

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their scaled context to N×channels×H/4×W/4 float32 logits."""
        return self._run(self._model.decode, images, context)

    @torch.inference_mode()
    def _run(self, part: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        inputs = [each.to(self._dtype, memory_format=torch.channels_last) for each in maps]
        return part(*inputs).float()


def compute_in_full_fp32() -> None:
    """Disables TF32, to which convolutions on CUDA round fp32 by default, in this process."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
