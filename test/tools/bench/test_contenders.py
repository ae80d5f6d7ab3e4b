# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
from functools import partial
from multiprocessing import Pipe

import pytest
import torch

from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.tools.bench import contenders
from rock_seg_ros.tools.bench.contenders import (
    BenchError,
    Contender,
    Worker,
    choose_contenders,
    load,
    roofline_ms,
)


def test_a_weights_file_replaces_only_the_embedded_resnet50():
    chosen = choose_contenders(['exact', 'fast', 'light_fast'], 'mine.pth', 'cpu')
    assert chosen == [
        Contender('torchvision', 'cpu', slow=True),
        Contender('exact', 'cpu', 'mine.pth', 'exact', slow=True),
        Contender('fast', 'cpu', 'mine.pth', 'fast'),
        Contender('light_fast', 'cpu', 'light', 'fast'),
    ]


def test_on_a_gpu_fp16_and_the_peak_rate_are_measured_too():
    chosen = choose_contenders(['exact'], '', 'cuda')
    assert [(c.name, c.precision, c.slow) for c in chosen] == [
        *(('torchvision', 'auto', False), ('exact', 'auto', False)),
        *(('exact', 'fp16', False), ('matrix product', 'auto', False)),
    ]


def test_the_preprocessing_and_the_mask_of_torchvision_are_those_of_its_documentation(small_image):
    network = load(Contender('torchvision', 'cpu'))
    image = small_image.copy()
    batch = network.prepare(image)
    red = (image[0, 0, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(batch[0, 0, 0, 0], torch.tensor(red, dtype=torch.float32))
    logits = network.network(batch)
    assert logits.shape == (1, 2, 64, 80)
    assert not logits.requires_grad
    mask = network.image(image)
    assert torch.equal(torch.from_numpy(mask), logits[0, 1] > logits[0, 0])


def test_the_roofline_is_the_flop_of_the_network_at_the_rate_of_the_product(monkeypatch):
    monkeypatch.setattr(contenders, 'PRODUCT_SIDE', 1000)  # 2 GFLOP
    assert 3 * 1e9 < roofline_ms(3.0, 'light', (640, 480)) * 2e9 < 3 * 20e9


def test_a_preset_runs_its_network_and_segments_an_image(small_image, monkeypatch):
    by_torch = partial(Segmenter, backend='torch')  # it needs no compilation
    monkeypatch.setattr('rock_seg_ros.perception.inference.segmenter.Segmenter', by_torch)
    network = load(Contender('light', 'cpu', 'light', 'balanced'))
    assert network.precision == 'fp32'
    assert network.network(network.prepare(small_image)).shape[-2:] == (64, 80)
    assert network.image(small_image).shape == (64, 80)


def test_a_network_is_measured_in_its_own_process_which_ignores_ctrl_c(small_image):
    with Worker(Contender('torchvision', 'cpu')) as worker:
        os.kill(worker._process.pid, signal.SIGINT)
        assert worker.await_loaded() == 'fp32'
        for kind in ('network', 'image'):
            run = worker.run(kind, small_image)
            assert 0 < run.seconds < 60
            assert 50 < run.rss_mb < 20_000
    assert not worker._process.is_alive()


@pytest.fixture
def worker():
    """A worker without a process, and the other end of its connection."""
    worker = Worker.__new__(Worker)
    worker.contender = Contender('exact', 'cpu', 'none.safetensors', 'exact')
    worker._connection, other = Pipe()
    return worker, other


def test_an_error_in_loading_is_raised_with_its_reason(worker):
    worker, other = worker
    contenders._serve(other, worker.contender)
    with pytest.raises(BenchError, match=r'^exact: .*none.safetensors: no such file$'):
        worker.await_loaded()


def test_a_process_that_ended_is_an_error(worker):
    worker, other = worker
    other.close()
    with pytest.raises(BenchError, match=r'^exact: the process ended unexpectedly$'):
        worker.await_loaded()


def test_the_process_ends_quietly_if_nobody_waits_for_its_error(worker):
    worker, other = worker
    worker._connection.close()
    contenders._serve(other, worker.contender)
