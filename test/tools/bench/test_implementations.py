# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import pytest

from rock_seg_ros.tools.bench import implementations
from rock_seg_ros.tools.bench.implementations import (
    BenchError,
    ImplementationProcess,
    Job,
    load,
    read_scaled,
)


@pytest.fixture
def job(tmp_path, small_image, weights_file):
    file = tmp_path / 'image.png'
    cv2.imwrite(str(file), cv2.cvtColor(small_image, cv2.COLOR_RGB2BGR))

    def make(name, weights=weights_file):
        return Job(name, 'cpu', 'auto', str(weights), file)

    return make


def test_a_preset_runs_its_network_and_segments_an_image(job, small_image):
    implementation = load(job('balanced'))
    assert implementation.precision == 'fp32'
    assert implementation.network(implementation.prepare(small_image)).shape == (1, 2, 64, 80)
    assert implementation.image(small_image).shape == (64, 80)


def test_torchvision_runs_its_network_and_segments_an_image(job, small_image):
    implementation = load(job('torchvision'))
    image = small_image.copy()
    assert implementation.network(implementation.prepare(image)).shape == (1, 2, 64, 80)
    assert implementation.image(image).dtype == bool


def test_an_implementation_is_measured_in_its_own_process(job):
    process = ImplementationProcess(job('balanced'))
    try:
        process.await_loaded()
        run = process.run('image', (40, 32))
    finally:
        process.stop()
    assert process.precision == 'fp32'
    assert 0 < run.seconds < 60
    assert 50 < run.rss_mb < 20_000


def test_an_error_in_loading_is_raised_with_its_reason(job, tmp_path):
    process = ImplementationProcess(job('exact', tmp_path / 'none.safetensors'))
    try:
        with pytest.raises(BenchError, match=r'^exact: .*none.safetensors: no such file$'):
            process.await_loaded()
    finally:
        process.stop()


def test_the_process_of_an_implementation_ignores_ctrl_c(job, tmp_path):
    process = ImplementationProcess(job('exact', tmp_path / 'none.safetensors'))
    try:
        os.kill(process._process.pid, signal.SIGINT)
        with pytest.raises(BenchError, match='no such file'):
            process.await_loaded()
    finally:
        process.stop()


def test_an_implementation_that_is_not_loaded_in_time_is_an_error(job, monkeypatch):
    monkeypatch.setattr(implementations, 'LOAD_TIMEOUT', 0.0)
    process = ImplementationProcess(job('balanced'))
    try:
        with pytest.raises(BenchError, match='balanced: not loaded'):
            process.await_loaded()
    finally:
        process.stop()


def test_the_image_is_scaled_to_width_and_height(job):
    assert read_scaled(job('exact').image, (40, 32)).shape == (32, 40, 3)
    with pytest.raises(OSError, match=r'none\.png: not an image'):
        read_scaled(Path('none.png'), (40, 32))
