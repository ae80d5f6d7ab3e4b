# SPDX-License-Identifier: Apache-2.0
"""Pipeline from images to segmentations on a CUDA device, with a CUDA graph per batch shape."""

from __future__ import annotations

import warnings
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import cache, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.classification import classify
from rock_seg_ros.perception.inference.pipeline import LogitsError, are_finite
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import Normalization
from rock_seg_ros.perception.inference.segmentation import (
    DeferredSegmentation,
    Pixels,
    Segmentation,
)

Shape = tuple[int, int, int]  # batch, height, width
MAX_GRAPHS = 16
WARM_UP_RUNS = 3
CAPTURE_LOCK = Lock()  # PyTorch allows one capture at a time per process


class DeviceForward:
    """The computation on the device, from uint8 images to class ids and confidence.

    It neither synchronizes with the device nor copies data from or to it, so that it can be
    captured in a CUDA graph.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Stores the network; the computation runs on its device."""
        self._predictor = predictor
        self._normalize = Normalization(predictor.metadata, predictor.backend.device)

    def __call__(self, pixels: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classifies every pixel.

        Args:
            pixels: N×H×W×3 uint8 RGB on the device.
            threshold: Scalar float32 on the device, 0 to 1.

        Returns:
            On the device: N×H×W uint8 class ids, N×H×W uint8 confidence, 0 to 255, and N bool,
            whether the logits of the image are finite.
        """
        prepared = self._normalize(pixels.permute(0, 3, 1, 2))
        logits = self._predictor.logits(prepared)
        return (*classify(logits, self._predictor.metadata, threshold), are_finite(logits))


class _Captured(NamedTuple):
    """A CUDA graph, and the tensors that it reads and writes at each replay."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    threshold: Tensor
    class_ids: Tensor
    confidence: Tensor
    finite: Tensor


class CudaPipeline:
    """Uploads images from pinned memory, replays the graph of their shape, downloads the results.

    The confidence is downloaded only if it is used.
    """

    def __init__(self, predictor: Predictor, capture_after: int = 0) -> None:
        """Stores the network.

        Args:
            predictor: A PyTorch network on a CUDA device.
            capture_after: Number of runs of a shape after which its graph is captured; 0 = graphs
                are captured only by `warm_up` and `capture_pending`.
        """
        self._capture_after = capture_after
        self._forward = DeviceForward(predictor)
        self._card = predictor.metadata
        self._device = predictor.backend.device
        self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))  # for the weights
        # The graphs share memory: they are replayed one after the other, and the results of one
        # are copied before the next is replayed.
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, _Captured] = OrderedDict()
        self._pending_shapes: Counter[Shape] = Counter()  # number of runs without a graph
        self._failed_shapes: set[Shape] = set()

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Segmentation]:
        """Segments images of one size; see `Pipeline`."""
        self._capture_frequent((len(images), *images[0].shape[:2]))
        with torch.cuda.stream(self._stream):
            class_ids, confidence, finite = self._run(_pinned(images), threshold)
            ids, all_finite = (
                torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
                for on_device in (class_ids, finite)
            )
            ids.copy_(class_ids, non_blocking=True)
            all_finite.copy_(finite, non_blocking=True)
            self._stream.synchronize()
        if not all_finite.all():
            raise LogitsError

        @cache
        def download() -> Pixels:
            return confidence.cpu().numpy()

        def confidence_of(number: int) -> Pixels:
            return download()[number]

        return [
            DeferredSegmentation(
                image_ids.numpy(), partial(confidence_of, i), self._card.rock_ids, self._card.rim_id
            )
            for i, image_ids in enumerate(ids)
        ]

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Captures the graph of a shape; warns if the device has too little memory for it.

        Raises:
            RuntimeError: The capture failed for another reason.
        """
        shape = (batch, height, width)
        self._pending_shapes.pop(shape, None)
        if shape in self._graphs or shape in self._failed_shapes:
            return
        try:
            self._graphs[shape] = self._capture(shape)
        except RuntimeError as error:
            self._failed_shapes.add(shape)  # another attempt would fail again
            self._pool = torch.cuda.graph_pool_handle()  # the old pool may be in an invalid state
            if not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            _warn_no_graph(shape, error)
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)

    def capture_pending(self) -> None:
        """Captures the graphs of the shapes that were run without one.

        Call it when no image is waiting: a capture takes as long as several images. A shape whose
        capture fails is run without a graph from then on.

        Raises:
            RuntimeError: A capture failed for another reason than too little memory.
        """
        while self._pending_shapes:
            self.warm_up(*next(iter(self._pending_shapes)))

    def _capture_frequent(self, shape: Shape) -> None:
        if self._capture_after and self._pending_shapes[shape] >= self._capture_after:
            try:
                self.warm_up(*shape)
            except RuntimeError as error:
                _warn_no_graph(shape, error)

    def _run(self, pixels: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        shape: Shape = tuple(pixels.shape[:3])  # type: ignore[assignment]
        captured = self._graphs.get(shape)
        if captured is None:
            if shape not in self._failed_shapes:
                self._pending_shapes[shape] += 1
            threshold_on_device = torch.full((), threshold, device=self._device)
            return self._forward(pixels.to(self._device, non_blocking=True), threshold_on_device)
        self._graphs.move_to_end(shape)
        captured.pixels.copy_(pixels, non_blocking=True)
        captured.threshold.fill_(threshold)
        captured.graph.replay()
        return captured.class_ids, captured.confidence.clone(), captured.finite

    def _capture(self, shape: Shape) -> _Captured:
        with CAPTURE_LOCK:
            benchmark = torch.backends.cudnn.benchmark
            torch.backends.cudnn.benchmark = True  # selects the fastest convolutions
            try:
                return self._run_and_capture(shape)
            finally:
                torch.backends.cudnn.benchmark = benchmark

    def _run_and_capture(self, shape: Shape) -> _Captured:
        with torch.cuda.stream(self._stream):
            pixels = torch.zeros((*shape, 3), dtype=torch.uint8, device=self._device)
            threshold = torch.full((), self._card.threshold, device=self._device)
            for _ in range(WARM_UP_RUNS):
                self._forward(pixels, threshold)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode='thread_local'):
            class_ids, confidence, finite = self._forward(pixels, threshold)
        return _Captured(graph, pixels, threshold, class_ids, confidence, finite)


def _warn_no_graph(shape: Shape, error: RuntimeError) -> None:
    batch, height, width = shape
    warnings.warn(
        f'CUDA graph capture failed for {batch}×{width}×{height}, running eagerly:'
        f' {first_line(error)}',
        stacklevel=2,
    )


def _pinned(images: Sequence[Pixels]) -> Tensor:
    """Copies images into one N×H×W×3 buffer in pinned memory."""
    buffer = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
    np.stack(images, out=buffer.numpy())
    return buffer
