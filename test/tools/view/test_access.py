# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket

import pytest

from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.view.access import Access, is_loopback, listen


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', 'LOCALHOST', '::1', '127.0.0.2'])
def test_a_loopback_address_needs_no_token(host):
    assert is_loopback(host)
    assert Access(host).token == ''


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.168.0.9', 'robot.local'])
def test_another_address_has_a_new_random_token(host):
    first, second = Access(host), Access(host)
    assert len(first.token) >= 20
    assert first.token != second.token


def test_an_empty_token_is_rejected_except_on_loopback():
    assert Access('127.0.0.1', 'x').token == 'x'
    with pytest.raises(UsageError, match=r'--token is empty; --host 0\.0\.0\.0 needs one'):
        Access('0.0.0.0', '')


def test_the_url_has_the_token_and_a_reachable_host():
    assert Access('127.0.0.1').url(80) == 'http://127.0.0.1:80/'
    assert Access('::1').url(80) == 'http://[::1]:80/'
    url = Access('0.0.0.0', 'abc').url(81)
    assert url.endswith(':81/?token=abc')
    assert '0.0.0.0' not in url


@pytest.mark.parametrize(
    ('bound', 'header', 'allowed'),
    [
        ('127.0.0.1', '127.0.0.1:8080', True),
        ('127.0.0.1', 'localhost', True),
        ('127.0.0.1', '[::1]:8080', True),
        ('127.0.0.1', 'LocalHost:9', True),
        ('127.0.0.1', '192.168.0.9', False),
        ('127.0.0.1', 'localhost.other.example', False),
        ('127.0.0.1', '', False),
        ('127.0.0.1', '[', False),
        ('0.0.0.0', '192.168.0.9:8080', True),
        ('0.0.0.0', '[fe80::1]:8080', True),
        ('0.0.0.0', f'{socket.gethostname()}.local', True),
        ('0.0.0.0', 'other.example', False),
        ('robot.local', 'robot.local:8080', True),
        ('robot.local', 'robot.local.other.example', False),
    ],
)
def test_a_host_header_must_be_an_address_or_a_name_of_this_machine(bound, header, allowed):
    assert Access(bound)._allows_host(header) == allowed


def test_a_port_in_use_is_an_error_with_the_remedy():
    with (
        listen('127.0.0.1', 0) as taken,
        pytest.raises(UsageError, match=r'^127\.0\.0\.1 port \d+: Address already in use; choose'),
    ):
        listen('127.0.0.1', taken.getsockname()[1])


@pytest.mark.parametrize(
    ('host', 'port'), [('not a host', 0), ('192.0.2.1', 0), ('127.0.0.1', 70000)]
)
def test_an_address_of_another_machine_is_an_error_of_one_line(host, port):
    with pytest.raises(UsageError, match=f'^{host} port {port}: '):
        listen(host, port)
