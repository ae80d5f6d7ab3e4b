# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rock_seg_ros.tools.doctor import dds


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name in ('ROS_LOCALHOST_ONLY', *dds.PROFILES):
        monkeypatch.delenv(name, raising=False)


def test_the_domain_and_the_range_are_reported(monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    (finding,) = dds.settings()
    assert finding.state == 'ok'
    assert finding.text == 'ROS_DOMAIN_ID 42, ROS_AUTOMATIC_DISCOVERY_RANGE LOCALHOST'


@pytest.mark.parametrize(
    ('name', 'value', 'state', 'fix'),
    [
        ('ROS_DOMAIN_ID', '300', 'failed', 'export ROS_DOMAIN_ID=0'),
        ('ROS_DOMAIN_ID', 'rover', 'failed', 'export ROS_DOMAIN_ID=0'),
        ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'localhost', 'failed',
         'export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET'),
        ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'OFF', 'warning',
         'export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST'),
        ('ROS_LOCALHOST_ONLY', '1', 'warning', 'unset ROS_LOCALHOST_ONLY'),
        ('FASTDDS_DEFAULT_PROFILES_FILE', '/no/such.xml', 'failed',
         'unset FASTDDS_DEFAULT_PROFILES_FILE FASTRTPS_DEFAULT_PROFILES_FILE'),
    ],
)  # fmt: skip
def test_an_invalid_setting_is_reported_with_the_command_that_fixes_it(
    name, value, state, fix, monkeypatch
):
    monkeypatch.setenv(name, value)
    (finding,) = dds.settings()
    assert (finding.state, finding.fix) == (state, fix)
    assert value in finding.text or name in finding.text


def test_two_processes_find_each_other():
    (finding,) = dds.discovery()
    assert finding.state == 'ok', finding.text
    assert 'two processes exchanged a message' in finding.text


def test_without_discovery_the_subscriber_reports_one_line():
    program = (
        'import sys; from rock_seg_ros.tools.doctor import discovery; discovery.TIMEOUT = 0.1;'
        'sys.argv[1:] = ["receive", "rock_seg_doctor_nobody"]; sys.exit(discovery.main())'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == 'two processes did not find each other within 0 s'


@pytest.mark.parametrize(
    ('works', 'fix'),
    [
        ({'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}, 'export FASTDDS_BUILTIN_TRANSPORTS=UDPv4'),
        (
            {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'},
            'export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST',
        ),
        (None, 'sudo ip link set lo up multicast on'),
    ],
)
def test_a_failure_is_tried_again_with_other_settings_to_find_its_cause(works, fix, monkeypatch):
    def exchange(variables):
        status = 0 if variables == works else 1
        return SimpleNamespace(returncode=status, stdout='0.5', stderr='did not find each other\n')

    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'SUBNET')
    monkeypatch.setattr(dds, 'exchange', exchange)
    (finding,) = dds.discovery()
    assert (finding.state, finding.fix) == ('failed', fix)
    assert finding.text.startswith('did not find each other')


def test_a_subscriber_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(dds, 'START_TIMEOUT', 0.01)
    result = dds.exchange({})
    assert result.returncode == 1
    assert 'did not end within' in result.stderr


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Shared memory with one live segment of Fast DDS, and its free size."""
    monkeypatch.setattr(dds, 'SHARED_MEMORY', tmp_path)
    monkeypatch.setattr(dds, 'CONTAINER', tmp_path / 'none')

    def free(size):
        usage = SimpleNamespace(free=size)
        monkeypatch.setattr(dds.shutil, 'disk_usage', lambda _: usage)

    free(2**30)
    return SimpleNamespace(folder=tmp_path, set_free=free)


def segment(folder, number):
    """Creates a segment; returns its open lock file."""
    name = f'fastrtps_{number:016x}'
    (folder / name).touch()
    return (folder / f'{name}_el').open('wb')


def test_a_segment_whose_owner_lives_is_ok(memory):
    with segment(memory.folder, 1) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (finding,) = dds.shared_memory()
    assert (finding.state, finding.fix) == ('ok', '')
    assert '1024 MiB free' in finding.text


def test_segments_without_an_owner_are_counted(memory):
    for number in (1, 2):
        segment(memory.folder, number).close()
    (memory.folder / 'fastrtps_port7411').touch()
    (finding,) = dds.shared_memory()
    assert (finding.state, finding.fix) == ('warning', 'fastdds shm clean')
    assert '2 segments left' in finding.text


def test_the_small_shared_memory_of_a_container_is_a_warning(memory, monkeypatch):
    memory.set_free(64 * 2**20)
    (finding,) = dds.shared_memory()
    assert finding.fix == 'sudo mount -o remount,size=1G /dev/shm'
    monkeypatch.setattr(dds, 'CONTAINER', memory.folder)
    (finding,) = dds.shared_memory()
    assert finding.state == 'warning'
    assert '--ipc host' in finding.fix
    assert '--shm-size 1g' in finding.fix
