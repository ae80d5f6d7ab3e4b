# SPDX-License-Identifier: Apache-2.0
"""The implementations that `rock_seg bench` compares.

Each implementation has its own process, so that it shares no memory and no threads with the others
and is idle while they run. It has a `precision` and these methods:

* `prepare(image)` converts H×W×3 uint8 RGB to the input of `network`. It is not timed.
* `network(prepared)` runs only the network.
* `image(image)` segments an image, from H×W×3 uint8 RGB to the mask in memory. Implementations of
  which only the network is measured do not have it.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bench.timing import Run, Size, rss_mb

RESNET, LIGHT = 'resnet50', 'light'

LOAD_TIMEOUT = 300.0
STOP_TIMEOUT = 5.0
# Large enough to reach the peak rate of the machine; on a CPU the product takes under a second.
PRODUCT_SIDE = {'cpu': 2048, 'cuda': 8192}
# Measured configurations of the package: name → embedded weights and preset.
CONFIGURATIONS = {
    'exact': (RESNET, 'exact'),
    'balanced': (RESNET, 'balanced'),
    'fast': (RESNET, 'fast'),
    'light': (LIGHT, 'balanced'),
    'light_fast': (LIGHT, 'fast'),
}


class BenchError(ValueError):
    """A measurement failed; the message is one line with the reason."""


@dataclass(frozen=True)
class Job:
    """Describes an implementation to the process that loads it.

    Attributes:
        implementation: 'torchvision', 'eager', 'matrix product' or a name in `CONFIGURATIONS`.
        device: 'cpu' or 'cuda'.
        precision: Precision of a configuration; 'auto' = the one of its preset.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.
        image: Image file, which is scaled to each size.
    """

    implementation: str
    device: str
    precision: str
    weights: str
    image: Path


def weights_of(name: str, weights: str) -> str:
    """Returns the weights of a configuration; `weights`, if given, replaces ResNet-50."""
    embedded = CONFIGURATIONS[name][0]
    return weights if weights and embedded == RESNET else embedded


class Preset:
    """The segmenter of this package with one of its presets."""

    def __init__(self, job: Job) -> None:
        """Loads the weights."""
        from rock_seg_ros.perception.inference.preprocessing import Preprocessing
        from rock_seg_ros.perception.inference.segmenter import Segmenter
        from rock_seg_ros.perception.inference.weights_file import load_weights

        self._segmenter = Segmenter(
            load_weights(weights_of(job.implementation, job.weights)),
            device=job.device,
            precision=job.precision,
            preset=CONFIGURATIONS[job.implementation][1],
        )
        self._prepare = Preprocessing(self._segmenter.metadata, self._segmenter.device)
        self.precision = self._segmenter.precision

    def prepare(self, image: NDArray[np.uint8]) -> Callable[[], Any]:
        """Returns a function that runs the backend; on a GPU as a CUDA graph like the segmenter."""
        run = partial(self._segmenter._runner.scores, self._prepare([image]))
        if self._segmenter.device.type != 'cuda':
            return run
        self._segmenter.warm_up(*image.shape[:2])
        return _captured(run)

    def network(self, prepared: Callable[[], Any]) -> Any:
        """Runs the backend."""
        return prepared()

    def image(self, image: NDArray[np.uint8]) -> Any:
        """Segments the image."""
        return self._segmenter.segment(image).mask()


class Eager:
    """The network of this package at output stride 8 in eager PyTorch, without optimisation."""

    precision = 'fp32'

    def __init__(self, job: Job) -> None:
        """Loads the weights."""
        import torch

        from rock_seg_ros.perception.inference.model import restore
        from rock_seg_ros.perception.inference.preprocessing import Preprocessing
        from rock_seg_ros.perception.inference.weights_file import load_weights

        weights = load_weights(job.weights or RESNET)
        self._model = restore(weights.metadata, weights.state, 8).to(job.device)
        self._prepare = Preprocessing(weights.metadata, torch.device(job.device))

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Normalises the image."""
        return self._prepare([image]).contiguous()

    def network(self, prepared: Any) -> Any:
        """Runs the module."""
        import torch

        with torch.no_grad():
            return self._model(prepared)['out']


class MatrixProduct:
    """A product of two large square matrices, which measures the peak rate of the machine."""

    def __init__(self, job: Job) -> None:
        """Creates the matrices."""
        import torch

        side = PRODUCT_SIDE[job.device]
        kind = torch.float16 if job.device == 'cuda' else torch.float32
        self.precision = 'fp16' if job.device == 'cuda' else 'fp32'
        self._factors = [torch.rand(side, side, device=job.device).to(kind) for _ in range(2)]

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Does nothing."""

    def network(self, prepared: Any) -> Any:
        """Multiplies the matrices."""
        return self._factors[0] @ self._factors[1]


def load(job: Job) -> Any:
    """Loads an implementation, which has the methods that the module describes."""
    if job.implementation == 'torchvision':
        from rock_seg_ros.tools.bench.programs.torchvision_call import TorchvisionCall

        return TorchvisionCall(job.device)
    return {'matrix product': MatrixProduct, 'eager': Eager}.get(job.implementation, Preset)(job)


class ImplementationProcess:
    """An implementation in its own process.

    Attributes:
        job: The implementation.
        precision: Its precision, known after `await_loaded`.
    """

    def __init__(self, job: Job) -> None:
        """Starts the process, which loads the implementation."""
        self.job = job
        self.precision = ''
        context = multiprocessing.get_context('spawn')  # threads and CUDA do not work after a fork
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_connection, job), daemon=True)
        # The process inherits SIG_IGN, because this process handles Ctrl-C.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        child_connection.close()

    def await_loaded(self) -> None:
        """Waits until the implementation is loaded.

        Raises:
            BenchError: It could not be loaded; the message has the reason.
        """
        if not self._connection.poll(LOAD_TIMEOUT):
            raise BenchError(f'{self.job.implementation}: not loaded after {LOAD_TIMEOUT:.0f} s')
        self.precision = self._answer()

    def run(self, step: str, size: Size) -> Run:
        """Measures one run.

        Args:
            step: 'network' or 'image'.
            size: Width and height, px.

        Raises:
            BenchError: The run failed; the message has the reason.
        """
        self._connection.send((step, size))
        return Run(*self._answer())

    def stop(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.terminate()
        self._process.join(STOP_TIMEOUT)

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise BenchError(f'{self.job.implementation}: the process ended unexpectedly') from None
        if isinstance(answer, BenchError):
            raise BenchError(f'{self.job.implementation}: {answer}')
        return answer


def read_scaled(image: Path, size: Size) -> NDArray[np.uint8]:
    """Reads an image and scales it to width and height: H×W×3 uint8 RGB.

    Raises:
        OSError: The file cannot be read.
    """
    bgr = cv2.imread(str(image), cv2.IMREAD_COLOR)
    if bgr is None:
        raise OSError(f'{image}: not an image')
    return cv2.cvtColor(cv2.resize(bgr, size), cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _serve(connection: Connection, job: Job) -> None:
    """Loads the implementation and serves measurements until the connection is closed."""
    try:
        implementation = load(job)
        connection.send(implementation.precision)
        prepared_size: Size | None = None
        while True:
            step, size = connection.recv()
            if size != prepared_size:
                image, prepared_size = read_scaled(job.image, size), size
                prepared = implementation.prepare(image)
            value = prepared if step == 'network' else image
            connection.send(_measure(getattr(implementation, step), value, job.device))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001  (any error is reported to the parent)
        connection.send(BenchError(first_line(error)))


def _measure(run: Callable[[Any], Any], value: Any, device: str) -> tuple[float, float]:
    import torch

    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    synchronize()
    start = time.perf_counter()
    result = run(value)
    synchronize()
    seconds = time.perf_counter() - start
    del result
    return seconds, rss_mb()


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """Captures `run` as a CUDA graph; returns a function that replays it."""
    import torch

    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            run()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph, stream=stream):
        result = run()

    def replay() -> Any:
        graph.replay()
        return result

    return replay
