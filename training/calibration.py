# SPDX-License-Identifier: Apache-2.0
"""Measures the activation ranges that int8 needs, on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import ImageError
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.preparation import Preparation
from rock_seg_ros.perception.inference.presets import preset_stride
from rock_seg_ros.perception.inference.quantization import rounded_inputs
from rock_seg_ros.perception.inference.scoring import Scorer
from rock_seg_ros.perception.inference.weights_file import Weights
from training.datasets import DataError, Sample


def measure_ranges(weights: Weights, samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Runs the network as it is in fp32 and notes what its convolutions get to see.

    Args:
        weights: Not of an ONNX file.
        samples: Images like those that the network will see; their labels are not read.

    Returns:
        Name of a module whose input int8 rounds → lowest and highest value of that input.

    Raises:
        DataError: There is no image, or one cannot be read.
        ValueError: The weights do not fit the network.
    """
    if not samples:
        raise DataError(f'{weights.path}: no images to calibrate on')
    observer = _Observer(restore(weights.card, weights.state, preset_stride('fast', weights.card)))
    scorer = Scorer(observer, weights.card)
    prepare = Preparation(weights.card, observer.device)
    for sample in tqdm(samples, 'calibrating', unit='image', disable=None):
        try:
            image = sample.read_image()
        except (ImageError, OSError) as error:
            raise DataError(str(error)) from None
        scorer.scores(prepare([image]))
    return observer.ranges


class _Observer:
    """A backend that notes the lowest and highest values at the inputs that int8 rounds."""

    device = torch.device('cpu')
    precision = 'fp32'

    def __init__(self, model: DeepLabV3) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}
        self._model = model.to(memory_format=torch.channels_last)
        for name in rounded_inputs(model):
            model.get_submodule(name).register_forward_pre_hook(self._note_as(name))

    def _note_as(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].aminmax()
            low, high = self.ranges.get(name, (0.0, 0.0))
            self.ranges[name] = (min(low, seen.min.item()), max(high, seen.max.item()))

        return note

    def scores(self, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return self._model(images)['out']
