# SPDX-License-Identifier: Apache-2.0
"""The node as a process of its own, as users start and stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray

PATIENCE = 60.0


def start(*ros_args, **environment):
    return subprocess.Popen(
        [sys.executable, '-m', 'rock_seg_ros.node', '--ros-args', *ros_args],
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
    states = []

    def keep(message):
        states.append({v.key: v.value for v in message.status[0].values}['state'])

    node.create_subscription(DiagnosticArray, '/diagnostics', keep, 5)

    def wait(state):
        states.clear()
        deadline = time.monotonic() + PATIENCE
        while state not in states:
            assert time.monotonic() < deadline, f'waited for {state}, saw {states}'
            executor.spin_once(0.1)

    yield wait
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def stop(process, number=signal.SIGINT):
    """Sends the signal; returns seconds until the end, and all output."""
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


def test_ctrl_c_during_imports_ends_the_node_without_a_traceback():
    process = start(PYTHONVERBOSE='1')
    try:
        for line in process.stdout:
            if 'torch' in line:
                break
        seconds, output = stop(process)
    finally:
        process.kill()
    assert seconds < 2.0
    assert process.returncode == -signal.SIGINT  # a shell tells it as 130
    assert 'Traceback' not in output


def test_a_node_that_was_killed_is_active_again_by_itself_after_a_respawn(wait_state):
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
def test_ros_arguments_that_are_none_end_the_start_with_one_line(ros_args):
    process = start(*ros_args)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert len([line for line in output.splitlines() if line.startswith('seg_node: ')]) == 1
    assert 'Traceback' not in output


@pytest.mark.parametrize(
    ('assignment', 'named'),
    [
        ('max_rate:=fast', 'max_rate'),
        ('threshold:=7.0', 'threshold'),
        ('max_rocks:=0', 'max_rocks'),
    ],
)
def test_a_parameter_that_is_not_legal_ends_the_start_with_one_line(assignment, named):
    process = start('-p', assignment)
    output, _ = process.communicate(timeout=PATIENCE)
    lines = [line for line in output.splitlines() if line.startswith('seg_node: ')]
    assert process.returncode == 1
    assert len(lines) == 1
    assert named in lines[0]
    assert 'Traceback' not in output


def test_an_argument_that_is_neither_ros_nor_help_is_refused():
    for arguments, status, told in (
        (['--threshold', '0.5'], 2, 'unrecognized arguments: --threshold 0.5'),
        (['--help'], 0, '--ros-args -p PARAMETER:=VALUE'),
    ):
        ended = subprocess.run(
            [sys.executable, '-m', 'rock_seg_ros.node', *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == status
        assert told in ended.stdout + ended.stderr
