# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rock_seg_ros.tools import node_process
from rock_seg_ros.tools.node_process import NodeProcess

PATIENCE = 120.0


def wait_for(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, process.last_lines()
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_status_and_the_last_lines_of_a_node_that_cannot_start_are_available(tmp_path):
    with NodeProcess({}, {'image': 'no topic'}, tmp_path / 'log') as process:
        wait_for(lambda: process.status() is not None, process)
        assert process.status() == 1
        assert 'image:=no topic' in process.last_lines()


def test_the_node_ends_with_its_context_manager(tmp_path, light_weights_file):
    parameters = {'weights': str(light_weights_file), 'device': 'cpu'}
    with NodeProcess(parameters, {'image': '/eye'}, tmp_path / 'log') as process:
        wait_for(lambda: 'active: images from /eye' in process.last_lines(), process)
        assert process.status() is None
    assert process.status() == 0
    assert not alive(process.pid)
    assert 'Traceback' not in (tmp_path / 'log').read_text()


@pytest.fixture
def ignoring_sigint(tmp_path, monkeypatch):
    """Replaces the node by a process that ignores SIGINT."""
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=1)"
    script = script_of(tmp_path, f'{code}; time.sleep(600)')
    monkeypatch.setattr(node_process.sys, 'executable', str(script))
    monkeypatch.setattr(node_process, 'STOP_TIMEOUT', 0.2)


@pytest.mark.usefixtures('ignoring_sigint')
def test_a_process_that_ignores_the_interrupt_is_killed(tmp_path):
    with NodeProcess({}, {}, tmp_path / 'log') as process:
        wait_for(lambda: process.last_lines() == 'up', process)
    assert process.status() == -signal.SIGKILL


@pytest.mark.usefixtures('ignoring_sigint')
def test_ctrl_c_during_the_stop_kills_the_process_and_is_raised(tmp_path, monkeypatch):
    def interrupted(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    process = NodeProcess({}, {}, tmp_path / 'log')
    wait_for(lambda: process.last_lines() == 'up', process)
    monkeypatch.setattr(process._process, 'wait', interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.stop()
    assert process.status() == -signal.SIGKILL


def script_of(tmp_path, code):
    """Writes an executable that runs Python code instead of the node."""
    script = tmp_path / 'python'
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def idle(tmp_path):
    return script_of(tmp_path, 'import time; time.sleep(600)')


def test_the_node_has_its_own_process_group(tmp_path, idle, monkeypatch):
    monkeypatch.setattr(node_process.sys, 'executable', str(idle))
    with NodeProcess({}, {}, tmp_path / 'log') as process:
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_the_node_ends_when_the_process_that_started_it_is_killed(tmp_path, idle, number):
    code = (
        'import sys, time, pathlib\n'
        'from rock_seg_ros.tools.node_process import NodeProcess\n'
        'sys.executable = sys.argv[1]\n'
        "process = NodeProcess({}, {}, pathlib.Path(sys.argv[1] + '.log'))\n"
        'print(process.pid, flush=True)\n'
        'time.sleep(600)\n'
    )
    command = [sys.executable, '-c', code, str(idle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        node = int(parent.stdout.readline())
        parent.send_signal(number)
    deadline = time.monotonic() + PATIENCE
    while running(node):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid):
    """Returns whether a process runs and is not a zombie."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_is_handled_after_it(tmp_path, idle, number):
    code = (
        'import os, pathlib, signal, sys\n'
        'from rock_seg_ros.tools.node_process import NodeProcess\n'
        'number = int(sys.argv[2])\n'
        'signal.signal(number, signal.default_int_handler)\n'
        'os.register_at_fork(after_in_parent=lambda: signal.raise_signal(number))\n'
        'sys.executable = sys.argv[1]\n'
        'try:\n'
        "    NodeProcess({}, {}, pathlib.Path(sys.argv[1] + '.log'))\n"
        'except KeyboardInterrupt:\n'
        "    print('interrupted')\n"
    )
    command = [sys.executable, '-c', code, str(idle), str(int(number))]
    assert subprocess.check_output(command, text=True) == 'interrupted\n'


def test_the_last_lines_are_joined_to_one_line(tmp_path):
    with NodeProcess({'min_area': 'many'}, {}, tmp_path / 'log') as process:
        process.stop()
        (tmp_path / 'log').write_text('\n'.join(f'line {n}' for n in range(9)))
        assert process.last_lines() == 'line 4 | line 5 | line 6 | line 7 | line 8'
