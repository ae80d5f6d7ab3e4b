# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rock_seg_ros.tools import local_domain
from rock_seg_ros.tools.local_domain import DOMAINS, LocalDomain, use_local_domain


@pytest.fixture
def only_domain(monkeypatch):
    """The only domain of this process; its number is not that of a real one."""
    number = 1_000_000 + os.getpid()
    monkeypatch.setattr(local_domain, 'DOMAINS', [number])
    return number


def test_the_local_domain_is_limited_to_loopback(monkeypatch):
    for name in ('ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_DOMAIN_ID', 'ROS_STATIC_PEERS'):
        monkeypatch.setenv(name, '0')
    use_local_domain()
    assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert int(os.environ['ROS_DOMAIN_ID']) in DOMAINS
    assert 'ROS_STATIC_PEERS' not in os.environ


def test_the_dds_ports_of_local_domains_are_not_ephemeral_ports():
    base, per_domain, per_participant = 7400, 250, 2  # DDS-RTPS 2.5, 9.6.2.3
    assert DOMAINS[0] == 1
    assert base + per_domain * DOMAINS[-1] + 11 + per_participant * 50 <= 32768


def test_a_domain_is_claimed_once_until_it_is_released(only_domain):
    domain = LocalDomain()
    assert domain.number == only_domain
    with pytest.raises(OSError, match='are all in use by other demos'):
        LocalDomain()
    domain.release()
    LocalDomain().release()


def test_a_domain_of_another_process_is_not_claimed_until_that_process_ends(only_domain):
    program = (
        'from rock_seg_ros.tools import local_domain;'
        f'local_domain.DOMAINS = [{only_domain}]; domain = local_domain.LocalDomain();'
        'print(domain.number, flush=True); input()'
    )
    other = subprocess.Popen(
        [sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert int(other.stdout.readline()) == only_domain
        with pytest.raises(OSError, match='are all in use'):
            LocalDomain()
        other.kill()
        other.wait()
        LocalDomain().release()


def test_one_process_does_not_reuse_a_domain_at_once():
    first, second = LocalDomain(), LocalDomain()
    first.release()
    second.release()
    third = LocalDomain()
    third.release()
    assert len({first.number, second.number, third.number}) == 3
