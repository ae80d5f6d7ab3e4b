# SPDX-License-Identifier: Apache-2.0
"""The networks that `rock_seg bench` compares.

Each one runs in its own process, so that it shares no memory and no threads with the others and is
idle while they run. Its class has `precision` and these methods:

* `prepare(image)` converts H×W×3 uint8 RGB to the input of `network`. It is not timed.
* `network(prepared)` runs only the network.
* `image(image)` segments an image, from H×W×3 uint8 RGB to the mask in memory.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bench.timing import Run, Size, rss_mb
from rock_seg_ros.tools.node_process import interrupts_held

TORCHVISION, PRODUCT = 'torchvision', 'matrix product'
RESNET, LIGHT = 'resnet50', 'light'
# Name in the results → embedded weights and preset.
PRESETS = {
    'exact': (RESNET, 'exact'),
    'balanced': (RESNET, 'balanced'),
    'fast': (RESNET, 'fast'),
    'light': (LIGHT, 'balanced'),
    'light_fast': (LIGHT, 'fast'),
}
PRODUCT_SIDE = 8192  # large enough to reach the peak rate of a GPU


class BenchError(ValueError):
    """A measurement failed; the message is one line with the reason."""


@dataclass(frozen=True)
class Contender:
    """Describes a network to the process that loads it.

    Attributes:
        name: 'torchvision', 'matrix product' or a name in `PRESETS`.
        device: 'cpu' or 'cuda'.
        weights: Weights file or name of embedded weights; empty for the first two.
        preset: Preset of this package.
        precision: 'auto' = the one of the preset; empty = no network.
        slow: Whether it takes so long for a large image that it is measured only at the first size.
    """

    name: str
    device: str
    weights: str = ''
    preset: str = ''
    precision: str = 'auto'
    slow: bool = False


def choose_contenders(presets: Sequence[str], weights: str, device: str) -> list[Contender]:
    """Returns the networks that are compared on a device.

    Args:
        presets: Names in `PRESETS`.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.
        device: 'cpu' or 'cuda'.
    """
    on_cpu = device == 'cpu'
    chosen = [Contender(TORCHVISION, device, slow=on_cpu)]
    for name in presets:
        embedded, preset = PRESETS[name]
        file = weights if weights and embedded == RESNET else embedded
        contender = Contender(name, device, file, preset, slow=on_cpu and name == 'exact')
        chosen.append(contender)
        if device == 'cuda' and name == 'exact':
            chosen += [replace(contender, precision='fp16'), Contender(PRODUCT, device)]
    return chosen


class Torchvision:
    """DeepLabV3-ResNet50 of torchvision, called as in its documentation, in eager mode and fp32.

    https://docs.pytorch.org/vision/stable/models.html#semantic-segmentation: initialise the model,
    `eval()`, preprocess, batch, `model(batch)['out']`, softmax. Two changes make it faster: images
    keep their size (the transforms enlarge them to 520 px by default), and no gradients are
    recorded. Random weights take as long as trained ones. The output stride is 8.
    """

    precision = 'fp32'

    def __init__(self, contender: Contender) -> None:
        """Initialises the model and the transforms."""
        from torchvision.models.segmentation import deeplabv3_resnet50
        from torchvision.transforms._presets import SemanticSegmentation

        self._device = contender.device
        model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=2)
        self._model = model.eval().to(contender.device)
        self._preprocess = SemanticSegmentation(resize_size=None)

    def prepare(self, image: NDArray[np.uint8]) -> Any:
        """Preprocesses H×W×3 uint8 RGB to 1×3×H×W float32 on the device."""
        import torch

        pixels = torch.from_numpy(image).permute(2, 0, 1)
        return self._preprocess(pixels).unsqueeze(0).to(self._device)

    def network(self, batch: Any) -> Any:
        """Returns 1×2×H×W logits of a 1×3×H×W batch."""
        import torch

        with torch.no_grad():
            return self._model(batch)['out']

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Segments H×W×3 uint8 RGB; returns H×W bool, True for class 1."""
        normalized_masks = self.network(self.prepare(image)).softmax(dim=1)
        return (normalized_masks[0].argmax(dim=0) == 1).cpu().numpy()


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

    def network(self, prepared: Callable[[], Any]) -> Any:
        """Runs the backend."""
        return prepared()

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Segments the image."""
        return self._segmenter.segment(image).mask()


class MatrixProduct:
    """A product of two large fp16 matrices, which measures the peak rate of a GPU."""

    precision = 'fp16'

    def __init__(self, contender: Contender) -> None:
        """Creates the matrices."""
        import torch

        shape = (PRODUCT_SIDE, PRODUCT_SIDE)
        self._factors = torch.rand(2, *shape, device=contender.device, dtype=torch.float16)

    def prepare(self, image: NDArray[np.uint8]) -> None:
        """Does nothing."""

    def network(self, prepared: None) -> Any:
        """Multiplies the matrices."""
        return self._factors[0] @ self._factors[1]


def load(contender: Contender) -> Any:
    """Loads a network, which has the methods that the module describes."""
    classes = {TORCHVISION: Torchvision, PRODUCT: MatrixProduct}
    return classes.get(contender.name, Preset)(contender)


def roofline_ms(product_ms: float, weights: str, size: Size) -> float:
    """Returns the time of the network of `exact` at the rate of the matrix product, ms.

    Args:
        product_ms: Time of the matrix product, ms.
        weights: Weights file or name of embedded weights.
        size: Width and height of the image, px.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from rock_seg_ros.perception.inference.model import build
    from rock_seg_ros.perception.inference.presets import preset_stride
    from rock_seg_ros.perception.inference.weights_file import load_weights

    metadata = load_weights(weights).metadata
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build(metadata, preset_stride('exact', metadata)).eval()
        model(torch.empty(1, 3, size[1], size[0]))
    return product_ms * counter.get_total_flops() / (2 * PRODUCT_SIDE**3)


class Worker:
    """A network in its own process. Use it as a context manager, which ends the process.

    Attributes:
        contender: The network.
    """

    def __init__(self, contender: Contender) -> None:
        """Starts the process, which loads the network."""
        self.contender = contender
        context = multiprocessing.get_context('spawn')  # threads and CUDA do not work after a fork
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child_connection, contender), daemon=True
        )
        with interrupts_held():
            resource_tracker.ensure_running()  # it would unblock the signal
            # The process inherits that Ctrl-C is blocked, because this process handles it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child_connection.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def await_loaded(self) -> str:
        """Waits until the network is loaded; returns its precision.

        Raises:
            BenchError: It could not be loaded; the message has the reason.
        """
        return self._answer()

    def run(self, kind: str, image: NDArray[np.uint8]) -> Run:
        """Measures one run.

        Args:
            kind: 'network' or 'image'.
            image: H×W×3 uint8 RGB.

        Raises:
            BenchError: The run failed; the message has the reason.
        """
        self._connection.send((kind, image))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise BenchError(f'{self.contender.name}: the process ended unexpectedly') from None
        if isinstance(answer, BenchError):
            raise BenchError(f'{self.contender.name}: {answer}')
        return answer


def _serve(connection: Connection, contender: Contender) -> None:
    """Loads the network and serves measurements until the other process closes the connection."""
    with suppress(EOFError, BrokenPipeError):
        try:
            network = load(contender)
            connection.send(network.precision)
            shape, prepared = None, None
            while True:
                kind, image = connection.recv()
                if image.shape != shape:
                    shape, prepared = image.shape, network.prepare(image)
                value = prepared if kind == 'network' else image
                connection.send(_measure(partial(getattr(network, kind), value), contender.device))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  (any error is reported to the parent)
            connection.send(BenchError(first_line(error)))


def _measure(run: Callable[[], Any], device: str) -> Run:
    import torch

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
    import torch

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
