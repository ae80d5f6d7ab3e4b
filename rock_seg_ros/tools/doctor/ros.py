# SPDX-License-Identifier: Apache-2.0
"""Checks of ROS and its packages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import rock_seg_ros
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.doctor.finding import Finding, import_or_reason, pip_install

OLD_DISTRIBUTIONS = ('foxy', 'galactic', 'humble', 'iron', 'noetic')
DEFAULT_DISTRIBUTION = 'jazzy'
ROS_FOLDER = Path('/opt/ros')
REQUIREMENTS = Path(rock_seg_ros.__file__).parents[1] / 'environment' / 'requirements-ros.txt'
MESSAGES = (
    'diagnostic_msgs',
    'geometry_msgs',
    'lifecycle_msgs',
    'rcl_interfaces',
    'sensor_msgs',
    'std_msgs',
    'std_srvs',
    'visualization_msgs',
)
# Module → package of apt without its prefix, and what is missing without it.
OPTIONAL = {
    'vision_msgs.msg': ('vision-msgs', '~/detections and ~/label_info are not published'),
    'tf2_ros': ('tf2-ros-py', 'ground_plane: tf and fixed_frame cannot be used'),
    'launch_ros': ('launch-ros', 'the launch file cannot be used'),
}


def ros() -> Iterator[Finding]:
    """Checks the distribution, rclpy and the RMW implementation."""
    distribution = os.environ.get('ROS_DISTRO', '')
    if distribution in OLD_DISTRIBUTIONS:
        text = f'{distribution} is too old; Jazzy or newer is needed'
        yield Finding('ROS', 'failed', text, 'docker run -it --network host --ipc host ros:jazzy')
        return
    rclpy, reason = import_or_reason('rclpy')
    if rclpy is None:
        yield Finding('ROS', 'failed', f'rclpy: {reason}', _rclpy_fix())
        return
    try:
        rmw = rclpy.get_rmw_implementation_identifier()
    except Exception as error:  # noqa: BLE001  (rclpy raises its own classes)
        text = f'no RMW implementation: {first_line(error)}'
        yield Finding('ROS', 'failed', text, 'unset RMW_IMPLEMENTATION')
        return
    yield Finding(
        'ROS', 'ok', f'{distribution or "not sourced, its packages are from PyPI"}, {rmw}'
    )


def _rclpy_fix() -> str:
    """Returns the command that makes rclpy importable in this shell."""
    sourced = sorted(ROS_FOLDER.glob('*/setup.bash'))
    if 'ROS_DISTRO' in os.environ:  # its rclpy is for another Python
        return 'make demo PYTHON=/usr/bin/python3'
    if sourced:
        return f'source {sourced[-1]}'
    if REQUIREMENTS.exists():
        return pip_install('-r', str(REQUIREMENTS))
    return 'docker run -it --network host --ipc host ros:jazzy'


def messages() -> Iterator[Finding]:
    """Checks the packages of messages that the node needs."""
    if import_or_reason('rclpy')[0] is None:
        return
    missing = [name for name in MESSAGES if import_or_reason(_messages_of(name))[1]]
    if not missing:
        yield Finding('ROS messages', 'ok', f'{len(MESSAGES)} required packages are installed')
        return
    text = f'not installed: {", ".join(missing)}'
    yield Finding('ROS messages', 'failed', text, _install(*(n.replace('_', '-') for n in missing)))


def _messages_of(package: str) -> str:
    return f'{package}.srv' if package.endswith('srvs') else f'{package}.msg'


def optional_packages() -> Iterator[Finding]:
    """Checks the packages of ROS that some features need. cv_bridge is not one of them."""
    for module, (package, loss) in OPTIONAL.items():
        name = module.partition('.')[0]
        _, reason = import_or_reason(module)
        if reason:
            text = f'{reason}, so that {loss}'
            yield Finding(name, 'warning', text, _apt(package))
        else:
            yield Finding(name, 'ok', 'installed')
    yield Finding('cv_bridge', 'ok', 'not needed')


def _install(*packages: str) -> str:
    """Returns the command that installs packages that apt and PyPI have."""
    if 'ROS_DISTRO' in os.environ:
        return _apt(*packages)
    return pip_install(*(f'ros-{DEFAULT_DISTRIBUTION}-{package}' for package in packages))


def _apt(*packages: str) -> str:
    distribution = os.environ.get('ROS_DISTRO', DEFAULT_DISTRIBUTION)
    names = (f'ros-{distribution}-{package}' for package in packages)
    return shlex.join(['sudo', 'apt', 'install', *names])
