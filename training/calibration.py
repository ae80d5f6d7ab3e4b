# SPDX-License-Identifier: Apache-2.0
"""Runs a network on real images and measures the activation ranges for int8 (calibration)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import ImageError
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import Preprocessing, correct_exposure
from rock_seg_ros.perception.inference.presets import preset_stride
from rock_seg_ros.perception.inference.quantization import quantized_inputs
from rock_seg_ros.perception.inference.weights_file import Weights
from training.datasets import DataError, Sample


def measure_ranges(weights: Weights, samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Runs the network in fp32 and records the value ranges of the inputs of its convolutions.

    Args:
        weights: Weights of a checkpoint or a safetensors file, not of an ONNX file.
        samples: Images like those that the network will process; their labels are not read.

    Returns:
        Name of a module whose input is quantized → lowest and highest value of that input.

    Raises:
        DataError: There is no image, or an image cannot be read.
        ValueError: The weights do not match the network.
    """
    model = restore(weights.metadata, weights.state, preset_stride('fast', weights.metadata))
    ranges: dict[str, tuple[float, float]] = {}
    for name in quantized_inputs(model):
        model.get_submodule(name).register_forward_pre_hook(_recorder(name, ranges))
    run_network(model, weights, samples, 'calibrating')
    return ranges


def _recorder(
    name: str, ranges: dict[str, tuple[float, float]]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        batch_range = inputs[0].aminmax()
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(low, batch_range.min.item()), max(high, batch_range.max.item()))

    return record


def run_network(model: DeepLabV3, weights: Weights, samples: Sequence[Sample], title: str) -> None:
    """Runs a network in fp32 on images, as the node would, for what its hooks record.

    Args:
        model: The network with the weights.
        weights: Its weights; their metadata says how images are prepared.
        samples: The images.
        title: What the progress bar says.

    Raises:
        DataError: There is no image, or an image cannot be read.
    """
    if not samples:
        raise DataError(f'{weights.path}: no images to calibrate on')
    backend = _TorchBackend(model)
    predictor = Predictor(backend, weights.metadata)
    prepare = Preprocessing(weights.metadata, backend.device)
    for sample in tqdm(samples, title, unit='image', disable=None):
        try:
            image = sample.read_image()
        except (ImageError, OSError) as error:
            raise DataError(str(error)) from None
        predictor.logits(prepare([correct_exposure(image)]))


class _TorchBackend:
    """A backend that runs the network as it is, so that its hooks are called."""

    device = torch.device('cpu')
    precision = 'fp32'

    def __init__(self, model: DeepLabV3) -> None:
        self._model = model.to(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._model(images)['out']
