# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rock_seg_ros.tools.doctor import machine


@pytest.fixture
def available(monkeypatch, tmp_path):
    """A machine with 8 GiB available, in a container without a limit."""
    meminfo = tmp_path / 'meminfo'
    meminfo.write_text('MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n')
    (tmp_path / 'memory.current').write_text('1073741824\n')
    (tmp_path / 'memory.max').write_text('max\n')
    monkeypatch.setattr(machine, 'MEMORY', meminfo)
    monkeypatch.setattr(machine, 'CGROUP', tmp_path)
    return tmp_path


def test_available_memory_is_ok(available):
    (finding,) = machine.memory()
    assert (finding.state, finding.text) == ('ok', '8192 MiB available')


def test_the_limit_of_a_container_counts(available):
    (available / 'memory.max').write_text(f'{2**31}\n')
    (finding,) = machine.memory()
    assert finding.state == 'warning'
    assert finding.text.startswith('1024 MiB available')
    assert finding.fix


def test_the_cores_are_counted():
    (finding,) = machine.cores()
    assert finding.state == 'ok'
