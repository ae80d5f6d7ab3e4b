# SPDX-License-Identifier: Apache-2.0
"""The command `rock_seg view`, and its errors."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.main import main
from rock_seg_ros.tools.view.access import listen

ROOT = Path(__file__).parents[3]
STARTED = re.compile(r'^rock_seg view: open (http://\S+) in a browser; Ctrl-C ends it\n$')


@pytest.mark.parametrize(
    'arguments', [[], ['a.png', '--camera', '0'], ['--camera', '0', '--node', '/rock_seg']]
)
def test_exactly_one_source_is_required(arguments, capsys):
    assert main(['view', *arguments]) == 2
    assert capsys.readouterr().err == 'rock_seg view: name one of IN, --camera and --node\n'


def test_a_port_in_use_is_reported_before_the_input_is_opened(capsys):
    with listen('127.0.0.1', 0) as taken:
        port = taken.getsockname()[1]
        assert main(['view', '/no/file', '--port', str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'rock_seg view: 127.0.0.1 port {port}: Address already in use; ')
    assert error.count('\n') == 1


def test_an_input_that_cannot_be_opened_is_an_error_of_one_line(
    tmp_path, light_weights_file, capsys
):
    (tmp_path / 'bad.mcap').write_bytes(b'nothing')
    given = ['view', str(tmp_path / 'bad.mcap'), '--port', '0', '--weights', light_weights_file]
    assert main(list(map(str, given))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'bad.mcap: ' in line


def test_without_aiohttp_the_error_names_the_missing_dependency(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith('rock_seg_ros.tools.view')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'aiohttp', None)
    assert main(['view', 'x']) == 1
    assert capsys.readouterr().err == 'rock_seg view: missing dependency: aiohttp\n'


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_the_command_within_two_seconds_and_completes_the_recording(
    demo_data, tmp_path, light_weights_file, number, status
):
    weights = ['--weights', light_weights_file]
    command = ['view', demo_data / 'mars_drive', '--loop', *weights, '--port', '0']
    process = subprocess.Popen(
        [sys.executable, '-m', 'rock_seg_ros.tools', *command, '--record-folder', tmp_path / 'out'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {'PYTHONPATH': str(ROOT)},
    )
    try:
        assert process.stdout is not None
        (url,) = STARTED.match(process.stdout.readline()).groups()
        asyncio.run(_watch_and_interrupt(url, process, number))
        began = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - began < 2
        assert (process.returncode, errors) == (status, '')
    finally:
        process.kill()
        process.wait()
    (path,) = (tmp_path / 'out').iterdir()
    with Bag(path) as bag:
        assert sum(topic.count for topic in bag.topics)


async def _watch_and_interrupt(url, process, number):
    """Watches until a result is recorded, then signals the process while still connected."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f'{url}live') as socket:
        await socket.send_json({'command': 'record'})
        frames = 0
        while frames < 2:
            message = await socket.receive()
            if message.type == aiohttp.WSMsgType.TEXT and 'sequence' in (
                content := json.loads(message.data)
            ):
                frames += 'frame' in content and bool(content)
                await socket.send_json({'ack': content['sequence']})
        process.send_signal(number)
        while (await socket.receive()).type not in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSING,
            aiohttp.WSMsgType.CLOSED,
        ):
            pass
