# SPDX-License-Identifier: Apache-2.0
"""Checks of DDS: its settings, discovery between two processes, and shared memory."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from rock_seg_ros.tools.doctor.finding import Finding, import_or_reason
from rock_seg_ros.tools.doctor.packages import MIB
from rock_seg_ros.tools.node_process import child_environment

PROGRAM = 'rock_seg_ros.tools.doctor.discovery'
START_TIMEOUT = 60.0
RANGES = ('SUBNET', 'LOCALHOST', 'OFF', 'SYSTEM_DEFAULT')
MAX_DOMAIN = 232
PROFILES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
SHARED_MEMORY = Path('/dev/shm')
CONTAINER = Path('/.dockerenv')
# The camera and the node have a segment of 64 MiB each with config/fastdds.xml.
MIN_SHARED_MEMORY = 128 * MIB
SEGMENT = re.compile(r'fast(?:rtps|dds)_[0-9a-f]{16}')
# Settings with which discovery is tried again if it fails, and what their success means.
RETRIES = (
    ('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4', 'shared memory does not work'),
    ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST', 'the network blocks multicast'),
)


def settings() -> Iterator[Finding]:
    """Checks the environment variables of ROS and Fast DDS."""
    domain = os.environ.get('ROS_DOMAIN_ID') or '0'
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE') or 'SUBNET'
    profile = next((os.environ[name] for name in PROFILES if os.environ.get(name)), '')
    text = f'ROS_DOMAIN_ID {domain}, ROS_AUTOMATIC_DISCOVERY_RANGE {reach}'
    if profile:
        text += f', profiles {profile}'
    if not domain.isdecimal() or int(domain) > MAX_DOMAIN:
        text = f'ROS_DOMAIN_ID is {domain}; it must be 0 to {MAX_DOMAIN}'
        yield Finding('DDS settings', 'failed', text, 'export ROS_DOMAIN_ID=0')
    elif reach not in RANGES:
        text = f'ROS_AUTOMATIC_DISCOVERY_RANGE is {reach}; it must be one of {", ".join(RANGES)}'
        fix = 'export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET'
        yield Finding('DDS settings', 'failed', text, fix)
    elif profile and not Path(profile).is_file():
        yield Finding('DDS settings', 'failed', f'{profile}: there is no such profiles file',
                      f'unset {" ".join(PROFILES)}')  # fmt: skip
    elif reach == 'OFF':
        fix = 'export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST'
        yield Finding('DDS settings', 'warning', f'{text}: no process finds another one', fix)
    elif 'ROS_LOCALHOST_ONLY' in os.environ:
        fix = 'unset ROS_LOCALHOST_ONLY'
        yield Finding('DDS settings', 'warning', f'{text}; ROS_LOCALHOST_ONLY overrides it', fix)
    else:
        yield Finding('DDS settings', 'ok', text)


def discovery() -> Iterator[Finding]:
    """Checks that a publisher and a subscriber in two processes of this machine find each other."""
    if import_or_reason('rclpy')[0] is None or import_or_reason('std_msgs.msg')[0] is None:
        return
    first = exchange({})
    if first.returncode == 0:
        text = f'two processes exchanged a message {float(first.stdout):.1f} s after their start'
        yield Finding('DDS discovery', 'ok', text)
        return
    lines = first.stderr.strip().splitlines() or ['they did not find each other']
    for name, value, meaning in RETRIES:
        if os.environ.get(name) != value and exchange({name: value}).returncode == 0:
            text = f'{lines[-1]}; with {name}={value} they did, so {meaning}'
            yield Finding('DDS discovery', 'failed', text, f'export {name}={value}')
            return
    fix = 'sudo ip link set lo up multicast on'
    yield Finding('DDS discovery', 'failed', lines[-1], fix)


def exchange(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a publisher and a subscriber.

    Args:
        variables: Environment variables that are set for both.

    Returns:
        Exit status 0 and the time (s) from the start of the subscriber to its first message on
        stdout; or another status and the reason on the last line of stderr.
    """
    topic = f'rock_seg_doctor_{uuid.uuid4().hex}'
    environment = {**child_environment(), **variables}
    command = [sys.executable, '-m', PROGRAM]
    publisher = subprocess.Popen(
        [*command, 'publish', topic],
        env=environment,
        stdin=subprocess.PIPE,  # the publisher ends at its end, also if this process is killed
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return subprocess.run(
            [*command, 'receive', topic],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reason = f'the subscriber did not end within {START_TIMEOUT:.0f} s'
        return subprocess.CompletedProcess(command, 1, '', reason)
    finally:
        publisher.kill()
        publisher.communicate()


def shared_memory() -> Iterator[Finding]:
    """Checks the size of the shared memory, and finds what ended processes left in it."""
    if not SHARED_MEMORY.is_dir():
        text = f'{SHARED_MEMORY} does not exist, so that DDS uses UDP'
        yield Finding('shared memory', 'warning', text, 'docker run --ipc host IMAGE')
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    left = [path for path in SHARED_MEMORY.glob('fast*') if is_left_over(path)]
    text = f'{free // MIB} MiB free in {SHARED_MEMORY}'
    if left:
        text += f', {len(left)} segments left by processes that were killed'
    if free < MIN_SHARED_MEMORY:
        fix = 'sudo mount -o remount,size=1G /dev/shm'
        if CONTAINER.exists():
            fix = 'docker run --ipc host IMAGE    # or: docker run --shm-size 1g IMAGE'
        if left:
            fix = 'fastdds shm clean'
        text += f'; large images need {MIN_SHARED_MEMORY // MIB} MiB'
        yield Finding('shared memory', 'warning', text, fix)
    elif left:
        yield Finding('shared memory', 'warning', text, 'fastdds shm clean')
    else:
        yield Finding('shared memory', 'ok', text)


def is_left_over(segment: Path) -> bool:
    """Whether a file is a segment of Fast DDS without an owner, which would lock its `_el` file."""
    if not SEGMENT.fullmatch(segment.name):
        return False
    try:
        with segment.with_name(f'{segment.name}_el').open('rb') as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # locked, or of another user
        return False
    return True
