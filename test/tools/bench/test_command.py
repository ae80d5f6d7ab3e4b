# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import pytest

from rock_seg_ros.node.parameters import PARAMETERS
from rock_seg_ros.tools.bench import measurements
from rock_seg_ros.tools.bench.contenders import PROGRAM, BenchError
from rock_seg_ros.tools.bench.nodes import BenchNode
from rock_seg_ros.tools.bench.timing import Run
from rock_seg_ros.tools.main import main

TIMEOUT = 400.0
COMMAND = (sys.executable, '-m', 'rock_seg_ros.tools', 'bench', '--quick')
RATIOS = {
    *('cpu_exact_vs_torchvision', 'cpu_fast_vs_torchvision', 'shell_vs_plain_640x480'),
    *('gpu_vs_torchvision_fp32', 'gpu_vs_roofline'),
}
KEYS = {'name', 'size', 'device', 'precision', 'p50_ms', 'p95_ms', 'p99_ms', 'fps', 'rss_mb'}
# Answers all images with all outputs. As a slow stub it needs 50 ms for an image, drops others.
NODE = """
import sys, time, rclpy
from sensor_msgs.msg import Image, PointCloud2
rclpy.init(args=sys.argv)
node = rclpy.create_node('node')
kinds = {'mask': Image, 'overlay': Image, 'polygon_points': PointCloud2, 'rocks': PointCloud2}
publishers = {kind: [] for kind in kinds.values()}
for topic, kind in kinds.items():
    publishers[kind].append(node.create_publisher(kind, f'~/{topic}', 10))

def answer(image):
    time.sleep(0.05 * ('100' in sys.argv))
    for kind in publishers:
        for publisher in publishers[kind]:
            publisher.publish(kind(header=image.header))

node.create_subscription(Image, 'image', answer, 1)
rclpy.spin(node)
"""


class FakeWorker:
    """A worker without a process and a network. It cannot load the preset 'fast'."""

    def __init__(self, contender):
        self.contender = contender

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def await_loaded(self):
        if self.contender.name == 'fast':
            raise BenchError('fast: not calibrated')
        return 'fp32'

    def run(self, kind, image):
        assert kind in ('network', 'image')
        assert image.shape in ((48, 64, 3), (24, 32, 3))
        return Run({'torchvision': 0.4, 'exact': 0.2}.get(self.contender.name, 0.1), 1.0)


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
    """One run with stub networks and nodes: its JSON, errors, plot and parameters of nodes."""
    plot = tmp_path_factory.mktemp('bench') / 'plot.png'
    command = ['bench', '--quick', '--json', '--sizes', '64x48', '32x24', '--weights', 'mine.pth']
    command += ['-o', str(plot), '--presets', 'exact', 'balanced', 'fast']
    nodes = {}

    def start(name, program, parameters=MappingProxyType({}), outputs=('mask',)):
        nodes[name] = parameters
        return BenchNode(name, program, parameters, outputs)

    output, error = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict(os.environ),
        redirect_stdout(output),
        redirect_stderr(error),
    ):
        patch.setattr(measurements, 'Worker', FakeWorker)
        patch.setattr(measurements, 'BenchNode', start)
        for name in ('NODE', 'STUB_NODE', 'PLAIN_NODE'):
            patch.setattr(measurements, name, ('-c', NODE))
        status = main(command)
    signal.signal(signal.SIGTERM, handler)
    assert status == 0, error.getvalue()
    return json.loads(output.getvalue()), error.getvalue(), plot, nodes


def test_networks_nodes_shell_and_overload_are_measured_at_each_size(bench):
    result, *_ = bench
    names = [(case['name'], case['size'][0]) for case in result['cases']]
    network = ('network: torchvision', 'image: torchvision', 'network: exact', 'image: exact')
    balanced = ('network: balanced', 'image: balanced')
    shell = ('shell: rock_seg', 'shell: plain node')
    assert names == [
        *((name, 64) for name in (*network, *balanced)),
        *((name, 32) for name in balanced),
        *((name, 64) for name in ('node: plain node', 'node: exact', 'node: balanced')),
        ('node: balanced', 32),
        *((name, 64) for name in shell),
        *((name, 32) for name in shell),
        ('overload: age at 100 Hz', 64),
    ]
    for case in result['cases']:
        assert case.keys() >= KEYS
        assert 0 < case['p50_ms'] <= case['p95_ms'] <= case['p99_ms']


def test_the_ratios_are_of_medians_in_this_run(bench):
    result, *_ = bench
    assert result['ratios'].keys() >= RATIOS
    assert result['ratios']['cpu_exact_vs_torchvision'] == 2.0
    assert result['ratios']['cpu_balanced_vs_torchvision'] == 4.0
    assert result['ratios']['shell_vs_plain_64x48'] > 0
    assert result['machine']['cores'] >= 1


def test_a_preset_that_cannot_be_loaded_is_reported_and_left_out(bench):
    result, error, *_ = bench
    assert 'rock_seg bench: not measured: fast: not calibrated\n' in error
    assert result['ratios']['cpu_fast_vs_torchvision'] is None


def test_an_overloaded_node_drops_images(bench):
    overload = bench[0]['cases'][-1]
    assert overload['p50_ms'] > 50  # the time of the stub network
    assert overload['runs'] < overload['images'] == 60
    assert overload['runs'] / overload['fps'] >= 0.99 * 60 / 100  # s


def test_the_nodes_get_parameters_that_the_node_has(bench):
    nodes = bench[3]
    assert list(nodes) == ['plain', 'exact_1', 'balanced_2', 'stub', 'plain_stub', 'overload']
    assert nodes['balanced_2']['preset'] == 'balanced'
    assert Path(nodes['balanced_2']['weights']).name == 'mine.pth'
    for parameters in nodes.values():
        assert parameters.keys() <= PARAMETERS.keys()


def test_the_plot_is_written(bench):
    assert bench[2].stat().st_size > 1000


def networks_of(pid):
    """Returns the ids of the processes of networks."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [child for child in children if PROGRAM in command_line(child)]


def command_line(pid):
    try:
        return Path(f'/proc/{pid}/cmdline').read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ''


@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_all_processes_without_a_traceback(number, status):
    process = subprocess.Popen(COMMAND, stderr=subprocess.PIPE, text=True, process_group=0)
    deadline = time.monotonic() + TIMEOUT
    while not (started := networks_of(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status
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
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b'importing\n'
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--sizes', '640'], 'must be like 640x480, not 640'),
        (['--sizes', '0x480'], 'must be like 640x480, not 0x480'),
        (['--seconds', '0'], 'must be 1 or more, not 0'),
        (['--overload', '0'], 'must be 1 or more, not 0'),
        (['--presets', 'quick'], "invalid choice: 'quick'"),
    ],
)
def test_wrong_arguments_are_a_usage_error_with_the_reason(arguments, reason, capsys):
    assert main(['bench', *arguments]) == 2
    assert reason in capsys.readouterr().err
