# SPDX-License-Identifier: Apache-2.0
"""The providers of ONNX Runtime, TensorRT engines and invalid graphs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rock_seg_ros.perception.inference.backends import onnx_backend
from rock_seg_ros.perception.inference.backends.onnx_backend import (
    CPU,
    CUDA,
    MAX_ENGINES,
    TENSORRT,
    OnnxBackend,
    choose_providers,
    engine_folder,
    load_tensorrt,
    provider_options,
)
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError, load_weights

ON_CUDA, ON_CPU = torch.device('cuda', 1), torch.device('cpu')
EVERY = [TENSORRT, CUDA, CPU]


@pytest.mark.parametrize(
    ('device', 'available', 'tensorrt', 'tried'),
    [
        (ON_CUDA, EVERY, True, [TENSORRT, CUDA]),
        (ON_CUDA, EVERY, False, [CUDA]),
        (ON_CUDA, [CPU], True, []),
        (ON_CPU, EVERY, True, [CPU]),
    ],
)
def test_tensorrt_precedes_cuda_and_the_cpu_never_replaces_cuda(
    device: torch.device, available: list[str], tensorrt: bool, tried: list[str]
) -> None:
    assert choose_providers(device, available, tensorrt) == tried


def test_tensorrt_caches_engines_and_uses_the_given_precision(tmp_path: Path) -> None:
    name, options = provider_options(TENSORRT, ON_CUDA, half=True, engines=tmp_path)
    assert name == TENSORRT
    assert (options['device_id'], options['trt_fp16_enable']) == (1, True)
    assert options['trt_engine_cache_enable']
    assert options['trt_engine_cache_path'] == str(tmp_path)
    assert options['trt_timing_cache_path'] == str(tmp_path.parent), 'shared by all sizes'
    assert provider_options(TENSORRT, ON_CUDA, False, tmp_path)[1]['trt_fp16_enable'] is False
    assert provider_options(CUDA, ON_CUDA, True, tmp_path) == (CUDA, {'device_id': 1})


def test_cached_engines_depend_on_model_content_shape_and_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    one, copy, other = (tmp_path / f'{name}.onnx' for name in ('one', 'copy', 'other'))
    for file, content in ((one, b'1'), (copy, b'1'), (other, b'2')):
        file.write_bytes(content)
    shape, metadata = (1, 3, 480, 640), 'NVIDIA RTX 4000 / SFF'
    folder = engine_folder(one, shape, metadata)
    assert folder.is_relative_to(tmp_path / 'cache' / 'rock_seg_ros')
    assert engine_folder(copy, shape, metadata) == folder
    different = {
        engine_folder(other, shape, metadata),
        engine_folder(one, (1, 3, 480, 641), metadata),
        engine_folder(one, shape, 'NVIDIA RTX 5000'),
        folder,
    }
    assert len(different) == 4


@pytest.mark.parametrize(
    ('device', 'precision', 'message'),
    [
        ('cuda', 'auto', f'not provide {CUDA} here'),
        ('cpu', 'fp16', "precision must be 'auto' or 'fp32', not 'fp16'"),
    ],
)
def test_an_unsupported_device_or_precision_is_an_error_of_one_line(
    device: str, precision: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: [CPU])
    weights = Weights(Path('w.onnx'), ModelMetadata(), {})
    with pytest.raises(WeightsError, match=f'^w.onnx: .*{message}$'):
        OnnxBackend(weights, torch.device(device), precision, 0)


def test_a_provider_that_does_not_start_is_an_error_without_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    asked = []

    def open_session(*_arguments: object, **options: object) -> SimpleNamespace:
        asked.append(options['enable_fallback'])
        return SimpleNamespace(get_providers=lambda: [CUDA, CPU])

    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: EVERY)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', open_session)
    monkeypatch.setattr(onnx_backend, 'load_tensorrt', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'GPU')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    (tmp_path / 'w.onnx').write_bytes(b'graph')
    with pytest.raises(WeightsError, match=f'could not start {TENSORRT}$'):
        OnnxBackend(Weights(tmp_path / 'w.onnx', ModelMetadata(), {}), ON_CUDA, 'auto', 0)
    assert asked == [0]


class Session:
    """A substitute for a session of ONNX Runtime, which records the provider of each run."""

    def __init__(self, providers: list[tuple[str, dict[str, str]]], runs: list[str]) -> None:
        self.providers = providers
        self.name = providers[0][0]
        self.runs = runs

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.providers]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=onnx_backend.INPUT)]

    def io_binding(self) -> SimpleNamespace:
        return SimpleNamespace(bind_input=lambda *_: None, bind_output=lambda *_: None)

    def run_with_iobinding(self, *_: Any) -> None:
        self.runs.append(self.name)


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A backend on substitutes; TensorRT opens a session of its own once `go` is set."""
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    there = SimpleNamespace(go=threading.Event(), runs=[], built=threading.Semaphore(0), error=None)
    there.go.set()

    def open_session(*_: object, providers: Any, **__: object) -> Session:
        if providers[0][0] == TENSORRT:
            assert there.go.wait(20)
            if there.error:
                raise there.error
        return Session(providers, there.runs)

    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: EVERY)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', open_session)
    monkeypatch.setattr(onnx_backend, 'load_tensorrt', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'GPU')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    (tmp_path / 'w.onnx').write_bytes(b'graph')
    with monkeypatch.context() as without_cuda:
        without_cuda.setattr(OnnxBackend, '_test_run', lambda _: None)
        backend = OnnxBackend(Weights(tmp_path / 'w.onnx', ModelMetadata(), {}), ON_CUDA, 'auto', 0)
    backend.device = ON_CPU  # where the memory of the substitute is
    build = backend._build_in_background

    def build_in_background(shape: tuple[int, ...]) -> None:
        build(shape)
        there.built.release()

    backend._build_in_background = build_in_background  # type: ignore[method-assign]
    there.backend = backend
    there.logits = lambda *shape: backend.logits(torch.zeros(shape)) is not None and there.runs[-1]
    yield there
    there.go.set()


def test_the_engine_of_the_first_shape_is_built_before_its_logits(
    tensorrt: SimpleNamespace,
) -> None:
    assert tensorrt.backend._engines == {}
    assert tensorrt.logits(1, 3, 480, 640) == TENSORRT
    assert list(tensorrt.backend._engines) == [(1, 3, 480, 640)]


def test_building_an_engine_has_its_own_longer_time_limit(
    tensorrt: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def timer(seconds: float, *_: object) -> Any:
        limits.append(seconds)
        return SimpleNamespace(start=lambda: None, cancel=lambda: None)

    monkeypatch.setattr(onnx_backend, 'OPEN_TIMEOUT', 0.01)
    tensorrt.go.clear()
    opening = threading.Timer(0.1, tensorrt.go.set)
    opening.start()
    monkeypatch.setattr(onnx_backend.threading, 'Timer', timer)
    assert tensorrt.logits(1, 3, 480, 640) == TENSORRT
    assert limits == [onnx_backend.BUILD_TIMEOUT, onnx_backend.RUN_TIMEOUT]


def test_images_of_a_new_shape_run_on_cuda_until_its_engine_is_built(
    tensorrt: SimpleNamespace,
) -> None:
    tensorrt.logits(1, 3, 480, 640)
    tensorrt.go.clear()
    assert [tensorrt.logits(2, 3, 480, 640) for _ in range(3)] == [CUDA] * 3
    assert tensorrt.logits(1, 3, 480, 640) == TENSORRT
    tensorrt.go.set()
    assert tensorrt.built.acquire(timeout=20)
    assert tensorrt.logits(2, 3, 480, 640) == TENSORRT


@pytest.mark.filterwarnings('error')
def test_a_shape_whose_engine_cannot_be_built_runs_on_cuda(
    tensorrt: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    message: list[str] = []
    monkeypatch.setattr(onnx_backend.warnings, 'warn', lambda text, **_: message.append(text))
    tensorrt.logits(1, 3, 480, 640)
    tensorrt.error = MemoryError('too little memory')
    assert tensorrt.logits(2, 3, 480, 640) == CUDA
    assert tensorrt.built.acquire(timeout=20)
    assert tensorrt.logits(2, 3, 480, 640) == CUDA
    (line,) = message
    assert 'TensorRT engine for 2×640×480 failed, running without it: ' in line
    assert 'too little memory' in line


def test_the_least_recently_used_engine_is_released_and_built_again_when_needed(
    tensorrt: SimpleNamespace,
) -> None:
    sizes = [32 * number for number in range(1, MAX_ENGINES + 2)]
    tensorrt.logits(1, 3, 32, 32)
    for size in sizes[1:]:
        tensorrt.logits(1, 3, size, size)
        assert tensorrt.built.acquire(timeout=20)
    assert len(tensorrt.backend._engines) == MAX_ENGINES
    tensorrt.go.clear()
    assert tensorrt.logits(1, 3, 32, 32) == CUDA
    tensorrt.go.set()
    assert tensorrt.built.acquire(timeout=20)
    assert tensorrt.logits(1, 3, 32, 32) == TENSORRT


@pytest.mark.parametrize('error', [ModuleNotFoundError('tensorrt'), OSError('libnvinfer.so.10')])
def test_tensorrt_that_cannot_be_loaded_is_not_available(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise error

    monkeypatch.setattr(onnx_backend.importlib, 'import_module', fail)
    assert not load_tensorrt()


def test_a_file_that_is_no_graph_is_an_error_of_one_line(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    (tmp_path / 'w.onnx').write_bytes(b'no graph')
    with pytest.raises(WeightsError, match=r'w\.onnx: ') as caught:
        OnnxBackend(Weights(tmp_path / 'w.onnx', ModelMetadata(), {}), ON_CPU, 'auto', 0)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'open_file',
    [load_weights, lambda file: OnnxBackend(Weights(file, ModelMetadata(), {}), ON_CPU, 'auto', 0)],
    ids=['load_weights', 'OnnxBackend'],
)
def test_a_graph_that_onnx_runtime_does_not_finish_opening_is_rejected_after_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_file: Callable[[Path], object]
) -> None:
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    released = threading.Event()
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda *_, **__: released.wait(20))
    monkeypatch.setattr(onnx_backend, 'OPEN_TIMEOUT', 0.1)
    (tmp_path / 'w.onnx').write_bytes(b'\x08graph')
    line = f'{tmp_path}/w.onnx: ONNX Runtime did not finish opening the graph within 0.1 s'
    with pytest.raises(WeightsError, match=f'^{re.escape(line)}$'):
        open_file(tmp_path / 'w.onnx')
    released.set()


def write_graph(file: Path, kind: str) -> Weights:
    """Writes a graph of two channels: 'brightness', 'not finite' or 'never ends'."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    helper, numbers = onnx.helper, onnx.TensorProto
    names = ['batch', 3, 'height', 'width'], ['batch', 2, 'height', 'width']
    image, logits = (
        helper.make_tensor_value_info(name, numbers.FLOAT, shape)
        for name, shape in zip((onnx_backend.INPUT, onnx_backend.OUTPUT), names, strict=True)
    )
    gain = float('nan') if kind == 'not finite' else 1.0
    kernel = onnx.numpy_helper.from_array(np.full((2, 3, 1, 1), gain, np.float32), 'kernel')
    constants = [kernel]
    nodes = [helper.make_node('Conv', [onnx_backend.INPUT, 'kernel'], ['convolved'])]
    if kind == 'never ends':
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node('Identity', ['continue'], ['continue out']),
                helper.make_node('Neg', ['old'], ['new']),
            ],
            'body',
            [
                info('iteration', numbers.INT64, []),
                info('continue', numbers.BOOL, []),
                info('old', numbers.FLOAT, None),
            ],
            [info('continue out', numbers.BOOL, []), info('new', numbers.FLOAT, None)],
        )
        constants += [
            onnx.numpy_helper.from_array(np.array(2**60), 'count'),
            onnx.numpy_helper.from_array(np.array(True), 'true'),
        ]
        nodes.append(
            helper.make_node(
                'Loop', ['count', 'true', 'convolved'], [onnx_backend.OUTPUT], body=body
            )
        )
    else:
        nodes.append(helper.make_node('Identity', ['convolved'], [onnx_backend.OUTPUT]))
    graph = helper.make_graph(nodes, 'graph', [image], [logits], constants)
    opset = helper.make_opsetid('', 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), file)
    return Weights(file, ModelMetadata(), {})


@pytest.mark.parametrize(
    ('kind', 'message'),
    [('not finite', 'logits are not finite'), ('never ends', 'the graph fails: ')],
)
def test_a_graph_with_nan_logits_or_an_endless_loop_is_rejected_when_it_is_opened(
    tmp_path: Path, kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    monkeypatch.setattr(onnx_backend, 'RUN_TIMEOUT', 0.3)
    with pytest.raises(WeightsError, match=rf'w\.onnx: .*{message}') as caught:
        OnnxBackend(write_graph(tmp_path / 'w.onnx', kind), ON_CPU, 'auto', 0)
    assert '\n' not in str(caught.value)


def test_a_valid_graph_runs(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    backend = OnnxBackend(write_graph(tmp_path / 'w.onnx', 'brightness'), ON_CPU, 'auto', 0)
    assert backend.logits(torch.ones(2, 3, 5, 7)).eq(3).all()
