# SPDX-License-Identifier: Apache-2.0
"""Which of ONNX Runtime's providers are tried, and with which options."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rock_seg_ros.perception.backends import onnx_backend
from rock_seg_ros.perception.backends.onnx_backend import (
    CPU,
    CUDA,
    TENSORRT,
    OnnxBackend,
    choose_providers,
    engine_folder,
    load_tensorrt,
    provider_options,
)
from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.weights_file import Weights, WeightsError

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
def test_tensorrt_is_tried_where_it_is_installed_and_the_cpu_never_stands_in_for_cuda(
    device: torch.device, available: list[str], tensorrt: bool, tried: list[str]
) -> None:
    assert choose_providers(device, available, tensorrt) == tried


def test_tensorrt_keeps_its_engines_and_computes_in_the_precision_asked_for(tmp_path: Path) -> None:
    name, options = provider_options(TENSORRT, ON_CUDA, half=True, engines=tmp_path)
    assert name == TENSORRT
    assert (options['device_id'], options['trt_fp16_enable']) == (1, True)
    assert options['trt_engine_cache_enable']
    assert options['trt_engine_cache_path'] == str(tmp_path)
    assert provider_options(TENSORRT, ON_CUDA, False, tmp_path)[1]['trt_fp16_enable'] is False
    assert provider_options(CUDA, ON_CUDA, True, tmp_path) == (CUDA, {'device_id': 1})


def test_engines_are_kept_by_what_the_model_is_the_shape_and_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    one, copy, other = (tmp_path / f'{name}.onnx' for name in ('one', 'copy', 'other'))
    for file, content in ((one, b'1'), (copy, b'1'), (other, b'2')):
        file.write_bytes(content)
    shape, card = (1, 3, 480, 640), 'NVIDIA RTX 4000 / SFF'
    folder = engine_folder(one, shape, card)
    assert folder.is_relative_to(tmp_path / 'cache' / 'rock_seg_ros')
    assert engine_folder(copy, shape, card) == folder
    different = {
        engine_folder(other, shape, card),
        engine_folder(one, (1, 3, 480, 641), card),
        engine_folder(one, shape, 'NVIDIA RTX 5000'),
        folder,
    }
    assert len(different) == 4


@pytest.mark.parametrize(
    ('device', 'precision', 'told'),
    [('cuda', 'auto', f'no {CUDA} here'), ('cpu', 'fp16', "precision must be 'auto', not 'fp16'")],
)
def test_what_this_onnx_runtime_cannot_do_is_told_in_one_line(
    device: str, precision: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: [CPU])
    weights = Weights(Path('w.onnx'), Card(), {})
    with pytest.raises(WeightsError, match=f'^w.onnx: .*{told}$'):
        OnnxBackend(weights, torch.device(device), precision, 0)


def test_a_provider_that_does_not_start_is_told_and_none_stands_in_for_it(
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
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'card')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    (tmp_path / 'w.onnx').write_bytes(b'graph')
    with pytest.raises(WeightsError, match=f'could not start {TENSORRT}$'):
        OnnxBackend(Weights(tmp_path / 'w.onnx', Card(), {}), ON_CUDA, 'auto', 0)
    assert asked == [0]


@pytest.mark.parametrize('trouble', [ModuleNotFoundError('tensorrt'), OSError('libnvinfer.so.10')])
def test_a_tensorrt_that_cannot_be_loaded_is_as_good_as_none(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise trouble

    monkeypatch.setattr(onnx_backend.importlib, 'import_module', fail)
    assert not load_tensorrt()


def test_a_file_that_is_no_graph_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    (tmp_path / 'w.onnx').write_bytes(b'no graph')
    with pytest.raises(WeightsError, match=r'w\.onnx: ') as caught:
        OnnxBackend(Weights(tmp_path / 'w.onnx', Card(), {}), ON_CPU, 'auto', 0)
    assert '\n' not in str(caught.value)
