# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime, on CUDA or the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from rock_seg_ros.perception.weights_file import Weights, WeightsError

INPUT = 'pictures'
OUTPUT = 'scores'


def read_metadata(file: Path) -> dict[str, str]:
    """Returns the key-value metadata of an ONNX file.

    Raises:
        ImportError: onnxruntime is not installed.
        Exception: ONNX Runtime's own, when the file is no ONNX graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    return dict(session.get_modelmeta().custom_metadata_map)


class OnnxBackend:
    """The graph of an ONNX file, whose precision and output stride are those of its export."""

    def __init__(
        self, weights: Weights, device: torch.device, precision: str, output_stride: int
    ) -> None:
        """Opens the graph.

        Args:
            weights: Of an ONNX file.
            device: A CUDA device (with onnxruntime-gpu) or the CPU.
            precision: 'auto' or 'fp32'.
            output_stride: 0, or what the file was exported with.

        Raises:
            WeightsError: The file is none, or an argument asks for what it is not.
        """
        if not weights.is_onnx:
            raise WeightsError(
                f"{weights.path}: backend 'onnx' needs an .onnx file; see training.export"
            )
        if precision not in ('auto', 'fp32'):
            raise WeightsError(
                f"{weights.path}: is fp32; precision must be 'auto', not {precision!r}"
            )
        if output_stride not in (0, weights.card.output_stride):
            raise WeightsError(
                f'{weights.path}: was exported at output stride {weights.card.output_stride},'
                f' not {output_stride}'
            )
        import onnxruntime

        wanted = 'CUDAExecutionProvider' if device.type == 'cuda' else 'CPUExecutionProvider'
        if wanted not in onnxruntime.get_available_providers():
            raise WeightsError(f'{weights.path}: ONNX Runtime has no {wanted} here')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        provider = (wanted, {'device_id': device.index or 0}) if device.type == 'cuda' else wanted
        self._session = onnxruntime.InferenceSession(
            str(weights.path), options, providers=[provider]
        )
        if self._session.get_providers()[0] != wanted:  # it falls to the CPU without a word
            raise WeightsError(f'{weights.path}: ONNX Runtime could not start {wanted}')
        self.device = device
        self.precision = 'fp32'

    def scores(self, pictures: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
        result = self._session.run([OUTPUT], {INPUT: pictures.cpu().contiguous().numpy()})
        return torch.from_numpy(result[0]).to(self.device)
