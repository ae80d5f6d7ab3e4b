# SPDX-License-Identifier: Apache-2.0
"""The way that a CUDA graph captures is the plain one; what needs CUDA is skipped without it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from rock_seg_ros.perception.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.cuda_pipeline import (
    CAPTURING,
    MOST_GRAPHS,
    CudaPipeline,
    DeviceWay,
)
from rock_seg_ros.perception.pipeline import PlainPipeline
from rock_seg_ros.perception.scoring import Scorer
from rock_seg_ros.perception.weights_file import load_weights

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


def scorer_on(device: str, weights_file: Path, precision: str = 'fp32') -> Scorer:
    weights = load_weights(weights_file)
    return Scorer(TorchBackend(weights, torch.device(device), precision, 16), weights.card)


@pytest.fixture(scope='module')
def scorer(weights_file: Path) -> Scorer:
    return scorer_on('cpu', weights_file)


def pair(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [picture, picture[::-1, ::-1]]


def test_the_way_that_is_captured_gives_what_the_plain_way_gives(
    scorer: Scorer, small_picture: NDArray[np.uint8]
) -> None:
    pictures = pair(small_picture)
    with torch.inference_mode():
        plain = PlainPipeline(scorer).run(pictures, 0.5)
        ids, sure = DeviceWay(scorer)(torch.from_numpy(np.stack(pictures)), torch.tensor(0.5))
    assert {tuple(own.class_ids.shape) for own in plain} == {small_picture.shape[:2]}
    for number, own in enumerate(plain):
        assert (ids[number].numpy() == own.class_ids).mean() > 0.999
        assert np.abs(sure[number].numpy().astype(int) - own.confidence()).max() <= 1


class WaitingOperators(TorchDispatchMode):
    """Collects the operators that would wait for the device, or copy to it or from it."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[str] = set()

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        name = operator.overloadpacket.__name__
        if name in {'_local_scalar_dense', 'nonzero', 'lift_fresh', 'item', 'masked_select'}:
            self.met.add(name)
        return operator(*arguments, **(keywords or {}))


def test_nothing_on_the_captured_way_waits_for_the_device(
    scorer: Scorer, small_picture: NDArray[np.uint8]
) -> None:
    way, threshold = DeviceWay(scorer), torch.tensor(0.5)
    pixels = torch.from_numpy(np.stack([small_picture]))
    with torch.inference_mode(), WaitingOperators() as operators:
        way(pixels, threshold)
    assert operators.met == set()
    with torch.inference_mode(), WaitingOperators() as operators:  # they would be seen
        threshold.item()
        torch.tensor([1.0])
    assert operators.met == {'item', 'lift_fresh'}


@pytest.fixture
def uncaptured(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> CudaPipeline:
    """A pipeline on the CPU, where nothing can be captured."""
    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, 'Stream', lambda _: stream)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda _: stream)
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: (0, 0))
    return CudaPipeline(scorer)


def test_a_shape_that_cannot_be_captured_is_told_once_and_not_tried_again(
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
            uncaptured.catch_up()
        uncaptured._run(torch.zeros(1, 32, 40, 3, dtype=torch.uint8), 0.5)
        uncaptured.catch_up()
    assert tried == [(1, 32, 40)]


def test_captures_of_two_networks_never_overlap(
    uncaptured: CudaPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[bool] = []
    monkeypatch.setattr(
        uncaptured, '_warmed_and_captured', lambda _: alone.append(CAPTURING.locked())
    )
    searched = torch.backends.cudnn.benchmark
    uncaptured.warm(1, 32, 40)
    assert alone == [True]
    assert not CAPTURING.locked()
    assert torch.backends.cudnn.benchmark == searched


@needs_cuda
@pytest.mark.gpu
def test_a_graph_gives_what_the_plain_way_gives_at_every_threshold(
    weights_file: Path, small_picture: NDArray[np.uint8]
) -> None:
    scorer, pictures = scorer_on('cuda', weights_file, 'fp16'), pair(small_picture)
    with torch.inference_mode():
        pipeline, plain = CudaPipeline(scorer), PlainPipeline(scorer)
        pipeline.warm(2, *small_picture.shape[:2])
        for threshold in (0.0, 0.5, 1.0, 0.5):
            for ours, theirs in zip(
                pipeline.run(pictures, threshold), plain.run(pictures, threshold), strict=True
            ):
                assert (ours.class_ids == theirs.class_ids).mean() > 0.99
                assert np.abs(ours.confidence().astype(int) - theirs.confidence()).mean() < 2


@needs_cuda
@pytest.mark.gpu
def test_a_result_outlives_the_next_picture(
    weights_file: Path, small_picture: NDArray[np.uint8]
) -> None:
    with torch.inference_mode():
        pipeline = CudaPipeline(scorer_on('cuda', weights_file, 'fp16'))
        pipeline.warm(1, *small_picture.shape[:2])
        (first,) = pipeline.run([small_picture], 0.5)
        before = first.class_ids.copy()
        pipeline.run([255 - small_picture], 0.5)
        (again,) = pipeline.run([small_picture], 0.5)
        assert np.array_equal(first.class_ids, before)
        assert np.array_equal(first.confidence(), again.confidence())


@needs_cuda
@pytest.mark.gpu
def test_an_unannounced_shape_runs_at_once_and_is_captured_afterwards(
    weights_file: Path, small_picture: NDArray[np.uint8]
) -> None:
    with torch.inference_mode():
        pipeline = CudaPipeline(scorer_on('cuda', weights_file, 'fp16'))
        (eager,) = pipeline.run([small_picture], 0.5)
        assert not pipeline._graphs
        pipeline.catch_up()
        assert list(pipeline._graphs) == [(1, *small_picture.shape[:2])]
        (captured,) = pipeline.run([small_picture], 0.5)
        assert (eager.class_ids == captured.class_ids).mean() > 0.99
        for width in range(64, 64 + 8 * MOST_GRAPHS, 8):
            pipeline.warm(1, 64, width)
        assert len(pipeline._graphs) == MOST_GRAPHS
