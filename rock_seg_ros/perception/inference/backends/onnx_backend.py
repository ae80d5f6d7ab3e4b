# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: TensorRT or CUDA on a CUDA device, or the CPU."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.backends import threads_from_environment
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError

INPUT = 'images'
OUTPUT = 'scores'
CPU, CUDA, TENSORRT = (f'{name}ExecutionProvider' for name in ('CPU', 'CUDA', 'Tensorrt'))
RUN_TIMEOUT = 60.0  # s
# s. DeepLabV3 opens in seconds. A graph can keep ONNX Runtime busy for hours, since constants are
# computed while it is opened. A node opens a file up to three times within its limit for loading.
OPEN_TIMEOUT = 120.0
BUILD_TIMEOUT = 600.0  # s, of a TensorRT engine; a Jetson needs minutes
SMALL = 64  # px, of the image that a graph is tried out on
MAX_ENGINES = 8  # of TensorRT, in memory; those on the disk stay
Provider = tuple[str, dict[str, Any]]


def read_metadata(file: Path) -> dict[str, str]:
    """Returns the key-value metadata of an ONNX file.

    Raises:
        ImportError: onnxruntime is not installed.
        TimeoutError: ONNX Runtime does not finish opening the graph.
        Exception: ONNX Runtime's own, when the file is no ONNX graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _open_session(file, options, OPEN_TIMEOUT, providers=[CPU])
    return dict(session.get_modelmeta().custom_metadata_map)


def _open_session(file: Path, options: Any, limit: float, **arguments: Any) -> Any:
    """Opens a graph, and waits for that no longer than `limit` s.

    Opening cannot be interrupted. The thread of a graph that takes longer is abandoned: it goes on
    computing, and keeps its memory, until the graph is open or the process ends.

    Raises:
        TimeoutError: Opening takes too long.
        Exception: ONNX Runtime's own.
    """
    import onnxruntime

    session: Future[Any] = Future()

    def open_graph() -> None:
        try:
            session.set_result(onnxruntime.InferenceSession(str(file), options, **arguments))
        except BaseException as error:  # noqa: BLE001  (raised in the thread that waits)
            session.set_exception(error)

    threading.Thread(target=open_graph, name='open ONNX graph', daemon=True).start()
    try:
        return session.result(limit)
    except TimeoutError:
        raise TimeoutError(
            f'ONNX Runtime did not finish opening the graph within {limit:g} s'
        ) from None


def choose_providers(device: torch.device, available: Sequence[str], tensorrt: bool) -> list[str]:
    """Returns the providers to be tried, the quickest first; never the CPU for a CUDA device.

    Args:
        device: Where the network runs.
        available: What this ONNX Runtime was built with.
        tensorrt: Whether TensorRT's own package is installed and loaded.
    """
    wanted = [TENSORRT, CUDA] if device.type == 'cuda' else [CPU]
    return [name for name in wanted if name in available and (name != TENSORRT or tensorrt)]


def can_use_cuda() -> bool:
    """Returns whether ONNX Runtime is installed here and was built for CUDA."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return bool({CUDA, TENSORRT} & set(onnxruntime.get_available_providers()))


def load_tensorrt() -> bool:
    """Loads the libraries of TensorRT's package, which ONNX Runtime does not find by itself.

    Returns:
        Whether the package is there and could be loaded.
    """
    try:
        importlib.import_module('tensorrt')
    except (ImportError, OSError):
        return False
    return True


def provider_options(name: str, device: torch.device, half: bool, engines: Path) -> Provider:
    """Returns a provider with its options.

    Args:
        name: Of the provider.
        device: Where the network runs.
        half: Whether TensorRT may compute in fp16.
        engines: Folder where TensorRT keeps what it built, which takes it minutes.
    """
    if name == CPU:
        return name, {}
    options: dict[str, Any] = {'device_id': device.index or 0}
    if name == TENSORRT:
        options |= {
            'trt_fp16_enable': half,
            'trt_engine_cache_enable': True,
            'trt_engine_cache_path': str(engines),
            'trt_timing_cache_enable': True,
            'trt_timing_cache_path': str(engines.parent),  # what was timed for one size serves all
        }
    return name, options


def engine_folder(file: Path, shape: Sequence[int], gpu: str) -> Path:
    """Returns where the engines of a graph for an image shape on a GPU are kept.

    Args:
        file: The ONNX file; its content counts, not its name.
        shape: N, 3, H and W of the images.
        gpu: Name of the GPU.
    """
    base = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    model = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    size = 'x'.join(map(str, shape))
    return base / 'rock_seg_ros' / 'tensorrt' / model / re.sub(r'\W+', '-', gpu) / size


class OnnxBackend:
    """The graph of an ONNX file, whose output stride is that of its export."""

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: str,
        output_stride: int,
        parts: bool = False,
    ) -> None:
        """Opens the graph.

        Args:
            weights: Of an ONNX file.
            device: A CUDA device (with onnxruntime-gpu) or the CPU.
            precision: 'auto' (fp16 with TensorRT, else fp32), 'fp32', or 'fp16' (TensorRT only).
            output_stride: 0, or what the file was exported with.
            parts: Must be false: the graph runs as a whole only.

        Raises:
            WeightsError: The file is none, or an argument asks for what it is not.
        """
        if not weights.is_onnx:
            raise WeightsError(
                f"{weights.path}: backend 'onnx' needs an .onnx file; see training.export"
            )
        if output_stride not in (0, weights.metadata.output_stride):
            raise WeightsError(
                f'{weights.path}: was exported at output stride {weights.metadata.output_stride},'
                f' not {output_stride}'
            )
        if parts:
            raise WeightsError(f'{weights.path}: tile must be 0 with an ONNX file')
        import onnxruntime

        available = onnxruntime.get_available_providers()
        tensorrt = device.type == 'cuda' and TENSORRT in available and load_tensorrt()
        self._providers = choose_providers(device, available, tensorrt)
        if not self._providers:
            wanted = CUDA if device.type == 'cuda' else CPU
            raise WeightsError(f'{weights.path}: ONNX Runtime has no {wanted} here')
        halves = ('auto', 'fp16') if TENSORRT in self._providers else ()
        if precision not in ('auto', 'fp32', *halves):
            raise WeightsError(
                f"{weights.path}: is fp32; precision must be 'auto', not {precision!r}"
            )
        self.device = device
        self.precision = 'fp16' if precision in halves else 'fp32'
        self._file = weights.path
        self._channels = weights.metadata.channels
        self._engines: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # the newest used is last
        self._begun: set[tuple[int, ...]] = set()
        self._changing = threading.Lock()
        self._building = threading.Lock()
        if TENSORRT in self._providers:
            self._open(self._providers, self._file.parent)  # whether it starts at all
        others = [name for name in self._providers if name != TENSORRT]
        self._any_shape = self._open(others or self._providers, self._file.parent)
        self._try_out()

    def scores(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
        images = images.contiguous()
        shape = tuple(images.shape)
        result = self._room(shape)
        self._run(self._session(shape), images, result, RUN_TIMEOUT)
        return result

    def _try_out(self) -> None:
        """Runs the graph once; raises WeightsError where it does not end or gives no numbers."""
        shape = (1, 3, SMALL, SMALL)
        result = self._room(shape)
        try:
            self._run(self._any_shape, torch.zeros(shape, device=self.device), result, RUN_TIMEOUT)
        except Exception as error:  # noqa: BLE001  its own errors share no base class
            raise WeightsError(f'{self._file}: does not run: {first_line(error)}') from None
        if not result.isfinite().all():
            raise WeightsError(f'{self._file}: its scores are not finite: the file is damaged')

    def _run(self, session: Any, images: Tensor, result: Tensor, limit: float) -> None:
        import onnxruntime

        binding = session.io_binding()
        where = (self.device.type, self.device.index or 0, np.float32)
        name = session.get_inputs()[0].name  # 'pictures' in files of the first version
        binding.bind_input(name, *where, tuple(images.shape), images.data_ptr())
        binding.bind_output(OUTPUT, *where, tuple(result.shape), result.data_ptr())
        if self.device.type == 'cuda':  # ONNX Runtime works on a stream of its own
            torch.cuda.current_stream(self.device).synchronize()
        options = onnxruntime.RunOptions()
        # What loops in a graph is its maker's; a run that is told to end does so between two nodes.
        ending = threading.Timer(limit, setattr, (options, 'terminate', True))
        ending.daemon = True
        ending.start()
        try:
            session.run_with_iobinding(binding, options)
        finally:
            ending.cancel()

    def _session(self, shape: tuple[int, ...]) -> Any:
        """Returns the quickest session that is ready for an image shape.

        TensorRT builds an engine for each, which may take minutes. The first is waited for, as a
        network is warmed before images come; the others are built beside, and meanwhile, or
        where that fails, images are worked on without TensorRT.
        """
        if TENSORRT not in self._providers:
            return self._any_shape
        with self._changing:
            if shape in self._engines:
                self._engines.move_to_end(shape)
                return self._engines[shape]
            begun, first = shape in self._begun, not self._begun
            self._begun.add(shape)
        if first:
            return self._build(shape)
        if not begun:
            threading.Thread(target=self._build_beside, args=(shape,), daemon=True).start()
        return self._any_shape

    def _build(self, shape: tuple[int, ...]) -> Any:
        """Builds an engine, or reads it from the disk, by a run; forgets the least used one."""
        folder = engine_folder(self._file, shape, torch.cuda.get_device_name(self.device))
        folder.mkdir(parents=True, exist_ok=True)
        with self._building:
            session = self._open(self._providers, folder)
            images = torch.zeros(shape, device=self.device)
            self._run(session, images, self._room(shape), BUILD_TIMEOUT)
        with self._changing:
            self._engines[shape] = session
            if len(self._engines) > MAX_ENGINES:
                forgotten, _ = self._engines.popitem(last=False)
                self._begun.discard(forgotten)
        return session

    def _build_beside(self, shape: tuple[int, ...]) -> None:
        try:
            self._build(shape)
        except Exception as error:  # noqa: BLE001  (images are worked on without it)
            size = f'{shape[0]}×{shape[3]}×{shape[2]}'
            warnings.warn(f'no TensorRT engine for {size}: {first_line(error)}', stacklevel=1)

    def _room(self, shape: tuple[int, ...]) -> Tensor:
        """Returns where the scores of N×3×H×W images are written."""
        return torch.empty((shape[0], self._channels, *shape[2:]), device=self.device)

    def _open(self, names: Sequence[str], engines: Path) -> Any:
        """Opens the graph; raises WeightsError where the first of the providers does not start."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_from_environment() or len(os.sched_getaffinity(0))
        # Threads that spin between images would take the cores that receive the next one.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        half = self.precision == 'fp16'
        providers = [provider_options(name, self.device, half, engines) for name in names]
        try:
            # Its fallback would be to another provider without these options, such as the device.
            limit = BUILD_TIMEOUT if names[0] == TENSORRT else OPEN_TIMEOUT
            session = _open_session(
                self._file, options, limit, providers=providers, enable_fallback=0
            )
        except Exception as error:  # noqa: BLE001  its own errors share no base class
            raise WeightsError(f'{self._file}: {first_line(error)}') from None
        if session.get_providers()[0] != names[0]:  # it takes the next without a word
            raise WeightsError(f'{self._file}: ONNX Runtime could not start {names[0]}')
        return session
