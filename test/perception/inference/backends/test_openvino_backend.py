# SPDX-License-Identifier: Apache-2.0
"""OpenVINO gives the logits of PyTorch; int8 gives nearly the same and is computed in int8."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.backends import openvino_backend
from rock_seg_ros.perception.inference.backends.openvino_backend import OpenVinoBackend
from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.preprocessing import Preprocessing, correct_exposure
from rock_seg_ros.perception.inference.quantization import quantize, quantized_inputs
from rock_seg_ros.perception.inference.weights_file import Weights, WeightsError, load_weights

pytest.importorskip('openvino')
CPU = torch.device('cpu')
SAMPLE = Path(__file__).parents[4] / 'demo/samples/images/336.webp'

PROGRAM = """
import os, signal, sys, threading, torch
from rock_seg_ros.perception.inference.backends.openvino_backend import OpenVinoBackend
from rock_seg_ros.perception.inference.weights_file import load_weights
assert 'openvino' not in sys.modules
networks = [OpenVinoBackend(load_weights(sys.argv[1]), torch.device('cpu'), 'auto', 0)]
assert 'openvino' in sys.modules
print([name for name in sys.modules if name.startswith('openvino_telemetry.')], flush=True)
thread = threading.Thread(target=networks.clear)
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print('signal handled'))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.fixture(scope='module')
def weights(weights_file: Path) -> Weights:
    """Random weights, calibrated on noise."""
    weights = load_weights(weights_file)
    model = restore(weights.metadata, weights.state)
    ranges: dict[str, tuple[float, float]] = {}
    for name in quantized_inputs(model):
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: ranges.update(
                {name: (inputs[0].min().item(), inputs[0].max().item())}
            )
        )
    with torch.inference_mode():
        model(noise(1, 64, 80))
    return replace(weights, metadata=replace(weights.metadata, activation_ranges=ranges))


@pytest.fixture(scope='module')
def compiled(weights: Weights) -> OpenVinoBackend:
    return OpenVinoBackend(weights, CPU, 'auto', 0)


def convolution_types(backend: OpenVinoBackend) -> list[str]:
    """Returns the number format of each convolution in the compiled graph."""
    graph = backend._request.get_compiled_model().get_runtime_model()
    infos = [operation.get_rt_info() for operation in graph.get_ops()]
    return [
        info['runtimePrecision'].astype(str)
        for info in infos
        if info['layerType'].astype(str) == 'Convolution'
    ]


def noise(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('shape', [(1, 64, 80), (2, 33, 50)])
def test_logits_equal_those_of_pytorch_for_any_size_and_batch(
    weights: Weights, compiled: OpenVinoBackend, shape: tuple[int, int, int]
) -> None:
    images = noise(*shape)
    wanted = TorchBackend(weights, CPU, 'auto', 0).logits(images)
    torch.testing.assert_close(compiled.logits(images), wanted, rtol=1e-3, atol=1e-4)


def test_channels_last_images_have_the_same_logits(compiled: OpenVinoBackend) -> None:
    images = noise(1, 48, 64)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(compiled.logits(last), compiled.logits(images))


def test_logits_are_not_changed_by_the_next_image(compiled: OpenVinoBackend) -> None:
    first = compiled.logits(noise(1, 48, 64))
    kept = first.clone()
    compiled.logits(-noise(1, 48, 64))
    assert torch.equal(first, kept)


def test_the_output_stride_can_be_changed(weights: Weights, compiled: OpenVinoBackend) -> None:
    images = noise(1, 64, 64)
    logits = OpenVinoBackend(weights, CPU, 'fp32', 8).logits(images)
    wanted = TorchBackend(weights, CPU, 'fp32', 8).logits(images)
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits, compiled.logits(images))  # output stride 16


def test_int8_equals_the_quantized_network_and_runs_in_int8(
    weights: Weights, compiled: OpenVinoBackend
) -> None:
    backend = OpenVinoBackend(weights, CPU, 'int8', 0)
    images = noise(1, 64, 80)
    logits = backend.logits(images)
    quantized = restore(weights.metadata, weights.state)
    quantize(quantized, weights.metadata.activation_ranges)
    with torch.inference_mode():
        wanted = quantized(images)['out']
    spread = wanted.std()
    assert (logits - wanted).square().mean().sqrt() < 0.05 * spread
    assert (logits - compiled.logits(images)).square().mean().sqrt() < 0.2 * spread
    assert set(convolution_types(compiled)) == {'f32'}
    types = convolution_types(backend)
    assert len(types) == len(convolution_types(compiled))
    assert types.count('f32') == 2, types  # the pooled branch and the last layer
    assert set(types) <= {'f32', 'u8', 'i8'}


def test_int8_of_the_embedded_weights_computes_without_overflow_in_16_bits() -> None:
    weights = load_weights('light')
    quantized = restore(weights.metadata, weights.state)
    quantize(quantized, weights.metadata.activation_ranges)
    image = read_rgb(SAMPLE)[:288, :384]
    images = Preprocessing(weights.metadata, CPU)([correct_exposure(image)])
    with torch.inference_mode():
        wanted = quantized(images)['out']
    logits = OpenVinoBackend(weights, CPU, 'int8', 0).logits(images)
    assert (logits - wanted).square().mean().sqrt() < 0.035 * wanted.std()


@pytest.mark.parametrize(
    ('precision', 'message'),
    [('fp16', "must be one of fp32, bf16, int8, not 'fp16'"), ('int8', 'calibrate it again')],
)
def test_an_unsupported_precision_is_rejected(
    weights_file: Path, precision: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=f'random.safetensors: .*{message}'):
        OpenVinoBackend(load_weights(weights_file), CPU, precision, 0)


def test_bf16_is_rejected_on_a_cpu_without_it(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ['FP32', 'INT8']

    monkeypatch.setattr(openvino_backend, '_core', Core)
    with pytest.raises(WeightsError, match="this CPU has no bf16; use precision 'fp32'"):
        OpenVinoBackend(weights, CPU, 'bf16', 0)


def test_another_device_is_rejected(weights: Weights) -> None:
    with pytest.raises(WeightsError, match=r"needs the CPU; on 'cuda:1' use 'torch'"):
        OpenVinoBackend(weights, torch.device('cuda:1'), 'auto', 0)


def test_an_onnx_file_is_rejected(weights: Weights) -> None:
    with pytest.raises(WeightsError, match="an ONNX file needs backend 'onnx'"):
        OpenVinoBackend(replace(weights, path=Path('w.onnx')), CPU, 'auto', 0)


def test_weights_that_do_not_fit_are_rejected_by_file_name(weights: Weights) -> None:
    with pytest.raises(WeightsError, match=r'random\.safetensors: the weights do not fit'):
        OpenVinoBackend(replace(weights, state={}), CPU, 'auto', 0)


def test_without_openvino_the_error_names_the_missing_package(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend.importlib.util, 'find_spec', lambda _: None)
    assert not openvino_backend.is_available()
    with pytest.raises(WeightsError, match='needs the package openvino, not installed here'):
        OpenVinoBackend(weights, CPU, 'auto', 0)


@pytest.fixture(scope='module')
def program(light_weights_file: Path) -> subprocess.CompletedProcess[str]:
    """A process that has compiled a network, released it in a thread and received a signal."""
    command = [sys.executable, '-c', PROGRAM, str(light_weights_file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_openvino_is_imported_on_first_use_and_without_telemetry(
    program: subprocess.CompletedProcess[str],
) -> None:
    assert program.stdout.splitlines()[:1] == ['[]'], program.stderr


def test_a_process_survives_a_signal_after_a_network_was_released_in_another_thread(
    program: subprocess.CompletedProcess[str],
) -> None:
    assert program.returncode == 0, program.stderr
    assert program.stdout.splitlines()[1:] == ['signal handled']


class Doubled(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2


def test_the_environment_sets_the_number_of_threads(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    compiled = openvino_backend._compile(Doubled(), 'forward', [(3, 8, 8)], weights, 'fp32')
    assert compiled.get_property('INFERENCE_NUM_THREADS') == 1


def test_threads_may_leave_a_core_on_which_other_work_runs(weights: Weights) -> None:
    compiled = openvino_backend._compile(Doubled(), 'forward', [(3, 8, 8)], weights, 'fp32')
    assert compiled.get_property('ENABLE_CPU_PINNING') is False
