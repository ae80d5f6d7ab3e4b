# SPDX-License-Identifier: Apache-2.0
"""Serves the page, and sends results and state to its viewers over WebSockets.

A viewer gets the next message only after it has acknowledged the last one. The message has the
newest result; older ones are dropped. A slow viewer neither slows others nor needs memory.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from aiohttp import WSMsgType, web
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.image_io.encoding import EncodingError, encode_image
from rock_seg_ros.tools.view.access import HEADERS, Access
from rock_seg_ros.tools.view.feed import Feed, Result
from rock_seg_ros.tools.view.link import Link, Step
from rock_seg_ros.tools.view.sources import Source

STATIC = Path(__file__).with_name('static')
PAGES = {'/': 'index.html', '/view.css': 'view.css', '/view.js': 'view.js'}
HEARTBEAT = 10.0  # s; a viewer that does not answer for half of it is disconnected
MAX_COMMAND = 4096  # bytes
SNAPSHOT_QUALITY = 95
# What the page shows of a rock; a record has more.
SHOWN = ('id', 'area', 'score', 'bbox', 'diameter', 'diameter_mm', 'long_axis_mm', 'short_axis_mm')
SHUTDOWN_TIMEOUT = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Client:
    """A viewer of the page, with its settings and the state that was sent to it."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        source: Source,
        feed: Feed,
        wants: Callable[[], None],
    ) -> None:
        """Starts with the first layer; `wants` is called when the layers change."""
        self.layers: tuple[str, ...] = ('overlay',)
        self.changed = asyncio.Event()
        self._websocket = websocket
        self._source = source
        self._feed = feed
        self._wants = wants
        self._acknowledged = asyncio.Event()
        self._busy = 0.0  # time that the viewer needed to draw the last image, s
        self._link = Link()
        self._side = 0  # longer side of the canvas of the page, px; 0 = unknown
        self._selected: int | None = None
        self._shown = 0  # number of the last result
        self._sampled = 0
        self._status: dict[str, Any] = {}
        self._sequence = 0

    async def send(self) -> None:
        """Sends new results and state until the viewer disconnects."""
        self.changed.set()
        with suppress(ConnectionError):
            while not self._websocket.closed:
                await self.changed.wait()
                self.changed.clear()
                message, images = await self._compose()
                self._acknowledged.clear()
                started = time.monotonic()
                await self._websocket.send_json(message, dumps=_dumps)
                for image in images:
                    await self._websocket.send_bytes(image)
                await self._acknowledged.wait()
                if images:
                    newest = self._feed.result
                    waiting = newest is not None and newest.number != self._shown
                    self._link.acknowledged(time.monotonic() - started - self._busy, waiting)

    async def _compose(self) -> tuple[dict[str, Any], list[bytes]]:
        """Returns the state and, if there is a new result, the images of its layers."""
        self._sequence += 1
        message: dict[str, Any] = {'sequence': self._sequence}
        status = self._source.status()
        if status != self._status:
            message['status'] = self._status = status
        samples = self._feed.samples(self._sampled)
        if samples:
            self._sampled = samples[-1].number
            message['samples'] = [sample[1:] for sample in samples]
        if self._selected is not None:
            message['track'] = {
                'id': self._selected,
                'points': self._feed.track(self._selected),
            }
        images: list[bytes] = []
        result = self._feed.result
        if result is not None and result.number != self._shown:
            self._shown = result.number
            step = self._step(max(result.record['width'], result.record['height']))
            coded = await asyncio.to_thread(encode_layers, result, self.layers, step)
            images = list(coded.values())
            message['link'] = step._asdict()
            message['frame'] = {**_compact(result), 'layers': list(coded)}
        return message, images

    def _step(self, side: int) -> Step:
        """Returns size and quality for the link, the page and an image with a longer side (px)."""
        most, quality = self._link.step
        return Step(min(most, side, self._side or side), quality)

    async def receive(self, text: str) -> None:
        """Executes a message of the viewer; the reply gives the reason if it was rejected."""
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise ValueError('a message must be an object')
            if 'ack' in message:
                if message['ack'] == self._sequence:
                    self._busy = max(0.0, float(message.get('busy', 0.0)))
                    self._acknowledged.set()
                return
            await self._execute(message)
            rejected = ''
        except (ValueError, TypeError, OSError, OverflowError, RecursionError) as error:
            rejected = first_line(error)
        with suppress(ConnectionError):
            await self._websocket.send_json({'reply': True, 'rejected': rejected}, dumps=_dumps)
        self.changed.set()

    async def _execute(self, message: dict[str, Any]) -> None:
        if 'layers' in message:
            self.layers = tuple(name for name in self._source.layers if name in message['layers'])
            self._shown = 0  # the current result has other images now
            self._wants()
        if 'side' in message:
            self._side = max(0, int(message['side']))
        if 'select' in message:
            self._selected = None if message['select'] is None else int(message['select'])
        if 'set' in message:
            await asyncio.to_thread(self._source.set, str(message['set']), message.get('value'))
        if 'scale' in message:
            x1, y1, x2, y2, mm = map(float, message['scale'])
            self._source.set_scale((x1, y1), (x2, y2), mm)
        if 'command' in message:
            await self._command(message['command'])

    async def _command(self, name: object) -> None:
        commands: dict[object, Callable[[], None]] = {
            'play': self._source.play,
            'pause': self._source.pause,
            'step': self._source.step,
            'record': self._source.record,
            'stop': self._source.stop_recording,
        }
        if name not in commands:
            raise ValueError(
                f'command is {name!r}; it must be one of {", ".join(map(str, commands))}'
            )
        await asyncio.to_thread(commands[name])


class Viewers:
    """The application: its pages and its viewers."""

    def __init__(self, source: Source, feed: Feed, access: Access) -> None:
        """Serves nothing yet; `application` has the routes."""
        self._source = source
        self._feed = feed
        self._access = access
        self._clients: set[Client] = set()
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """Returns the application."""
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(_add_headers)
        application.on_startup.append(self._start)
        application.on_shutdown.append(self._shut_down)
        for path in PAGES:
            application.router.add_get(path, self._page)
        application.router.add_get('/snapshot', self._snapshot)
        application.router.add_get('/live', self._live)
        return application

    async def _start(self, _: web.Application) -> None:
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with suppress(RuntimeError):  # the loop is closed at the end
                loop.call_soon_threadsafe(self._wake)

        self._feed.subscribe(changed)
        self._source.start()

    def _wake(self) -> None:
        for client in self._clients:
            client.changed.set()

    async def _shut_down(self, _: web.Application) -> None:
        for websocket in tuple(self._sockets):
            with suppress(TimeoutError):
                await asyncio.wait_for(websocket.close(code=1001), SHUTDOWN_TIMEOUT)
        await asyncio.to_thread(self._source.stop)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._access.check(request)
        return await handler(request)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if 'token' in request.query:  # removes the token from the history of the browser
            response = web.Response(status=303, headers={'Location': request.path})
            name = self._access.cookie(request)
            response.set_cookie(name, self._access.token, httponly=True, samesite='Lax')
            return response
        return web.FileResponse(STATIC / PAGES[request.path])

    async def _snapshot(self, _: web.Request) -> web.Response:
        """Returns name, record and overlay (JPEG in base64) of the newest result."""
        result = self._feed.result
        if result is None:
            raise web.HTTPNotFound(text='There is no image yet.')
        coded = await asyncio.to_thread(
            encode_layers, result, ('overlay',), Step(0, SNAPSHOT_QUALITY)
        )
        name = re.sub(r'\.\w+$', '', result.record['image'])
        return web.json_response(
            {
                'name': re.sub(r'[^\w.-]+', '_', name).strip('_.') or 'image',
                'record': result.record,
                'overlay': base64.b64encode(coded.get('overlay', b'')).decode(),
            }
        )

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_COMMAND)
        await websocket.prepare(request)
        client = Client(websocket, self._source, self._feed, self._tell_wants)
        self._clients.add(client)
        self._sockets.add(websocket)
        self._tell_wants()
        sender = asyncio.create_task(client.send())
        try:
            async for message in websocket:
                if message.type == WSMsgType.TEXT:
                    await client.receive(message.data)
        finally:
            sender.cancel()
            self._clients.discard(client)
            self._sockets.discard(websocket)
            self._tell_wants()
        return websocket

    def _tell_wants(self) -> None:
        """Passes the layers that viewers display to the source."""
        wanted = frozenset(name for client in self._clients for name in client.layers)
        self._source.want(wanted if self._clients else None)


def encode_layers(result: Result, layers: Iterable[str], step: Step) -> dict[str, bytes]:
    """Encodes layers of a result as JPEG.

    Args:
        result: A result.
        layers: Names of layers; those that the result does not have are left out.
        step: Size and quality; side 0 = the size of the image.
    """
    coded = {}
    for name in layers:
        image = result.layer(name)
        if image is None:
            continue
        image = _shrink(image, step.side)
        if name == 'confidence':
            colours = cv2.applyColorMap(image, cv2.COLORMAP_VIRIDIS)
            image = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        with suppress(EncodingError):
            coded[name] = encode_image(image, '.jpg', step.quality)
    return coded


def _shrink(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Reduces an image to a longer side of at most `side` px; 0 = no limit."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if not 0 < scale < 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _compact(result: Result) -> dict[str, Any]:
    """Returns the fields of a record that the page shows, with polygons in whole pixels."""
    rocks = [
        {name: rock[name] for name in SHOWN if name in rock}
        | {'polygon': np.rint(rock['polygon']).astype(int).tolist()}
        for rock in result.record['rocks']
    ]
    kept = {name: result.record.get(name) for name in ('image', 'width', 'height', 'scale')}
    return {**kept, 'number': result.number, 'time': round(result.time, 3), 'rocks': rocks}


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(',', ':'))


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def serve(
    source: Source,
    feed: Feed,
    access: Access,
    listener: socket.socket,
    ready: Callable[[str], None],
) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        source: What is shown.
        feed: Its results.
        access: Who may see it.
        listener: Socket that is bound.
        ready: Called with the address of the page when it is served.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """

    async def run() -> None:
        runner = web.AppRunner(
            Viewers(source, feed, access).application(),
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            ready(access.url(listener.getsockname()[1]))
            await ended.wait()
        finally:
            await runner.cleanup()

    asyncio.run(run())
