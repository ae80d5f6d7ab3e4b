# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.demo import command as demo
from rock_seg_ros.tools.demo.command import clear, find_data
from rock_seg_ros.tools.main import main

TIMEOUT = 240.0


def start(*arguments, **how):
    return subprocess.Popen(
        [sys.executable, '-m', 'rock_seg_ros.tools', 'demo', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def children(pid):
    return Path(f'/proc/{pid}/task/{pid}/children').read_text().split()


def wait_for(condition, process):
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def test_the_light_demo_runs_the_node_and_writes_summary_images_and_recording(tmp_path, demo_data):
    output = tmp_path / 'demo_out'
    large = demo_data / 'samples/images/same.png'  # best-effort DDS drops messages of this size
    large.write_bytes(large.read_bytes() + bytes(900_000))
    process = start('-o', output, '--data', demo_data, '--light')
    printed, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, error
    summary = json.loads((output / 'summary.json').read_text())
    assert summary['frames_in'] <= summary['frames_played'] == demo.LIGHT_IMAGES < 12
    assert summary['frames_out'] + summary['frames_dropped'] == summary['frames_in']
    assert summary['frames_out'] >= 1
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p95']
    assert 0 <= summary['iou'] <= 1
    assert 'publishing it again' not in error
    assert Path(summary['weights']).stem == 'light'
    assert len(list(output.glob('overlay_[0-9]*.jpg'))) == summary['frames_out']
    assert (output / 'contact_sheet.jpg').stat().st_size > 0
    with Bag(output / 'recording') as bag:
        counts = {topic.name: topic.count for topic in bag.topics}
    assert counts['/rock_seg/mask'] >= summary['frames_out']
    assert f'frames out {summary["frames_out"]}' in ' '.join(printed.split())


def test_light_and_weights_are_a_usage_error(tmp_path, capsys):
    assert main(['demo', '--light', '--weights', 'resnet50', '-o', str(tmp_path / 'out')]) == 2
    assert 'use it without --weights' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_the_error_of_the_demo_names_the_reason_why_the_node_did_not_start(tmp_path, demo_data):
    missing = tmp_path / 'none.safetensors'
    process = start('-o', tmp_path / 'out', '--data', demo_data, '--weights', missing)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    line = error.splitlines()[-1]
    assert line.startswith('rock_seg demo: the node is unconfigured: ')
    assert f'{missing}: no such file' in line
    assert not (tmp_path / 'out' / 'summary.json').exists()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_demo_and_node_at_once_without_a_traceback(
    tmp_path, demo_data, light_weights_file, number
):
    options = ('-o', tmp_path / 'out', '--data', demo_data, '--weights', light_weights_file)
    process = start(*options, process_group=0)
    log = tmp_path / 'out' / 'node.log'
    wait_for(lambda: log.exists() and 'active' in log.read_text(), process)
    (node,) = children(process.pid)
    sent = time.monotonic()
    os.killpg(process.pid, number)  # a terminal also signals the whole group
    _, error = process.communicate(timeout=TIMEOUT)
    seconds = time.monotonic() - sent
    assert process.returncode == 128 + number
    assert 'Traceback' not in error + log.read_text()
    assert not Path(f'/proc/{node}').exists()
    assert seconds < 5  # it takes 2 s on an idle machine


def test_a_folder_that_is_not_from_a_demo_is_rejected_and_not_changed(tmp_path, capsys):
    kept = {tmp_path / name for name in ('overlay_1.jpg', 'summary.json', 'recording')}
    for path in kept:
        path.touch()
    assert main(['demo', '-o', str(tmp_path)]) == 2
    message = (
        f'{tmp_path}: is not empty and was not written by the demo; choose another folder with -o\n'
    )
    assert capsys.readouterr().err == f'rock_seg demo: {message}'
    assert set(tmp_path.iterdir()) == kept


def test_only_the_files_of_an_earlier_demo_are_removed(tmp_path):
    for name in ('overlay_000.jpg', 'contact_sheet.jpg', 'summary.json', 'node.log', 'mine.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'recording').mkdir()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_the_data_of_the_checkout_is_found():
    folder = find_data()
    assert (folder / 'mars_drive' / 'metadata.yaml').is_file()
    assert len(list((folder / 'samples' / 'images').glob('*.webp'))) == 4


def test_missing_data_is_an_error_with_the_option(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.rock_seg_ros, '__file__', str(tmp_path / 'a' / 'b.py'))
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='with --data FOLDER'):
        find_data()


def test_installed_data_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.rock_seg_ros, '__file__', str(tmp_path / 'a' / 'b.py'))
    index = tmp_path / 'share/ament_index/resource_index/packages'
    index.mkdir(parents=True)
    (index / 'rock_seg_ros').touch()
    (tmp_path / 'share/rock_seg_ros').mkdir()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    assert find_data() == tmp_path / 'share/rock_seg_ros/demo'
