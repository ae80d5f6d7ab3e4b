# SPDX-License-Identifier: Apache-2.0
"""Sources that segment small samples, and a viewer with the protocol of the page."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.tools.view.access import Access
from rock_seg_ros.tools.view.feed import Feed
from rock_seg_ros.tools.view.footage import open_footage
from rock_seg_ros.tools.view.server import Viewers
from rock_seg_ros.tools.view.sources import LocalSource

PATIENCE = 20.0

# The fixture `bench` of the tests of the node.
_SPEC = importlib.util.spec_from_file_location(
    'node_bench', Path(__file__).parents[2] / 'node' / 'conftest.py'
)
assert _SPEC is not None
assert _SPEC.loader is not None
_NODE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_NODE)
bench = _NODE.bench


class Viewer:
    """A websocket that receives messages and images, and acknowledges on request."""

    def __init__(self, socket):
        self.socket = socket
        self.replies = []
        self.status = {}
        self.message = {}

    async def next(self):
        """Receives a message; returns it and its images."""
        while True:
            message = await self._json()
            if 'reply' not in message:
                break
            self.replies.append(message['rejected'])
        self.message = message
        self.status = message.get('status', self.status)
        layers = message['frame']['layers'] if 'frame' in message else []
        return message, [(await self.socket.receive()).data for _ in layers]

    async def _json(self):
        received = await self.socket.receive()
        assert received.type == WSMsgType.TEXT, received
        return json.loads(received.data)

    async def acknowledge(self, **more):
        await self.send(ack=self.message['sequence'], **more)

    async def send(self, **message):
        await self.socket.send_json(message)

    async def until(self, true):
        """Receives and acknowledges until `true(message)`; returns that message and its images."""
        while True:
            message, images = await self.next()
            await self.acknowledge()
            if true(message):
                return message, images

    async def frame(self, true=lambda frame: True):
        """Receives until a frame for which `true(frame)`."""
        message, images = await self.until(lambda m: 'frame' in m and true(m['frame']))
        return message['frame'], images

    async def reply(self, **message):
        """Sends a message; returns the reason of its rejection, or ''."""
        await self.send(**message)
        count = len(self.replies)
        while len(self.replies) == count:
            await self.next()
            await self.acknowledge()
        return self.replies[-1]


class Served:
    """An application that is served, and viewers of it."""

    def __init__(self, client):
        self.client = client

    @asynccontextmanager
    async def viewer(self, **arguments):
        async with self.client.ws_connect('/live', **arguments) as socket:
            yield Viewer(socket)


@asynccontextmanager
async def serving(source, feed, access=None):
    application = Viewers(source, feed, access or Access('127.0.0.1')).application()
    async with TestClient(TestServer(application)) as client:
        yield Served(client)


def wait_for(condition, what='the condition'):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f'waited {PATIENCE} s for {what}'
        time.sleep(0.01)
    return result


@pytest.fixture
def view():
    return SimpleNamespace(
        serving=serving,
        wait_for=wait_for,
        run=lambda scenario: asyncio.run(asyncio.wait_for(scenario, 2 * PATIENCE)),
    )


@pytest.fixture
def make_source(segmenter, tmp_path):
    """Makes a LocalSource of files with its feed; stops it in the end."""
    made = []

    def make(*inputs, loop=False, settings=None, using=None):
        feed = Feed()
        footage = open_footage([str(name) for name in inputs], using or segmenter)
        source = LocalSource(feed, footage, settings or Settings(), tmp_path / 'records', loop=loop)
        made.append(source)
        return source, feed

    yield make
    for source in made:
        source.stop()
    assert not [t for t in threading.enumerate() if t.name == 'view source' and t.is_alive()]


@pytest.fixture
def samples(make_source, demo_data):
    """The two images of the samples: 'half.png' and 'same.png'."""
    return make_source(demo_data / 'samples' / 'images')


@pytest.fixture
def drive(make_source, demo_data):
    """The bag of 12 images in a loop."""
    return make_source(demo_data / 'mars_drive', loop=True)
