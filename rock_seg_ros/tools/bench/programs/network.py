# SPDX-License-Identifier: Apache-2.0
"""A network in its own process, so that it shares no memory and no threads with the others.

It is idle while they run. Its class has `precision` and these methods:

* `prepare(image)` preprocesses H×W×3 uint8 RGB. It returns a function that runs only the network.
* `image(image)` segments an image, from H×W×3 uint8 RGB to the mask in memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.transforms._presets import SemanticSegmentation

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bench.contenders import TORCHVISION, BenchError, Contender
from rock_seg_ros.tools.bench.timing import Run, rss_mb


class Torchvision:
    """DeepLabV3-ResNet50 of torchvision, called as in its documentation, in eager mode and fp32.

    https://docs.pytorch.org/vision/stable/models.html#semantic-segmentation: initialise the model,
    `eval()`, preprocess, batch, `model(batch)['out']`, softmax. Two changes make it faster: images
    keep their size (the transforms enlarge them to 520 px by default), and no gradients are
    recorded. Random weights take as long as trained ones. The output stride is 8.
    """

    precision = 'fp32'

    def __init__(self, device: str) -> None:
        """Initialises the model and the transforms."""
        self._device = device
        model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2)
        self._model = model.eval().to(device)
        self._preprocess = SemanticSegmentation(resize_size=None)

    def prepare(self, image: NDArray[np.uint8]) -> Callable[[], Tensor]:
        """Returns a function that returns the 1×2×H×W logits of H×W×3 uint8 RGB."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        return partial(self._logits, self._preprocess(pixels).unsqueeze(0).to(self._device))

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Segments H×W×3 uint8 RGB; returns H×W bool, True for class 1."""
        normalized_masks = self.prepare(image)().softmax(dim=1)
        return (normalized_masks[0].argmax(dim=0) == 1).cpu().numpy()

    def _logits(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            return self._model(batch)['out']


class Preset:
    """The segmenter of this package with one of its presets."""

    def __init__(self, contender: Contender) -> None:
        """Loads the weights."""
        from rock_seg_ros.perception.inference.preprocessing import Preprocessing
        from rock_seg_ros.perception.inference.segmenter import Segmenter
        from rock_seg_ros.perception.inference.weights_file import load_weights

        self._segmenter = Segmenter(
            load_weights(contender.weights),
            device=contender.device,
            precision=contender.precision,
            preset=contender.preset,
        )
        self._preprocess = Preprocessing(self._segmenter.metadata, self._segmenter.device)
        self.precision = self._segmenter.precision

    def prepare(self, image: NDArray[np.uint8]) -> Callable[[], Any]:
        """Returns a function that runs the backend; on a GPU as a CUDA graph like the segmenter."""
        self._input = self._preprocess([image])  # a CUDA graph does not keep it
        run = partial(self._segmenter._runner.logits, self._input)
        if self._segmenter.device.type != 'cuda':
            return run
        self._segmenter.warm_up(*image.shape[:2])
        return _captured(run)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segments the image."""
        return self._segmenter.segment(image).mask()


def serve(connection: Connection) -> None:
    """Loads the network that it receives; then answers each kind and image with a `Run`.

    Any error is the last answer, which nobody receives if the other process has ended.
    """
    try:
        contender: Contender = connection.recv()
        is_ours = contender.name != TORCHVISION
        network: Any = Preset(contender) if is_ours else Torchvision(contender.device)
        connection.send(network.precision)
        shape = None
        while True:
            kind, image = connection.recv()
            if image.shape != shape:
                shape, prepared = image.shape, network.prepare(image)
            run = prepared if kind == 'network' else partial(network.image, image)
            connection.send(_measure(run, contender.device))
    except Exception as error:  # noqa: BLE001
        with suppress(ConnectionError):
            connection.send(BenchError(first_line(error)))


def _measure(run: Callable[[], Any], device: str) -> Run:
    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    synchronize()
    start = time.perf_counter()
    result = run()
    synchronize()
    seconds = time.perf_counter() - start
    del result  # freed after the measurement
    return Run(seconds, rss_mb())


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """Captures `run` as a CUDA graph; returns a function that replays it."""
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
    return graph.replay


if __name__ == '__main__':
    serve(Connection(int(sys.argv[1])))
