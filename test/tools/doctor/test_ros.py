# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import pytest

from rock_seg_ros.tools.doctor import ros


@pytest.fixture(autouse=True)
def unsourced(monkeypatch, tmp_path):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(ros, 'ROS_FOLDER', tmp_path)
    return tmp_path


def test_rclpy_is_ok_with_its_rmw_implementation():
    (finding,) = ros.ros()
    assert finding.state == 'ok'
    assert 'rmw_' in finding.text


def test_an_old_distribution_is_a_failure(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    (finding,) = ros.ros()
    assert finding.state == 'failed'
    assert 'ros:jazzy' in finding.fix


def test_the_fix_for_an_installed_ros_is_to_source_it(monkeypatch, unsourced):
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    (unsourced / 'jazzy').mkdir()
    (unsourced / 'jazzy' / 'setup.bash').touch()
    (finding,) = ros.ros()
    assert finding.state == 'failed'
    assert finding.fix == f'source {unsourced}/jazzy/setup.bash'


def test_without_ros_the_fix_installs_rclpy_from_pypi(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    (finding,) = ros.ros()
    assert finding.fix.endswith('environment/requirements-ros.txt')


def test_the_fix_for_a_ros_of_another_python_names_that_python(monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    (finding,) = ros.ros()
    assert finding.fix == 'make demo PYTHON=/usr/bin/python3'


@pytest.mark.parametrize(
    ('distribution', 'fix'),
    [
        ('', f'{sys.executable} -m pip install ros-jazzy-sensor-msgs ros-jazzy-std-srvs'),
        ('kilted', 'sudo apt install ros-kilted-sensor-msgs ros-kilted-std-srvs'),
    ],
)
def test_missing_messages_are_named_with_the_command_that_installs_them(
    distribution, fix, monkeypatch
):
    if distribution:
        monkeypatch.setenv('ROS_DISTRO', distribution)
    monkeypatch.setitem(sys.modules, 'sensor_msgs.msg', None)
    monkeypatch.setitem(sys.modules, 'std_srvs.srv', None)
    (finding,) = ros.messages()
    assert finding.state == 'failed'
    assert finding.text == 'not installed: sensor_msgs, std_srvs'
    assert finding.fix == fix


def test_missing_optional_packages_are_warnings_and_cv_bridge_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', None)
    found = {finding.name: finding for finding in ros.optional_packages()}
    assert found['vision_msgs'].state == 'warning'
    assert '~/detections' in found['vision_msgs'].text
    assert found['vision_msgs'].fix == 'sudo apt install ros-jazzy-vision-msgs'
    assert found['cv_bridge'].text == 'not needed'
