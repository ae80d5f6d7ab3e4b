# SPDX-License-Identifier: Apache-2.0
"""Backend for ONNX Runtime, with TensorRT or CUDA on a CUDA device, or on the CPU."""

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
from rock_seg_ros.perception.writing import make_folder

INPUT = 'images'
OUTPUT = 'scores'
CPU, CUDA, TENSORRT = (f'{name}ExecutionProvider' for name in ('CPU', 'CUDA', 'Tensorrt'))
RUN_TIMEOUT = 60.0  # s
# DeepLabV3 opens in seconds. A malicious graph can keep ONNX Runtime busy for hours, because
# constants are computed while it is opened. The node opens a file up to three times.
OPEN_TIMEOUT = 120.0  # s
BUILD_TIMEOUT = 600.0  # s; a Jetson needs minutes to build a TensorRT engine
TEST_SIDE = 64  # side of the image that a graph is tested with, px
MAX_ENGINES = 8  # TensorRT engines in memory; all engines stay on the disk
Provider = tuple[str, dict[str, Any]]


def read_metadata(file: Path) -> dict[str, str]:
    """Returns the key-value metadata of an ONNX file.

    Raises:
        ImportError: onnxruntime is not installed.
        TimeoutError: ONNX Runtime does not finish opening the graph.
        Exception: The file is not an ONNX graph (exceptions of ONNX Runtime).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _open_session(file, options, OPEN_TIMEOUT, providers=[CPU])
    return dict(session.get_modelmeta().custom_metadata_map)


def _open_session(file: Path, options: Any, limit: float, **arguments: Any) -> Any:
    """Opens a graph, and waits at most `limit` s.

    Opening cannot be interrupted. After the limit, its thread continues and keeps its memory until
    the graph is open or the process ends.

    Raises:
        TimeoutError: Opening takes longer.
        Exception: The graph cannot be opened (exceptions of ONNX Runtime).
    """
    import onnxruntime

    session: Future[Any] = Future()

    def open_graph() -> None:
        try:
            session.set_result(onnxruntime.InferenceSession(str(file), options, **arguments))
        except BaseException as error:  # noqa: BLE001  (raised in the waiting thread)
            session.set_exception(error)

    threading.Thread(target=open_graph, name='open ONNX graph', daemon=True).start()
    try:
        return session.result(limit)
    except TimeoutError:
        raise TimeoutError(
            f'ONNX Runtime did not finish opening the graph within {limit:g} s'
        ) from None


def choose_providers(device: torch.device, available: Sequence[str], tensorrt: bool) -> list[str]:
    """Returns the execution providers to try, fastest first; never the CPU for a CUDA device.

    Args:
        device: The device of the network.
        available: The providers that ONNX Runtime was built with.
        tensorrt: Whether the package tensorrt is installed and loaded.
    """
    wanted = [TENSORRT, CUDA] if device.type == 'cuda' else [CPU]
    return [name for name in wanted if name in available and (name != TENSORRT or tensorrt)]


def can_use_cuda() -> bool:
    """Returns whether ONNX Runtime is installed and was built with CUDA."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return bool({CUDA, TENSORRT} & set(onnxruntime.get_available_providers()))


def load_tensorrt() -> bool:
    """Loads the libraries of the package tensorrt, which ONNX Runtime does not find itself.

    Returns:
        Whether the package is installed and could be loaded.
    """
    try:
        importlib.import_module('tensorrt')
    except (ImportError, OSError):
        return False
    return True


def provider_options(name: str, device: torch.device, half: bool, engines: Path) -> Provider:
    """Returns an execution provider with its options.

    Args:
        name: Name of the provider.
        device: The device of the network.
        half: Whether TensorRT may compute in fp16.
        engines: Folder in which TensorRT stores the engines, which take minutes to build.
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
            'trt_timing_cache_path': str(engines.parent),  # shared by all image sizes
        }
    return name, options


def engine_folder(file: Path, shape: Sequence[int], gpu: str) -> Path:
    """Returns the folder of the engines of a graph for an image shape on a GPU.

    Args:
        file: The ONNX file; the folder depends on its content, not on its name.
        shape: N, 3, H and W of the images.
        gpu: Name of the GPU.
    """
    base = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    model = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    size = 'x'.join(map(str, shape))
    return base / 'rock_seg_ros' / 'tensorrt' / model / re.sub(r'\W+', '-', gpu) / size


class OnnxBackend:
    """The graph of an ONNX file. Its output stride is fixed by the export."""

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
            weights: The weights of an ONNX file.
            device: A CUDA device (with onnxruntime-gpu) or the CPU.
            precision: 'auto' (fp16 with TensorRT, else fp32), 'fp32', or 'fp16' (TensorRT only).
            output_stride: 0, or the output stride of the export.
            parts: Must be false: the parts of the graph cannot be run separately.

        Raises:
            WeightsError: The file is not a usable ONNX file, or does not support an argument.
        """
        if not weights.is_onnx:
            raise WeightsError(
                f"{weights.path}: backend 'onnx' needs an .onnx file; see training.export"
            )
        if output_stride not in (0, weights.metadata.output_stride):
            raise WeightsError(
                f'{weights.path}: was exported with output stride {weights.metadata.output_stride},'
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
            raise WeightsError(f'{weights.path}: ONNX Runtime does not provide {wanted} here')
        halves = ('auto', 'fp16') if TENSORRT in self._providers else ()
        if precision not in ('auto', 'fp32', *halves):
            raise WeightsError(
                f"{weights.path}: is fp32; precision must be 'auto' or 'fp32', not {precision!r}"
            )
        self.device = device
        self.precision = 'fp16' if precision in halves else 'fp32'
        self._file = weights.path
        self._channels = weights.metadata.channels
        self._engines: OrderedDict[tuple[int, ...], Any] = (
            OrderedDict()
        )  # least recently used first
        self._requested: set[tuple[int, ...]] = set()  # shapes whose engine is built or being built
        self._engines_lock = threading.Lock()
        self._build_lock = threading.Lock()
        if TENSORRT in self._providers:
            self._open(self._providers, self._file.parent)  # checks that TensorRT starts
        others = [name for name in self._providers if name != TENSORRT]
        self._any_shape = self._open(others or self._providers, self._file.parent)
        self._test_run()

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 logits."""
        images = images.contiguous()
        shape = tuple(images.shape)
        result = self._empty_logits(shape)
        self._run(self._session(shape), images, result, RUN_TIMEOUT)
        return result

    def _test_run(self) -> None:
        """Runs the graph once; raises WeightsError if it fails or the logits are not finite."""
        shape = (1, 3, TEST_SIDE, TEST_SIDE)
        result = self._empty_logits(shape)
        try:
            self._run(self._any_shape, torch.zeros(shape, device=self.device), result, RUN_TIMEOUT)
        except Exception as error:  # noqa: BLE001  (ONNX Runtime's errors have no common base)
            raise WeightsError(f'{self._file}: the graph fails: {first_line(error)}') from None
        if not result.isfinite().all():
            raise WeightsError(f'{self._file}: its logits are not finite; the file is damaged')

    def _run(self, session: Any, images: Tensor, result: Tensor, limit: float) -> None:
        import onnxruntime

        binding = session.io_binding()
        where = (self.device.type, self.device.index or 0, np.float32)
        name = session.get_inputs()[0].name  # 'pictures' in files of the first version
        binding.bind_input(name, *where, tuple(images.shape), images.data_ptr())
        binding.bind_output(OUTPUT, *where, tuple(result.shape), result.data_ptr())
        if self.device.type == 'cuda':  # ONNX Runtime uses another stream
            torch.cuda.current_stream(self.device).synchronize()
        options = onnxruntime.RunOptions()
        # A graph may contain endless loops. A run that is terminated ends between two nodes.
        timer = threading.Timer(limit, setattr, (options, 'terminate', True))
        timer.daemon = True
        timer.start()
        try:
            session.run_with_iobinding(binding, options)
        finally:
            timer.cancel()

    def _session(self, shape: tuple[int, ...]) -> Any:
        """Returns the fastest session that is ready for an image shape.

        TensorRT builds an engine for each shape, which may take minutes. The first engine is built
        at once, because the warm-up requests it. The others are built in the background; until
        they are ready, or if a build fails, images are processed without TensorRT.
        """
        if TENSORRT not in self._providers:
            return self._any_shape
        with self._engines_lock:
            if shape in self._engines:
                self._engines.move_to_end(shape)
                return self._engines[shape]
            requested, first = shape in self._requested, not self._requested
            self._requested.add(shape)
        if first:
            return self._build(shape)
        if not requested:
            threading.Thread(target=self._build_in_background, args=(shape,), daemon=True).start()
        return self._any_shape

    def _build(self, shape: tuple[int, ...]) -> Any:
        """Builds an engine or reads it from the disk, by a run; drops the least recently used."""
        folder = engine_folder(self._file, shape, torch.cuda.get_device_name(self.device))
        make_folder(folder)
        with self._build_lock:
            session = self._open(self._providers, folder)
            images = torch.zeros(shape, device=self.device)
            self._run(session, images, self._empty_logits(shape), BUILD_TIMEOUT)
        with self._engines_lock:
            self._engines[shape] = session
            if len(self._engines) > MAX_ENGINES:
                dropped, _ = self._engines.popitem(last=False)
                self._requested.discard(dropped)
        return session

    def _build_in_background(self, shape: tuple[int, ...]) -> None:
        try:
            self._build(shape)
        except Exception as error:  # noqa: BLE001  (images are processed without it)
            size = f'{shape[0]}×{shape[3]}×{shape[2]}'
            warnings.warn(
                f'TensorRT engine for {size} failed, running without it: {first_line(error)}',
                stacklevel=1,
            )

    def _empty_logits(self, shape: tuple[int, ...]) -> Tensor:
        """Returns an uninitialized tensor for the logits of N×3×H×W images."""
        return torch.empty((shape[0], self._channels, *shape[2:]), device=self.device)

    def _open(self, names: Sequence[str], engines: Path) -> Any:
        """Opens the graph; raises WeightsError if the first of the providers does not start."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_from_environment() or len(os.sched_getaffinity(0))
        # Threads that spin between images would block the cores that receive the next image.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        half = self.precision == 'fp16'
        providers = [provider_options(name, self.device, half, engines) for name in names]
        try:
            # The fallback would use another provider without these options, such as the device.
            limit = BUILD_TIMEOUT if names[0] == TENSORRT else OPEN_TIMEOUT
            session = _open_session(
                self._file, options, limit, providers=providers, enable_fallback=0
            )
        except Exception as error:  # noqa: BLE001  (ONNX Runtime's errors have no common base)
            raise WeightsError(f'{self._file}: {first_line(error)}') from None
        if session.get_providers()[0] != names[0]:  # ONNX Runtime silently uses the next one
            raise WeightsError(f'{self._file}: ONNX Runtime could not start {names[0]}')
        return session
