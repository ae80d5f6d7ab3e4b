# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from rock_seg_ros.tools.doctor import command
from rock_seg_ros.tools.doctor.finding import Finding
from rock_seg_ros.tools.main import main

OK = Finding('OpenCV', 'ok', '5.0')
WARNING = Finding('ray', 'warning', 'is not installed', 'pip install ray')
FAILED = Finding('ROS', 'failed', 'rclpy is not installed', 'source /opt/ros/jazzy/setup.bash')


@pytest.fixture
def checks(monkeypatch):
    def use(*findings):
        monkeypatch.setattr(command, 'CHECKS', tuple(lambda f=f: iter([f]) for f in findings))

    return use


def test_each_problem_is_followed_by_the_command_that_fixes_it(checks, capsys):
    checks(OK, FAILED)
    assert main(['doctor']) == 1
    first, second, fix, verdict = capsys.readouterr().out.splitlines()
    assert first.split() == ['ok', 'OpenCV', '5.0']
    assert second.split(maxsplit=2) == ['failed', 'ROS', 'rclpy is not installed']
    assert fix.strip() == 'fix: source /opt/ros/jazzy/setup.bash'
    assert verdict == 'the node cannot run; 1 failed, 0 warnings'


def test_a_warning_alone_is_status_0(checks, capsys):
    checks(OK, WARNING)
    assert main(['doctor']) == 0
    assert capsys.readouterr().out.endswith('the node can run; 0 failed, 1 warnings\n')


@pytest.mark.parametrize(('last', 'status'), [(WARNING, 0), (FAILED, 1)])
def test_json_is_one_object_with_all_findings(last, status, checks, capsys):
    checks(OK, last)
    assert main(['doctor', '--json']) == status
    report = json.loads(capsys.readouterr().out)
    assert report['ok'] == (status == 0)
    assert [check['name'] for check in report['checks']] == [OK.name, last.name]
    assert report['checks'][1] == {
        'name': last.name,
        'state': last.state,
        'text': last.text,
        'fix': last.fix,
    }


def test_a_check_that_raises_an_exception_is_a_failure_and_the_others_run(monkeypatch, capsys):
    def broken_library():
        raise OSError('libcudart.so.13: cannot open shared object file')

    monkeypatch.setattr(command, 'CHECKS', (broken_library, lambda: [OK]))
    assert main(['doctor']) == 1
    output = capsys.readouterr().out
    assert 'broken library' in output
    assert 'OSError: libcudart.so.13: cannot open shared object file' in output
    assert 'OpenCV' in output
