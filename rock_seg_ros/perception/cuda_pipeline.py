# SPDX-License-Identifier: Apache-2.0
"""Pictures → class ids and confidence on a CUDA device, as one CUDA graph a picture shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.classification import classify
from rock_seg_ros.perception.pipeline import Classified, Pixels
from rock_seg_ros.perception.preparation import Normalization
from rock_seg_ros.perception.scoring import Scorer

Shape = tuple[int, int, int]  # batch, height, width
MOST_GRAPHS = 16
WARM_UP_RUNS = 3
CAPTURING = Lock()  # PyTorch allows one capture at a time in a process


class DeviceWay:
    """Everything between the uint8 pictures on the device and the class ids there.

    It never waits for the device and copies nothing from or to it, so that it can be captured.
    """

    def __init__(self, scorer: Scorer) -> None:
        """Takes the network in, whose device is where all is done."""
        self._scorer = scorer
        self._normalize = Normalization(scorer.card, scorer.runner.device)

    def __call__(self, pixels: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies every pixel.

        Args:
            pixels: N×H×W×3 uint8 RGB on the device.
            threshold: 0 to 1, without dimensions, float32 on the device.

        Returns:
            N×H×W uint8 class ids, and N×H×W uint8 confidence, 0 to 255, on the device.
        """
        prepared = self._normalize(pixels.permute(0, 3, 1, 2))
        return classify(self._scorer.scores(prepared), self._scorer.card, threshold)


class _Captured(NamedTuple):
    """A graph and the tensors that it reads and writes at each replay."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    threshold: Tensor
    class_ids: Tensor
    confidence: Tensor


class CudaPipeline:
    """Uploads pinned pictures once, replays the shape's graph, downloads what is asked for."""

    def __init__(self, scorer: Scorer) -> None:
        """Takes the network in.

        Args:
            scorer: With a PyTorch network on a CUDA device.
        """
        self._way = DeviceWay(scorer)
        self._card = scorer.card
        self._device = scorer.runner.device
        self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # for the weights
        # Graphs may share memory: they are replayed one after the other, and what they leave is
        # copied out before the next.
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, _Captured] = OrderedDict()
        self._met: set[Shape] = set()
        self._given_up: set[Shape] = set()

    def run(self, pictures: Sequence[Pixels], threshold: float) -> list[Classified]:
        """Classifies the pixels of pictures of one size, H×W×3 uint8 RGB, any strides."""
        with torch.cuda.stream(self._stream):
            class_ids, confidence = self._run(_pinned(pictures), threshold)
            ids = torch.empty(class_ids.shape, dtype=torch.uint8, pin_memory=True)
            ids.copy_(class_ids, non_blocking=True)
            self._stream.synchronize()

        @cache
        def all_confidence() -> Pixels:
            return confidence.cpu().numpy()

        def confidence_of(number: int) -> Callable[[], Pixels]:
            return lambda: all_confidence()[number]

        return [Classified(own.numpy(), confidence_of(i)) for i, own in enumerate(ids)]

    def warm(self, batch: int, height: int, width: int) -> None:
        """Captures the graph of a shape.

        Raises:
            torch.cuda.OutOfMemoryError: The device is too small for it.
        """
        shape = (batch, height, width)
        if shape in self._graphs:
            return
        if len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        self._graphs[shape] = self._capture(shape)

    def catch_up(self) -> None:
        """Captures the graphs of shapes met since; one that cannot be is run without for good.

        For moments when no picture waits: a capture takes as long as several pictures.

        Raises:
            RuntimeError: A capture failed for another reason than too little memory.
        """
        while self._met:
            shape = self._met.pop()
            try:
                self.warm(*shape)
            except RuntimeError as error:
                self._given_up.add(shape)  # another try would fail again, after every picture
                if not isinstance(error, torch.cuda.OutOfMemoryError):
                    raise

    def _run(self, pixels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        shape: Shape = tuple(pixels.shape[:3])  # type: ignore[assignment]
        captured = self._graphs.get(shape)
        if captured is None:
            if shape not in self._given_up:
                self._met.add(shape)
            level = torch.full((), threshold, device=self._device)
            return self._way(pixels.to(self._device, non_blocking=True), level)
        self._graphs.move_to_end(shape)
        captured.pixels.copy_(pixels, non_blocking=True)
        captured.threshold.fill_(threshold)
        captured.graph.replay()
        return captured.class_ids, captured.confidence.clone()

    def _capture(self, shape: Shape) -> _Captured:
        with CAPTURING:
            searches = torch.backends.cudnn.benchmark
            torch.backends.cudnn.benchmark = True  # the quickest convolutions are looked for here
            try:
                return self._warmed_and_captured(shape)
            finally:
                torch.backends.cudnn.benchmark = searches

    def _warmed_and_captured(self, shape: Shape) -> _Captured:
        with torch.cuda.stream(self._stream):
            pixels = torch.zeros((*shape, 3), dtype=torch.uint8, device=self._device)
            threshold = torch.full((), self._card.threshold, device=self._device)
            for _ in range(WARM_UP_RUNS):
                self._way(pixels, threshold)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode='thread_local'):
            class_ids, confidence = self._way(pixels, threshold)
        return _Captured(graph, pixels, threshold, class_ids, confidence)


def _pinned(pictures: Sequence[Pixels]) -> Tensor:
    """Copies pictures into one N×H×W×3 buffer that the device reads by itself."""
    buffer = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(pictures, out=buffer.numpy())
    return buffer
