# SPDX-License-Identifier: Apache-2.0
"""Images → class ids and confidence on a CUDA device, as one CUDA graph an image shape."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.classification import classify
from rock_seg_ros.perception.inference.pipeline import Classified, Pixels, ScoresError, are_finite
from rock_seg_ros.perception.inference.preprocessing import Normalization
from rock_seg_ros.perception.inference.scoring import Scorer

Shape = tuple[int, int, int]  # batch, height, width
MAX_GRAPHS = 16
WARM_UP_RUNS = 3
CAPTURING = Lock()  # PyTorch allows one capture at a time in a process


class DeviceForward:
    """Everything between the uint8 images on the device and the class ids there.

    It never waits for the device and copies nothing from or to it, so that it can be captured.
    """

    def __init__(self, scorer: Scorer) -> None:
        """Takes the network in, whose device is where all is done."""
        self._scorer = scorer
        self._normalize = Normalization(scorer.card, scorer.runner.device)

    def __call__(self, pixels: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classifies every pixel.

        Args:
            pixels: N×H×W×3 uint8 RGB on the device.
            threshold: 0 to 1, without dimensions, float32 on the device.

        Returns:
            On the device: N×H×W uint8 class ids, N×H×W uint8 confidence, 0 to 255, and N bool,
            whether the scores that they are made of are finite.
        """
        prepared = self._normalize(pixels.permute(0, 3, 1, 2))
        scores = self._scorer.scores(prepared)
        return (*classify(scores, self._scorer.card, threshold), are_finite(scores))


class _Captured(NamedTuple):
    """A graph and the tensors that it reads and writes at each replay."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    threshold: Tensor
    class_ids: Tensor
    confidence: Tensor
    finite: Tensor


class CudaPipeline:
    """Uploads pinned images once, replays the shape's graph, downloads what is asked for."""

    def __init__(self, scorer: Scorer, capture_after: int = 0) -> None:
        """Takes the network in.

        Args:
            scorer: With a PyTorch network on a CUDA device.
            capture_after: Runs of a shape after which its graph is captured at once; 0 = only by
                `warm` and `capture_pending`.
        """
        self._capture_after = capture_after
        self._way = DeviceForward(scorer)
        self._card = scorer.card
        self._device = scorer.runner.device
        self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # for the weights
        # Graphs may share memory: they are replayed one after the other, and what they leave is
        # copied out before the next.
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, _Captured] = OrderedDict()
        self._met: Counter[Shape] = Counter()
        self._given_up: set[Shape] = set()

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Classified]:
        """Classifies the pixels of images of one size, H×W×3 uint8 RGB, any strides.

        Raises:
            ScoresError: What the network gave for one of them is not finite.
        """
        self._capture_often_met((len(images), *images[0].shape[:2]))
        with torch.cuda.stream(self._stream):
            class_ids, confidence, finite = self._run(_pinned(images), threshold)
            ids, whole = (
                torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
                for on_device in (class_ids, finite)
            )
            ids.copy_(class_ids, non_blocking=True)
            whole.copy_(finite, non_blocking=True)
            self._stream.synchronize()
        if not whole.all():
            raise ScoresError

        @cache
        def all_confidence() -> Pixels:
            return confidence.cpu().numpy()

        def confidence_of(number: int) -> Callable[[], Pixels]:
            return lambda: all_confidence()[number]

        return [Classified(own.numpy(), confidence_of(i)) for i, own in enumerate(ids)]

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Captures the graph of a shape, and says so where the device is too small for it.

        Raises:
            RuntimeError: The capture failed for another reason.
        """
        shape = (batch, height, width)
        self._met.pop(shape, None)
        if shape in self._graphs or shape in self._given_up:
            return
        try:
            self._graphs[shape] = self._capture(shape)
        except RuntimeError as error:
            self._given_up.add(shape)  # another try would fail again, after every image
            self._pool = torch.cuda.graph_pool_handle()  # the other may be left half taken
            if not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            _say_no_graph(shape, error)
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)

    def capture_pending(self) -> None:
        """Captures the graphs of shapes met since; one that cannot be is run without for good.

        For moments when no image waits: a capture takes as long as several images.

        Raises:
            RuntimeError: A capture failed for another reason than too little memory.
        """
        while self._met:
            self.warm_up(*next(iter(self._met)))

    def _capture_often_met(self, shape: Shape) -> None:
        if self._capture_after and self._met[shape] >= self._capture_after:
            try:
                self.warm_up(*shape)
            except RuntimeError as error:
                _say_no_graph(shape, error)

    def _run(self, pixels: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        shape: Shape = tuple(pixels.shape[:3])  # type: ignore[assignment]
        captured = self._graphs.get(shape)
        if captured is None:
            if shape not in self._given_up:
                self._met[shape] += 1
            level = torch.full((), threshold, device=self._device)
            return self._way(pixels.to(self._device, non_blocking=True), level)
        self._graphs.move_to_end(shape)
        captured.pixels.copy_(pixels, non_blocking=True)
        captured.threshold.fill_(threshold)
        captured.graph.replay()
        return captured.class_ids, captured.confidence.clone(), captured.finite

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
            class_ids, confidence, finite = self._way(pixels, threshold)
        return _Captured(graph, pixels, threshold, class_ids, confidence, finite)


def _say_no_graph(shape: Shape, error: RuntimeError) -> None:
    batch, height, width = shape
    warnings.warn(
        f'no CUDA graph for {batch}×{width}×{height}, which is run without: {first_line(error)}',
        stacklevel=2,
    )


def _pinned(images: Sequence[Pixels]) -> Tensor:
    """Copies images into one N×H×W×3 buffer that the device reads by itself."""
    buffer = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=buffer.numpy())
    return buffer
