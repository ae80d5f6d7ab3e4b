# SPDX-License-Identifier: Apache-2.0
"""What `rock_seg bench` compares within a process: each contender lives in one of its own.

So each has its memory and its threads to itself, and stands still while another one runs.
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
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line

RESNET, LIGHT = 'resnet50', 'light'

Size = tuple[int, int]
LOAD_TIMEOUT = 300.0
STOP_TIMEOUT = 5.0
# A product this large runs at the machine's full rate; on the CPU it still ends within a second.
PRODUCT_SIDE = {'cpu': 2048, 'cuda': 8192}
# What is measured of the package: name → embedded weights and preset.
CONFIGURATIONS = {
    'exact': (RESNET, 'exact'),
    'balanced': (RESNET, 'balanced'),
    'fast': (RESNET, 'fast'),
    'light': (LIGHT, 'balanced'),
    'light_fast': (LIGHT, 'fast'),
}


class BenchError(ValueError):
    """Something that could not be measured; the message is one line that says why."""


class Run(NamedTuple):
    """One measurement.

    Attributes:
        seconds: It took.
        rss_mb: Resident memory of the process that did it, after it.
    """

    seconds: float
    rss_mb: float


@dataclass(frozen=True)
class Job:
    """Which contender is made; goes to its process.

    Attributes:
        who: 'torchvision', 'eager', 'matrix product' or one of `CONFIGURATIONS`.
        device: 'cpu' or 'cuda'.
        precision: Asked of a preset, 'auto' = its own.
        weights: File that takes the place of the embedded ResNet-50; empty = none.
        image: File of the image that is scaled to each size.
    """

    who: str
    device: str
    precision: str
    weights: str
    image: Path


def weights_of(who: str, weights: str) -> str:
    """Returns the weights of a configuration; `weights`, if given, replaces ResNet-50."""
    embedded = CONFIGURATIONS[who][0]
    return weights if weights and embedded == RESNET else embedded


class Implementation(Protocol):
    """What is measured."""

    precision: str

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Does what is not timed; returns what `network` takes."""

    def network(self, prepared: Any) -> Any:
        """Runs the network alone."""

    def image(self, image: NDArray[np.uint8]) -> Any:
        """Goes the whole way from H×W×3 uint8 RGB to a mask in memory."""


class Preset:
    """The package's own way."""

    def __init__(self, job: Job) -> None:
        """Loads the weights."""
        from rock_seg_ros.perception.inference.preparation import Preparation
        from rock_seg_ros.perception.inference.segmenter import Segmenter
        from rock_seg_ros.perception.inference.weights_file import load_weights

        self._segmenter = Segmenter(
            load_weights(weights_of(job.who, job.weights)),
            device=job.device,
            precision=job.precision,
            preset=CONFIGURATIONS[job.who][1],
        )
        self._prepare = Preparation(self._segmenter.card, self._segmenter.device)
        self.precision = self._segmenter.precision

    def prepare(self, image: NDArray[np.uint8]) -> Callable[[], Any]:
        """Returns what runs the backend; as a graph on CUDA, where the segmenter captures one."""
        run = partial(self._segmenter._runner.scores, self._prepare([image]))
        if self._segmenter.device.type != 'cuda':
            return run
        self._segmenter.warm(*image.shape[:2])
        return _captured(run)

    def network(self, prepared: Callable[[], Any]) -> Any:
        """Runs the backend."""
        return prepared()

    def image(self, image: NDArray[np.uint8]) -> Any:
        """Segments it."""
        return self._segmenter.segment(image).mask()


class Eager:
    """The package's own network at output stride 8, as PyTorch runs it when nothing is done."""

    precision = 'fp32'

    def __init__(self, job: Job) -> None:
        """Loads the weights."""
        import torch

        from rock_seg_ros.perception.inference.model import restore
        from rock_seg_ros.perception.inference.preparation import Preparation
        from rock_seg_ros.perception.inference.weights_file import load_weights

        weights = load_weights(job.weights or RESNET)
        self._model = restore(weights.card, weights.state, 8).to(job.device)
        self._prepare = Preparation(weights.card, torch.device(job.device))

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Normalises."""
        return self._prepare([image]).contiguous()

    def network(self, prepared: Any) -> Any:
        """Runs the module."""
        import torch

        with torch.no_grad():
            return self._model(prepared)['out']

    def image(self, image: NDArray[np.uint8]) -> Any:
        """Runs the module on it."""
        return self.network(self.prepare(image))


class Torchvision:
    """torchvision's, see `programs/torchvision_call.py`."""

    def __init__(self, job: Job) -> None:
        """Makes random weights."""
        from rock_seg_ros.tools.bench.programs.torchvision_call import TorchvisionCall

        call = TorchvisionCall(job.device)
        self.precision: str = call.precision
        self.prepare: Callable[[NDArray[np.uint8]], Any] = call.batch
        self.network: Callable[[Any], Any] = call.scores
        self.image: Callable[[NDArray[np.uint8]], Any] = call.mask


class MatrixProduct:
    """A product of two large square matrices: the rate that the machine reaches at best."""

    def __init__(self, job: Job) -> None:
        """Makes the matrices."""
        import torch

        side = PRODUCT_SIDE[job.device]
        kind = torch.float16 if job.device == 'cuda' else torch.float32
        self.precision = 'fp16' if job.device == 'cuda' else 'fp32'
        self._factors = [torch.rand(side, side, device=job.device).to(kind) for _ in range(2)]

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Has nothing to do."""

    def network(self, prepared: Any) -> Any:
        """Multiplies."""
        return self._factors[0] @ self._factors[1]

    def image(self, image: NDArray[np.uint8]) -> Any:
        """Multiplies."""
        return self.network(None)


KINDS: dict[str, Callable[[Job], Implementation]] = {
    'matrix product': MatrixProduct,
    'torchvision': Torchvision,
    'eager': Eager,
}


class ImplementationProcess:
    """A contender in its process.

    Attributes:
        job: Which.
        precision: Of its arithmetic, once `await_loaded` returned.
    """

    def __init__(self, job: Job) -> None:
        """Starts the process, which loads the contender."""
        self.job = job
        self.precision = ''
        context = multiprocessing.get_context('spawn')  # threads and CUDA do not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for this one
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def await_loaded(self) -> None:
        """Waits until it is ready.

        Raises:
            BenchError: It cannot be had; the message says why.
        """
        if not self._connection.poll(LOAD_TIMEOUT):
            raise BenchError(f'{self.job.who}: was not loaded after {LOAD_TIMEOUT:.0f} s')
        self.precision = self._answer()

    def run(self, step: str, size: Size) -> Run:
        """Measures one run.

        Args:
            step: 'network' or 'image'.
            size: Width and height, px.

        Raises:
            BenchError: It failed; the message says why.
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
            raise BenchError(f'{self.job.who}: its process ended') from None
        if isinstance(answer, str) and answer.startswith('!'):
            raise BenchError(f'{self.job.who}: {answer[1:]}')
        return answer


def rss_mb(process: int | str = 'self') -> float:
    """Returns the resident memory of a process in MB (10⁶ bytes); NaN where Linux does not tell."""
    try:
        status = Path(f'/proc/{process}/status').read_text()
    except OSError:
        return float('nan')
    sizes = (int(line.split()[1]) for line in status.splitlines() if line.startswith('VmRSS'))
    return next(sizes, float('nan')) * 1024 / 1e6  # of one that ended, none is told


def scaled(image: Path, size: Size) -> NDArray[np.uint8]:
    """Reads an image and scales it to width and height: H×W×3 uint8 RGB.

    Raises:
        OSError: It cannot be read.
    """
    bgr = cv2.imread(str(image), cv2.IMREAD_COLOR)
    if bgr is None:
        raise OSError(f'{image}: is no image')
    return cv2.cvtColor(cv2.resize(bgr, size), cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _serve(connection: Connection, job: Job) -> None:
    """Loads the contender and measures what is asked until nobody asks any more."""
    try:
        implementation = KINDS.get(job.who, Preset)(job)
        connection.send(implementation.precision)
        at: Size | None = None
        while True:
            step, size = connection.recv()
            if size != at:
                image, at = scaled(job.image, size), size
                prepared = implementation.prepare(image)
            given = prepared if step == 'network' else image
            connection.send(_measure(getattr(implementation, step), given, job.device))
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the answer)
        connection.send('!' + first_line(error))


def _measure(run: Callable[[Any], Any], given: Any, device: str) -> tuple[float, float]:
    import torch

    synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None
    synchronize()
    began = time.perf_counter()
    result = run(given)
    synchronize()
    seconds = time.perf_counter() - began
    del result
    return seconds, rss_mb()


def _captured(run: Callable[[], Any]) -> Callable[[], Any]:
    """Returns what replays work on CUDA as a graph."""
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
