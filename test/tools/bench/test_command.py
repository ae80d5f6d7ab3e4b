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

from rock_seg_ros.tools.bench.command import ratios_of, to_json
from rock_seg_ros.tools.bench.timing import Case, Run
from rock_seg_ros.tools.main import main

TIMEOUT = 400.0
SIZE = (640, 480)
FIXED_RATIOS = {
    'cpu_exact_vs_torchvision',
    'cpu_fast_vs_torchvision',
    'shell_vs_plain_640x480',
    'gpu_vs_torchvision_fp32',
    'gpu_vs_roofline',
}


def start(*arguments, **how):
    return subprocess.Popen(
        [sys.executable, '-m', 'rock_seg_ros.tools', 'bench', '--quick', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},  # more threads are slow on busy cores
        **how,
    )


def case(kind, name, seconds, size=SIZE, device='cpu', precision='fp32', limit_ms=None):
    return Case(kind, name, size, device, precision, [Run(seconds, 1.0)], limit_ms)


def test_one_run_measures_networks_nodes_shell_and_overload(tmp_path, weights_file):
    plot = tmp_path / 'plot.png'
    presets = ('--presets', 'balanced', 'fast')
    process = start('--json', '--weights', weights_file, '-o', plot, *presets)
    output, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, error
    result = json.loads(output)
    names = [case['name'] for case in result['cases']]
    assert names == [
        *('network: torchvision', 'image: torchvision', 'network: eager'),
        *('network: balanced', 'image: balanced'),
        *('node: plain node', 'node: balanced'),
        *('shell: rock_seg', 'shell: plain node', 'shell: echo node', 'overload: age at 100 Hz'),
    ]
    assert result['machine']['cores'] >= 1
    for measured in result['cases']:
        assert 0 < measured['p50_ms'] <= measured['p95_ms'] <= measured['p99_ms']
        assert measured['rss_mb'] > 100
    overload = result['cases'][-1]
    assert overload['p50_ms'] > 100  # the time of the stub network
    assert overload['runs'] < overload['images']  # the node dropped the others
    assert overload['runs'] / overload['fps'] >= 0.99 * overload['images'] / 100  # s
    assert result['ratios'].keys() >= FIXED_RATIOS
    assert result['ratios']['cpu_balanced_vs_torchvision'] > 0
    assert result['ratios']['shell_vs_plain_640x480'] > 0
    assert result['ratios']['cpu_fast_vs_torchvision'] is None
    assert 'not measured: fast: ' in error  # the weights for tests are not calibrated
    assert plot.stat().st_size > 1000


def test_ctrl_c_ends_all_processes_without_a_traceback(weights_file):
    process = start('--weights', weights_file, process_group=0)
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    deadline = time.monotonic() + TIMEOUT
    while not (started := children.read_text().split()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert 'Traceback' not in error
    deadline = time.monotonic() + TIMEOUT
    while any(Path(f'/proc/{child}').exists() for child in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ctrl_c_ends_the_program_although_an_import_catches_it(tmp_path):
    (tmp_path / 'torch.py').write_text(
        'import os, time\n'
        "os.write(1, b'importing\\n')\n"
        'try:\n    time.sleep(600)\nexcept BaseException:\n    pass\n'
        'raise SystemExit(3)\n'
    )
    command = [sys.executable, '-m', 'rock_seg_ros.tools', 'bench', '--quick']
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b'importing\n'
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


def test_ratios_compare_medians_at_the_first_size_and_are_none_without_measurements():
    cases = [
        case('network', 'torchvision', 3.0),
        case('network', 'eager', 2.6),
        case('network', 'exact', 2.0),
        case('network', 'exact', 0.1, size=(64, 48)),
        case('network', 'torchvision', 0.08, device='cuda'),
        case('network', 'exact', 0.04, device='cuda'),
        case('network', 'exact', 0.01, device='cuda', precision='fp16', limit_ms=4.0),
        case('shell', 'rock_seg', 0.005, precision=''),
        case('shell', 'plain node', 0.020, precision=''),
    ]
    ratios = ratios_of(cases, SIZE)
    assert ratios.keys() >= FIXED_RATIOS
    assert ratios['cpu_exact_vs_torchvision'] == 1.5
    assert ratios['cpu_exact_vs_eager'] == 1.3
    assert ratios['shell_vs_plain_640x480'] == 4.0
    assert ratios['shell_vs_plain_1920x1080'] is None
    assert ratios['gpu_vs_torchvision_fp32'] == 8.0
    assert ratios['gpu_vs_roofline'] == 2.5
    assert ratios['cpu_fast_vs_torchvision'] is None


def test_the_json_has_the_documented_keys():
    given = {'cpu_exact_vs_torchvision': 1.23456, 'gpu_vs_roofline': None}
    result = to_json({'cpu': 'it'}, [case('network', 'exact', 2.0)], given)
    assert result['machine'] == {'cpu': 'it'}
    assert result['ratios'] == {'cpu_exact_vs_torchvision': 1.235, 'gpu_vs_roofline': None}
    wanted = {'name', 'size', 'device', 'precision', 'p50_ms', 'p95_ms', 'p99_ms', 'fps', 'rss_mb'}
    assert result['cases'][0].keys() >= wanted


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--sizes', '640'], 'must be like 640x480, not 640'),
        (['--sizes', '0x480'], 'must be like 640x480, not 0x480'),
        (['--seconds', '0'], 'must be above 0, not 0'),
        (['--overload', '0'], 'must be 1 or more, not 0'),
        (['--presets', 'quick'], "invalid choice: 'quick'"),
    ],
)
def test_wrong_arguments_are_a_usage_error_with_the_reason(arguments, reason, capsys):
    assert main(['bench', *arguments]) == 2
    assert reason in capsys.readouterr().err
