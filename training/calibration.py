# SPDX-License-Identifier: Apache-2.0
"""Runs a network on real images and finds the activation ranges for int8 (calibration)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import ImageError
from rock_seg_ros.perception.inference.metadata import MIN_RANGE
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import Preprocessing, correct_exposure
from rock_seg_ros.perception.inference.presets import preset_stride
from rock_seg_ros.perception.inference.quantization import InputRounding, quantized_inputs
from rock_seg_ros.perception.inference.weights_file import Weights
from training.datasets import DataError, Sample

VALUES = 8192  # of each image, per input
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of the measured limits, for `best_range`


def measure_ranges(weights: Weights, samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Runs the network in fp32 and finds a range of values for the input of each convolution.

    Rounded to 8 bits in this range, the values differ least from what they were (Nagel et al. 2021,
    arXiv:2106.08295). A few values that are far from all others are outside it.

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
    generator = torch.Generator().manual_seed(0)
    extremes: dict[str, list[Tensor]] = {name: [] for name in quantized_inputs(model)}
    values: dict[str, list[Tensor]] = {name: [] for name in extremes}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten()
            extremes[name].append(torch.stack(found.aminmax()))
            values[name].append(found[torch.randint(len(found), (VALUES,), generator=generator)])

        return record

    for name in values:
        model.get_submodule(name).register_forward_pre_hook(recorder(name))
    run_network(model, weights, samples, 'calibrating')
    return {name: best_range(torch.cat(values[name]), torch.cat(extremes[name])) for name in values}


def best_range(values: Tensor, extremes: Tensor) -> tuple[float, float]:
    """Returns the range in which the values, rounded to 8 bits, have the least squared error.

    Args:
        values: N float32 values.
        extremes: M float32 values; the range is within their minimum, or 0, and their maximum.
    """
    low, high = min(0.0, extremes.min().item()), max(0.0, extremes.max().item())
    if not MIN_RANGE <= high - low < math.inf:  # the metadata does not accept it
        return low, high

    def error(limits: tuple[float, float]) -> float:
        return (InputRounding(*limits).rounded(values) - values).square().mean().item()

    candidates = {(low * lower, high * upper) for lower in SHARES for upper in SHARES}
    return min(sorted(candidates), key=error)


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
