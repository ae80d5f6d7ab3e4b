# SPDX-License-Identifier: Apache-2.0
"""Devices, backends, sizes, strides, batches and tiles of the segmenter."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference import segmenter as segmenter_module
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.segmentation import (
    SizeError,
)
from rock_seg_ros.perception.inference.segmenter import (
    DeviceError,
    Segmenter,
    choose_backend,
    choose_device,
)
from rock_seg_ros.perception.inference.weights_file import (
    Weights,
    WeightsError,
    load_weights,
    save_weights,
)

WEIGHTS = Weights(Path('w.safetensors'), ModelMetadata(smallest_side=48), {})

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')


@pytest.fixture(scope='module')
def segmenter(light_weights_file: Path) -> Segmenter:
    return Segmenter(load_weights(light_weights_file), 'cpu')


@without_cuda
@pytest.mark.parametrize('name', ['cuda', 'cuda:0', 'cuda:7'])
def test_a_cuda_device_without_cuda_is_an_error(name: str) -> None:
    with pytest.raises(DeviceError, match='0 CUDA devices'):
        Segmenter(WEIGHTS, name)


@without_cuda
def test_auto_chooses_the_cpu_without_cuda() -> None:
    assert choose_device('auto') == torch.device('cpu')


@pytest.mark.parametrize(
    ('file', 'backend', 'precision', 'providers', 'chosen'),
    [
        ('w.safetensors', 'auto', 'auto', [], 'cuda'),
        ('w.safetensors', 'torch', 'fp32', [], 'cuda'),
        ('w.safetensors', 'openvino', 'auto', [], 'cpu'),
        ('w.safetensors', 'auto', 'int8', [], 'cpu'),
        ('w.onnx', 'auto', 'auto', ['CPUExecutionProvider'], 'cpu'),
        ('w.onnx', 'onnx', 'auto', ['CUDAExecutionProvider', 'CPUExecutionProvider'], 'cuda'),
    ],
)
def test_auto_chooses_a_device_that_weights_and_backend_support(
    file: str,
    backend: str,
    precision: str,
    providers: list[str],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: providers)
    weights = Weights(Path(file), ModelMetadata(activation_ranges={'a': (0.0, 1.0)}), {})
    assert choose_device('auto', weights, backend, precision).type == chosen
    assert choose_device('cuda', weights, backend, precision).type == 'cuda'
    devices: list[torch.device] = []

    def record(weights: Weights, device: torch.device, *how: object, **parts: bool) -> Recorder:
        devices.append(device)
        return Recorder(weights, torch.device('cpu'), *how)

    for name in segmenter_module.BACKENDS:
        monkeypatch.setitem(segmenter_module.BACKENDS, name, record)
    Segmenter(weights, 'auto', precision, backend)
    assert [device.type for device in devices] == [chosen]


@pytest.mark.parametrize('name', ['gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cpu:0', 'mps', ''])
def test_an_invalid_device_is_rejected_by_name(name: str) -> None:
    with pytest.raises(DeviceError, match=repr(name)):
        choose_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_and_cpu_give_the_same_mask(
    segmenter: Segmenter, light_weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    on_cuda = Segmenter(load_weights(light_weights_file), 'cuda').segment(small_image)
    same = on_cuda.mask() == segmenter.segment(small_image).mask()
    assert same.mean() >= 0.99


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'precision': 'fp8'}, 'fp8'),
        ({'backend': 'tensorrt'}, 'tensorrt'),
        ({'output_stride': 32}, '32'),
        ({'input_size': (16, 0)}, '16'),
        ({'preset': 'best'}, 'exact, balanced, fast, not .best.'),
        ({'tile': 10}, 'at least 128 px, not 10'),
        ({'tile': 200, 'tile_overlap': 101}, '0 to 100 px'),
        ({'tile': 200, 'input_size': (0, 64)}, 'tile must be 0 with'),
    ],
)
def test_an_invalid_argument_is_rejected_by_value(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(WEIGHTS, 'cpu', **arguments)  # type: ignore[arg-type]


def test_a_safetensors_file_on_the_onnx_backend_is_rejected() -> None:
    with pytest.raises(WeightsError, match=r'needs an \.onnx file'):
        Segmenter(WEIGHTS, 'cpu', backend='onnx')


def test_weights_that_do_not_fit_the_metadata_are_rejected_by_file_name(tmp_path: Path) -> None:
    file = tmp_path / 'w.safetensors'
    save_weights(
        file, build(ModelMetadata(decoder='none')).state_dict(), ModelMetadata(decoder='skip')
    )
    with pytest.raises(WeightsError, match=r'w\.safetensors: .* is missing'):
        Segmenter(load_weights(file), 'cpu')


@pytest.mark.parametrize('size', [(33, 70), (64, 64), (1, 1)])
def test_the_result_has_the_size_of_the_image(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = segmenter.segment(image)
    for part in (found.class_ids, found.confidence, found.mask()):
        assert part.shape == size
        assert part.dtype == np.uint8
    assert set(np.unique(found.class_ids)) <= {0, 1}
    assert set(np.unique(found.mask())) <= {0, 255}
    assert found.confidence.min() >= 127


def test_the_input_size_of_the_network_does_not_change_the_size_of_the_result(
    recorded: Callable[..., Segmenter], small_image: NDArray[np.uint8]
) -> None:
    segmenter = recorded(input_size=(48, 0))
    assert segmenter.segment(small_image).class_ids.shape == (64, 80)
    assert segmenter._runner.seen == [(1, 3, 64, 48)]  # type: ignore[attr-defined]


def test_an_image_of_any_strides_equals_its_contiguous_copy(
    segmenter: Segmenter, small_image: NDArray[np.uint8]
) -> None:
    mono = np.broadcast_to(small_image[:, :, :1], small_image.shape)
    for view in (small_image[:, ::-1], small_image[::-1, :, ::-1], mono):
        assert not view.flags.c_contiguous
        found = segmenter.segment(view)
        copied = segmenter.segment(np.array(view, order='C'))
        assert np.array_equal(found.class_ids, copied.class_ids)
        assert np.array_equal(found.confidence, copied.confidence)


def test_a_read_only_image_is_processed_without_a_warning(
    segmenter: Segmenter, small_image: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    assert not small_image.flags.writeable
    segmenter.segment(small_image)
    assert not recwarn.list


def test_an_image_without_pixels_is_rejected(segmenter: Segmenter) -> None:
    with pytest.raises(SizeError, match='5×0'):
        segmenter.segment(np.zeros((0, 5, 3), np.uint8))


def test_the_threshold_can_be_given_per_image(
    segmenter: Segmenter, small_image: NDArray[np.uint8]
) -> None:
    assert segmenter.segment(small_image, 0.0).mask().all()
    assert not segmenter.segment(small_image, 1.0).mask().any()
    expected = segmenter.segment(small_image, segmenter.metadata.threshold)
    assert np.array_equal(segmenter.segment(small_image).class_ids, expected.class_ids)


def test_output_stride_8_runs(weights_file: Path, small_image: NDArray[np.uint8]) -> None:
    fine = Segmenter(load_weights(weights_file), 'cpu', output_stride=8, backend='torch')
    assert fine.segment(small_image).class_ids.shape == (64, 80)


@pytest.mark.parametrize('backend', ['torch', 'openvino'])
def test_bfloat16_is_close_to_float32(
    segmenter: Segmenter, light_weights_file: Path, small_image: NDArray[np.uint8], backend: str
) -> None:
    if backend == 'openvino':
        core = pytest.importorskip('openvino').Core()
        if 'BF16' not in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
            pytest.skip('OpenVINO has no bf16 on this CPU')
    coarse = Segmenter(load_weights(light_weights_file), 'cpu', precision='bf16', backend=backend)
    assert coarse.precision == 'bf16'
    one, two = (s.segment(small_image, 0.0).confidence / 255 for s in (segmenter, coarse))
    assert np.abs(one - two).mean() < 0.02


def test_a_sigmoid_network_runs_from_its_file(
    tmp_path: Path, light_weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    metadata = replace(load_weights(light_weights_file).metadata, activation='sigmoid')
    save_weights(tmp_path / 'w.safetensors', build(metadata).state_dict(), metadata)
    found = Segmenter(load_weights(tmp_path / 'w.safetensors'), 'cpu').segment(small_image)
    assert found.class_ids.shape == (64, 80)
    assert found.confidence.min() >= 127


class Recorder:
    """A backend that records the shapes of its inputs; bright pixels have high logits for rock."""

    def __init__(
        self, weights: Weights, device: torch.device, *how: object, parts: bool = False
    ) -> None:
        self.device, self.precision, self.how, self.parts = device, 'fp32', how, parts
        self.seen: list[tuple[int, ...]] = []
        self.seen_in_part: list[tuple[int, ...]] = []

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        bright = images.mean(1, keepdim=True)
        return torch.cat([-bright, bright], dim=1)

    def deep(self, images: torch.Tensor) -> torch.Tensor:
        self.seen_in_part.append(tuple(images.shape))
        return torch.zeros(1, 1, *(-(-side // 16) for side in images.shape[-2:]))

    def context(self, deep: torch.Tensor) -> torch.Tensor:
        return deep

    def decode(self, images: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.cat([context, context], dim=1)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Segmenter]:
    """Makes segmenters whose `_runner` is a Recorder for each backend."""
    for name in segmenter_module.BACKENDS:
        monkeypatch.setitem(segmenter_module.BACKENDS, name, Recorder)
    return lambda **arguments: Segmenter(WEIGHTS, 'cpu', **arguments)


def test_images_of_one_shape_run_as_a_batch_and_results_keep_the_order(
    recorded: Callable[..., Segmenter],
) -> None:
    segmenter = recorded()
    rng = np.random.default_rng(5)
    sizes = [(50, 60), (64, 48), (50, 60), (50, 60)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    found = segmenter.segment_batch(images, 0.4)
    assert segmenter._runner.seen == [(3, 3, 64, 64), (1, 3, 64, 48)]  # type: ignore[attr-defined]
    for image, own in zip(images, found, strict=True):
        alone = segmenter.segment(image, 0.4)
        assert np.array_equal(own.class_ids, alone.class_ids)
        assert np.array_equal(own.confidence, alone.confidence)
    assert segmenter.segment_batch([]) == []


def test_a_batch_with_an_image_without_pixels_is_rejected_before_it_runs(
    recorded: Callable[..., Segmenter], small_image: NDArray[np.uint8]
) -> None:
    segmenter = recorded()
    with pytest.raises(SizeError, match='0×7'):
        segmenter.segment_batch([small_image, np.zeros((7, 0, 3), np.uint8)])
    assert segmenter._runner.seen == []  # type: ignore[attr-defined]


def test_warm_up_runs_each_batch_size(
    recorded: Callable[..., Segmenter],
) -> None:
    segmenter = recorded()
    segmenter.warm_up(60, 80, max_batch=3)
    segmenter.capture_pending()
    assert segmenter._runner.seen == [  # type: ignore[attr-defined]
        (1, 3, 64, 80),
        (2, 3, 64, 80),
        (3, 3, 64, 80),
    ]


def test_warm_up_for_images_larger_than_a_tile_runs_their_tiles_once(
    recorded: Callable[..., Segmenter],
) -> None:
    segmenter = recorded(tile=128, tile_overlap=8)
    segmenter.warm_up(128, 200, max_batch=3)
    runner: Recorder = segmenter._runner  # type: ignore[assignment]
    assert (runner.seen, len(runner.seen_in_part)) == ([], 2)


def test_only_images_larger_than_a_tile_are_tiled(recorded: Callable[..., Segmenter]) -> None:
    segmenter = recorded(tile=128, tile_overlap=8)
    runner: Recorder = segmenter._runner  # type: ignore[assignment]
    assert runner.parts
    segmenter.segment(np.zeros((128, 60, 3), np.uint8))
    assert (runner.seen, runner.seen_in_part) == ([(1, 3, 128, 64)], [])
    found = segmenter.segment(np.zeros((128, 200, 3), np.uint8))
    assert found.class_ids.shape == (128, 200)
    assert len(runner.seen) == 1
    assert len(runner.seen_in_part) == 2
    assert not recorded()._runner.parts  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ('arguments', 'how'),
    [
        ({}, ('fp32', 8)),
        ({'preset': 'balanced'}, ('fp32', 16)),
        ({'preset': 'exact'}, ('fp32', 8)),
        ({'preset': 'exact', 'output_stride': 16, 'precision': 'bf16'}, ('bf16', 16)),
    ],
)
def test_a_preset_sets_the_values_that_are_not_given(
    recorded: Callable[..., Segmenter], arguments: dict[str, object], how: tuple[str, int]
) -> None:
    assert recorded(**arguments)._runner.how == how  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ('file', 'device', 'precision', 'installed', 'chosen'),
    [
        ('w.safetensors', 'cpu', 'fp32', True, 'openvino'),
        ('w.safetensors', 'cpu', 'int8', True, 'openvino'),
        ('w.safetensors', 'cpu', 'fp32', False, 'torch'),
        ('w.safetensors', 'cpu', 'int8', False, 'openvino'),  # its error names the package
        ('w.safetensors', 'cpu', 'fp16', True, 'torch'),
        ('w.safetensors', 'cuda', 'fp16', True, 'torch'),
        ('w.onnx', 'cpu', 'auto', True, 'onnx'),
        ('w.onnx', 'cuda', 'auto', True, 'onnx'),
    ],
)
def test_auto_chooses_the_fastest_available_backend(
    file: str,
    device: str,
    precision: str,
    installed: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segmenter_module.openvino_backend, 'is_available', lambda: installed)
    weights = Weights(Path(file), ModelMetadata(), {})
    assert choose_backend('auto', weights, torch.device(device), precision) == chosen
    assert choose_backend('torch', weights, torch.device(device), precision) == 'torch'


@pytest.mark.parametrize('size', [(60, 80), (128, 200)])
def test_a_result_does_not_keep_the_network_in_memory(
    recorded: Callable[..., Segmenter], size: tuple[int, int]
) -> None:
    segmenter = recorded(tile=128, tile_overlap=8)
    network = weakref.ref(segmenter._runner)
    found = segmenter.segment(np.zeros((*size, 3), np.uint8))
    del segmenter
    gc.collect()
    assert network() is None
    assert found.confidence.shape == size


def test_out_of_memory_during_warm_up_is_a_warning(
    recorded: Callable[..., Segmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = recorded()

    def fail(_images: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    with monkeypatch.context() as patched:
        patched.setattr(segmenter._runner, 'logits', fail)
        with pytest.warns(UserWarning, match='1×80×60 is too large for cpu: CUDA out of memory'):
            segmenter.warm_up(60, 80, max_batch=2)
    segmenter.segment(np.zeros((60, 80, 3), np.uint8))


@pytest.mark.parametrize('tile', [0, 256])
@pytest.mark.parametrize(('gain', 'least_iou'), [(0.15, 0.95), (4.0, 0.45)])
def test_the_mask_hardly_depends_on_darkness_and_little_on_overexposure(
    gain: float, least_iou: float, tile: int
) -> None:
    segmenter = Segmenter(load_weights('light'), 'cpu', tile=tile, tile_overlap=64)
    file = sorted((Path(__file__).parents[3] / 'demo/samples/images').iterdir())[0]
    image = read_rgb(file)
    expected = segmenter.segment(image).mask() > 0
    exposed = np.clip(np.round(image * gain), 0, 255).astype(np.uint8)
    found = segmenter.segment(exposed).mask() > 0
    assert (found & expected).sum() > least_iou * (found | expected).sum()
