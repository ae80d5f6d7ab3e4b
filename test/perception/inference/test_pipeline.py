# SPDX-License-Identifier: Apache-2.0
"""The pipelines on the CPU and with CUDA graphs; tests that need CUDA are skipped without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.cuda_pipeline import (
    CAPTURE_LOCK,
    MAX_GRAPHS,
    CudaPipeline,
    DeviceForward,
)
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.pipeline import (
    LogitsError,
    PlainPipeline,
    are_finite,
    postprocess,
)
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.weights_file import load_weights

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


def predictor_on(device: str, file: Path, precision: str = 'fp32') -> Predictor:
    weights = load_weights(file)
    return Predictor(TorchBackend(weights, torch.device(device), precision, 0), weights.metadata)


@pytest.fixture(scope='module')
def predictor(light_weights_file: Path) -> Predictor:
    return predictor_on('cpu', light_weights_file)


def pair(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [image, image[::-1, ::-1]]


def test_the_forward_pass_for_cuda_graphs_equals_the_plain_one(
    predictor: Predictor, small_image: NDArray[np.uint8]
) -> None:
    images = pair(small_image)
    with torch.inference_mode():
        plain = PlainPipeline(predictor).run(images, 0.5)
        ids, confidence, finite = DeviceForward(predictor)(
            torch.from_numpy(np.stack(images)), torch.tensor(0.5)
        )
    assert finite.tolist() == [True, True]
    assert {tuple(own.class_ids.shape) for own in plain} == {small_image.shape[:2]}
    for number, own in enumerate(plain):
        assert (ids[number].numpy() == own.class_ids).mean() > 0.999
        assert np.abs(confidence[number].numpy().astype(int) - own.confidence).max() <= 1


class WaitingOperators(TorchDispatchMode):
    """Collects the operators that would wait for the device, or copy to it or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        name = operator.overloadpacket.__name__
        if name in {'_local_scalar_dense', 'nonzero', 'lift_fresh', 'item', 'masked_select'}:
            self.found.add(name)
        return operator(*arguments, **(keywords or {}))


def test_the_forward_pass_for_cuda_graphs_does_not_wait_for_the_device(
    predictor: Predictor, small_image: NDArray[np.uint8]
) -> None:
    forward, threshold = DeviceForward(predictor), torch.tensor(0.5)
    pixels = torch.from_numpy(np.stack([small_image]))
    with torch.inference_mode(), WaitingOperators() as operators:
        forward(pixels, threshold)
    assert operators.found == set()
    with torch.inference_mode(), WaitingOperators() as operators:  # such operators are found
        threshold.item()
        torch.tensor([1.0])
    assert operators.found == {'item', 'lift_fresh'}


@pytest.fixture
def uncaptured(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> CudaPipeline:
    """A pipeline on the CPU, where nothing can be captured."""
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, 'Stream', lambda _: stream)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: stream)
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: (0, 0))
    return CudaPipeline(predictor)


def test_a_failed_capture_is_reported_once_and_not_repeated(
    uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int, int]] = []

    def fail(shape: tuple[int, int, int]) -> None:
        tried.append(shape)
        raise RuntimeError('capture failed')

    monkeypatch.setattr(uncaptured, '_capture', fail)
    with torch.inference_mode():
        uncaptured._run(torch.zeros(1, 32, 40, 3, dtype=torch.uint8), 0.5)
        with pytest.raises(RuntimeError, match='capture failed'):
            uncaptured.capture_pending()
        uncaptured._run(torch.zeros(1, 32, 40, 3, dtype=torch.uint8), 0.5)
        uncaptured.capture_pending()
    assert tried == [(1, 32, 40)]


def test_captures_of_two_networks_do_not_overlap(
    uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[bool] = []
    monkeypatch.setattr(
        uncaptured, '_run_and_capture', lambda _: locked.append(CAPTURE_LOCK.locked())
    )
    benchmark = torch.backends.cudnn.benchmark
    uncaptured.warm_up(1, 32, 40)
    assert locked == [True]
    assert not CAPTURE_LOCK.locked()
    assert torch.backends.cudnn.benchmark == benchmark


OUT_OF_MEMORY = torch.cuda.OutOfMemoryError('CUDA out of memory')


def test_a_shape_too_large_for_a_graph_is_reported_and_runs_eagerly(
    uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = iter([(0, 1), (0, 2)])
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: next(pools))
    tried: list[tuple[int, int, int]] = []

    def fail(shape: tuple[int, int, int]) -> None:
        tried.append(shape)
        raise OUT_OF_MEMORY

    monkeypatch.setattr(uncaptured, '_capture', fail)
    before = uncaptured._pool
    with pytest.warns(
        UserWarning,
        match='CUDA graph capture failed for 1×40×32, running eagerly: CUDA out of memory',
    ):
        uncaptured.warm_up(1, 32, 40)
    assert uncaptured._pool == (0, 1) != before  # the failed capture may still occupy the old pool
    uncaptured.warm_up(1, 32, 40)
    with torch.inference_mode():
        ids, _, finite = uncaptured._run(torch.zeros(1, 32, 40, 3, dtype=torch.uint8), 0.5)
    assert (tuple(ids.shape), finite.tolist()) == ((1, 32, 40), [True])
    uncaptured.capture_pending()
    assert tried == [(1, 32, 40)]


def test_a_failed_capture_releases_no_other_graph(
    uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncaptured, '_capture', lambda shape: shape)
    for width in range(1, MAX_GRAPHS + 1):
        uncaptured.warm_up(1, 32, width)
    kept = list(uncaptured._graphs)

    def fail(shape: tuple[int, int, int]) -> None:
        raise OUT_OF_MEMORY

    monkeypatch.setattr(uncaptured, '_capture', fail)
    with pytest.warns(UserWarning, match='CUDA graph capture failed'):
        uncaptured.warm_up(1, 32, 100)
    assert list(uncaptured._graphs) == kept
    monkeypatch.setattr(uncaptured, '_capture', lambda shape: shape)
    uncaptured.warm_up(1, 32, 101)
    assert list(uncaptured._graphs) == [*kept[1:], (1, 32, 101)]


def test_a_frequent_shape_is_captured_automatically(
    predictor: Predictor, uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = CudaPipeline(predictor, capture_after=2)
    tried: list[tuple[int, int, int]] = []

    def fail(shape: tuple[int, int, int]) -> None:
        tried.append(shape)
        raise RuntimeError('capture failed')

    pixels = torch.zeros(1, 32, 40, 3, dtype=torch.uint8)
    for pipeline in (often, uncaptured):
        monkeypatch.setattr(pipeline, '_capture', fail)
    with torch.inference_mode():
        for wanted in ([], [], [(1, 32, 40)], [(1, 32, 40)]):
            if wanted and not tried:
                with pytest.warns(
                    UserWarning, match='CUDA graph capture failed .*: capture failed'
                ):
                    often._capture_frequent((1, 32, 40))
            else:
                often._capture_frequent((1, 32, 40))
            uncaptured._capture_frequent((1, 32, 40))
            assert tried == wanted
            often._run(pixels, 0.5)
            uncaptured._run(pixels, 0.5)


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
def test_logits_that_are_not_finite_are_an_error(number: float) -> None:
    logits = torch.zeros(2, 2, 30, 40)
    logits[1, 0, 7, 9] = number
    assert are_finite(logits).tolist() == [True, False]
    assert postprocess(logits[0], ModelMetadata(), 0.5).class_ids.shape == (30, 40)
    with pytest.raises(LogitsError, match='not finite'):
        postprocess(logits[1], ModelMetadata(), 0.5)


class NanForBlack:
    """A network that gives NaN for black images."""

    device, precision = torch.device('cpu'), 'fp32'

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :2].log()


def test_an_image_with_logits_that_are_not_finite_is_an_error_in_each_pipeline() -> None:
    images = [np.full((32, 40, 3), 200, np.uint8), np.zeros((32, 40, 3), np.uint8)]
    predictor = Predictor(NanForBlack(), ModelMetadata())
    with torch.inference_mode():
        assert len(PlainPipeline(predictor).run(images[:1], 0.5)) == 1
        with pytest.raises(LogitsError):
            PlainPipeline(predictor).run(images, 0.5)
        *_, finite = DeviceForward(predictor)(torch.from_numpy(np.stack(images)), torch.tensor(0.5))
    assert finite.tolist() == [True, False]


@needs_cuda
@pytest.mark.gpu
def test_logits_that_are_not_finite_are_an_error_on_cuda(weights_file: Path) -> None:
    predictor = predictor_on('cuda', weights_file, 'fp16')
    predictor.backend._model.classifier.score.bias.data.fill_(float('nan'))  # type: ignore[attr-defined]
    with torch.inference_mode():
        pipeline = CudaPipeline(predictor)
        with pytest.raises(LogitsError):
            pipeline.run([np.zeros((64, 80, 3), np.uint8)], 0.5)


@needs_cuda
@pytest.mark.gpu
def test_a_graph_gives_the_result_of_the_plain_pipeline_at_every_threshold(
    weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    predictor, images = predictor_on('cuda', weights_file, 'fp16'), pair(small_image)
    with torch.inference_mode():
        pipeline, plain = CudaPipeline(predictor), PlainPipeline(predictor)
        pipeline.warm_up(2, *small_image.shape[:2])
        for threshold in (0.0, 0.5, 1.0, 0.5):
            for ours, theirs in zip(
                pipeline.run(images, threshold), plain.run(images, threshold), strict=True
            ):
                assert (ours.class_ids == theirs.class_ids).mean() > 0.99
                assert np.abs(ours.confidence.astype(int) - theirs.confidence).mean() < 2


@needs_cuda
@pytest.mark.gpu
def test_a_result_is_not_changed_by_the_next_image(
    weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    with torch.inference_mode():
        pipeline = CudaPipeline(predictor_on('cuda', weights_file, 'fp16'))
        pipeline.warm_up(1, *small_image.shape[:2])
        (first,) = pipeline.run([small_image], 0.5)
        before = first.class_ids.copy()
        pipeline.run([255 - small_image], 0.5)
        (again,) = pipeline.run([small_image], 0.5)
        assert np.array_equal(first.class_ids, before)
        assert np.array_equal(first.confidence, again.confidence)


@needs_cuda
@pytest.mark.gpu
def test_a_new_shape_runs_eagerly_and_is_captured_afterwards(
    weights_file: Path, small_image: NDArray[np.uint8]
) -> None:
    with torch.inference_mode():
        pipeline = CudaPipeline(predictor_on('cuda', weights_file, 'fp16'))
        (eager,) = pipeline.run([small_image], 0.5)
        assert not pipeline._graphs
        pipeline.capture_pending()
        assert list(pipeline._graphs) == [(1, *small_image.shape[:2])]
        (captured,) = pipeline.run([small_image], 0.5)
        assert (eager.class_ids == captured.class_ids).mean() > 0.99
        for width in range(64, 64 + 8 * MAX_GRAPHS, 8):
            pipeline.warm_up(1, 64, width)
        assert len(pipeline._graphs) == MAX_GRAPHS
