# SPDX-License-Identifier: Apache-2.0
"""Start and end of the node as a separate process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import Trigger

from rock_seg_ros.perception.inference.weights_file import embedded_name

PATIENCE = 60.0


def start(*ros_args, program=('-m', 'rock_seg_ros.node'), **environment):
    return subprocess.Popen(
        [sys.executable, *program, '--ros-args', *ros_args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def wait_state():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    reports = []

    def record(message):
        reports.append({v.key: v.value for v in message.status[0].values})

    node.create_subscription(DiagnosticArray, '/diagnostics', record, 5)

    def wait(state, key='state'):
        """Waits for diagnostics with this state and this key."""
        reports.clear()
        deadline = time.monotonic() + PATIENCE
        while not any(report['state'] == state and key in report for report in reports):
            assert time.monotonic() < deadline, f'waited for {state}, received {reports}'
            executor.spin_once(0.1)

    def call(name):
        client = node.create_client(Trigger, name)
        assert client.wait_for_service(PATIENCE)
        client.call_async(Trigger.Request())

    wait.call = call
    yield wait
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def read_until(process, text):
    """Reads lines until one has this text; returns all lines read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            break
    return ''.join(lines)


def stop(process, number=signal.SIGINT):
    """Sends the signal; returns the seconds until the end, and the remaining output."""
    sent = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    return time.monotonic() - sent, output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_running_node_ends_within_2_s_without_a_traceback(wait_state, number):
    process = start()
    try:
        wait_state('active')
        seconds, output = stop(process, number)
    finally:
        process.kill()
    assert seconds < 2.0
    assert process.returncode == 0
    assert 'Traceback' not in output


def test_a_node_that_is_loading_its_network_ends_within_2_s_without_a_traceback():
    process = start()
    try:
        read_until(process, f'loading weights {embedded_name()}')
        seconds, output = stop(process)
    finally:
        process.kill()
    assert seconds < 2.0
    assert process.returncode == 0
    assert 'Traceback' not in output


# The node, whose loader returns COUNT networks and then never finishes.
ENDLESS_LOAD = """
import sys, threading
from functools import partial
from types import SimpleNamespace
from rock_seg_ros import entry_points
from rock_seg_ros.node import seg_node
from rock_seg_ros.perception.inference.metadata import ModelMetadata

network = SimpleNamespace(
    metadata=ModelMetadata(), device='cpu', precision='fp32', backend='torch',
    warm_up=lambda *_: None,
)
networks = [network] * COUNT
load = lambda _: networks.pop() if networks else threading.Event().wait()
seg_node.main = partial(seg_node.main, load=load)
entry_points.seg_node()
"""


@pytest.mark.parametrize(
    ('loaded', 'state', 'number'),
    [(0, 'configuring', signal.SIGINT), (1, 'active', signal.SIGTERM)],
)
def test_a_node_whose_network_never_finishes_loading_ends_within_2_s_without_an_error(
    wait_state, loaded, state, number
):
    process = start(program=('-c', ENDLESS_LOAD.replace('COUNT', str(loaded))))
    try:
        wait_state(state)
        if loaded:
            wait_state.call('/rock_seg/reload_weights')
            wait_state(state, 'loading')
        seconds, output = stop(process, number)
    finally:
        process.kill()
    assert seconds < 2.0
    assert process.returncode == 0
    assert output.count(f'loading weights {embedded_name()}') == 1 + loaded
    assert all('[INFO]' in line for line in output.splitlines()[1:])


def test_ctrl_c_during_imports_ends_the_node_without_a_traceback():
    process = start(PYTHONVERBOSE='1')
    try:
        assert 'Starting' in read_until(process, 'torch'), (
            'the slow import is announced before it starts'
        )
        seconds, output = stop(process)
    finally:
        process.kill()
    assert seconds < 2.0
    assert process.returncode == -signal.SIGINT  # a shell reports it as 130
    assert 'Traceback' not in output


def test_a_respawned_node_becomes_active_by_itself(wait_state):
    for _ in range(2):
        process = start()
        try:
            wait_state('active')
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    'ros_args', [('-p', 'weights'), ('--params-file', '/no/such/file.yaml'), ('--no-such-flag',)]
)
def test_invalid_ros_arguments_end_the_process_with_one_line(ros_args):
    process = start(*ros_args)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert len([line for line in output.splitlines() if line.startswith('seg_node: ')]) == 1
    assert 'Traceback' not in output


@pytest.mark.parametrize(
    ('assignment', 'named'), [('threshold:=7.0', 'threshold'), ('use_sim_time:=1', 'use_sim_time')]
)
def test_with_an_invalid_parameter_the_process_stays_running_unconfigured(
    wait_state, assignment, named
):
    process = start('-p', assignment)
    try:
        wait_state('unconfigured')
        _, output = stop(process)
    finally:
        process.kill()
    (line,) = [line for line in output.splitlines() if '[ERROR]' in line]
    assert 'cannot be configured' in line
    assert named in line
    assert process.returncode == 0
    assert 'Traceback' not in output


def test_an_unknown_argument_is_rejected():
    for arguments, status, expected in (
        (['--threshold', '0.5'], 2, 'unrecognized arguments: --threshold 0.5'),
        (['--help'], 0, '--ros-args -p PARAMETER:=VALUE'),
    ):
        completed = subprocess.run(
            [sys.executable, '-m', 'rock_seg_ros.node', *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert completed.returncode == status
        assert expected in completed.stdout + completed.stderr
