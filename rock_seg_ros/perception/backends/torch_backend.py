# SPDX-License-Identifier: Apache-2.0
"""PyTorch, on CUDA or the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from rock_seg_ros.perception.model import build, load_state
from rock_seg_ros.perception.weights_file import Weights, WeightsError

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class TorchBackend:
    """The network as a PyTorch module in channels-last memory."""

    def __init__(
        self, weights: Weights, device: torch.device, precision: str, output_stride: int
    ) -> None:
        """Builds the network on the device.

        Args:
            weights: Not of an ONNX file.
            device: A CUDA device or the CPU.
            precision: 'fp32', 'fp16' or 'bf16'; 'auto' is fp16 on CUDA and fp32 on the CPU.
            output_stride: 8 or 16; 0 = as trained.

        Raises:
            WeightsError: The state dict does not fit the card's network.
        """
        if weights.is_onnx:
            raise WeightsError(f"{weights.path}: an ONNX file needs backend 'onnx', not 'torch'")
        if precision == 'auto':
            precision = 'fp16' if device.type == 'cuda' else 'fp32'
        with torch.device('meta'):
            model = build(weights.card, output_stride)
        model = model.to_empty(device='cpu')
        try:
            load_state(model, weights.state)
        except ValueError as error:
            raise WeightsError(f'{weights.path}: {error}') from None
        self.device = device
        self.precision = precision
        self._dtype = DTYPES[precision]
        self._model = model.eval().to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def scores(self, pictures: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
        with torch.inference_mode():
            ready = pictures.to(self._dtype, memory_format=torch.channels_last)
            return self._model(ready)['out'].float()
