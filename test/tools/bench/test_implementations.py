# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from rock_seg_ros.tools.bench import implementations as bench_contenders
from rock_seg_ros.tools.bench.implementations import (
    BenchError,
    ImplementationProcess,
    Job,
    Preset,
    Torchvision,
    rss_mb,
    scaled,
)


@pytest.fixture
def job(tmp_path, small_image, weights_file):
    file = tmp_path / 'image.png'
    cv2.imwrite(str(file), cv2.cvtColor(small_image, cv2.COLOR_RGB2BGR))

    def make(who, weights=weights_file):
        return Job(who, 'cpu', 'auto', str(weights), file)

    return make


def test_a_preset_runs_its_network_and_goes_the_whole_way(job, small_image):
    implementation = Preset(job('balanced'))
    assert implementation.precision == 'fp32'
    assert implementation.network(implementation.prepare(small_image)).shape == (1, 2, 64, 80)
    assert implementation.image(small_image).shape == (64, 80)


def test_torchvision_is_found_beside_the_package(job, small_image):
    implementation = Torchvision(job('torchvision'))
    image = small_image.copy()
    assert implementation.network(implementation.prepare(image)).shape == (1, 2, 64, 80)
    assert implementation.image(image).dtype == bool


def test_a_contender_measures_in_a_process_of_its_own(job):
    process = ImplementationProcess(job('balanced'))
    try:
        process.await_loaded()
        run = process.run('image', (40, 32))
    finally:
        process.stop()
    assert process.precision == 'fp32'
    assert 0 < run.seconds < 60
    assert 50 < run.rss_mb < 20_000


def test_what_cannot_be_loaded_says_why(job, tmp_path):
    process = ImplementationProcess(job('exact', tmp_path / 'none.safetensors'))
    try:
        with pytest.raises(BenchError, match=r'^exact: .*none.safetensors: no such file$'):
            process.await_loaded()
    finally:
        process.stop()


def test_ctrl_c_is_left_to_the_process_that_measures(job, tmp_path):
    process = ImplementationProcess(job('exact', tmp_path / 'none.safetensors'))
    try:
        os.kill(process._process.pid, signal.SIGINT)
        with pytest.raises(BenchError, match='no such file'):  # and not that it ended
            process.await_loaded()
    finally:
        process.stop()


def test_what_takes_too_long_to_load_is_given_up(job, monkeypatch):
    monkeypatch.setattr(bench_contenders, 'LOAD_TIMEOUT', 0.0)
    process = ImplementationProcess(job('balanced'))
    try:
        with pytest.raises(BenchError, match='balanced: not loaded'):
            process.await_loaded()
    finally:
        process.stop()


def test_the_image_is_scaled_to_width_and_height(job):
    assert scaled(job('exact').image, (40, 32)).shape == (32, 40, 3)
    with pytest.raises(OSError, match=r'none\.png: not an image'):
        scaled(Path('none.png'), (40, 32))


def test_the_memory_of_a_process_that_ended_is_not_a_number():
    assert rss_mb() > 10
    assert np.isnan(rss_mb('none'))
