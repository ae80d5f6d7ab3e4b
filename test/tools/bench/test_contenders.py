# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from rock_seg_ros.tools.bench.contenders import BenchError, Contender, Worker, choose_contenders


def test_a_weights_file_replaces_only_the_embedded_resnet50():
    chosen = choose_contenders(['exact', 'fast', 'light_fast'], 'mine.pth', 'cpu')
    assert chosen == [
        Contender('torchvision', 'cpu'),
        Contender('exact', 'cpu', 'mine.pth', 'exact'),
        Contender('fast', 'cpu', 'mine.pth', 'fast'),
        Contender('light_fast', 'cpu', 'light', 'fast'),
    ]


def test_on_a_gpu_exact_is_measured_in_fp16_too():
    chosen = choose_contenders(['exact'], '', 'cuda')
    names = [(contender.name, contender.precision) for contender in chosen]
    assert names == [('torchvision', 'auto'), ('exact', 'auto'), ('exact', 'fp16')]


def test_a_network_is_measured_in_its_own_process_which_ctrl_c_does_not_reach(small_image):
    with Worker(Contender('torchvision', 'cpu')) as worker:
        assert os.getpgid(worker._process.pid) != os.getpgid(0)
        assert worker.await_loaded() == 'fp32'
        for kind in ('network', 'image'):
            run = worker.run(kind, small_image)
            assert 0 < run.seconds < 60
            assert 50 < run.rss_mb < 20_000
    assert worker._process.poll() is not None


def test_a_process_that_ended_is_an_error(small_image):
    with Worker(Contender('exact', 'cpu', 'light', 'exact')) as worker:
        worker._process.kill()
        for wait in (worker.await_loaded, lambda: worker.run('image', small_image)):
            with pytest.raises(BenchError, match=r'^exact: the process ended unexpectedly$'):
                wait()
