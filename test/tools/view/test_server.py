# SPDX-License-Identifier: Apache-2.0
"""The server with real websockets: frames, settings, errors, slow and disconnected viewers."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref

import cv2
import numpy as np
import pytest

from rock_seg_ros.tools.view.access import Access
from rock_seg_ros.tools.view.feed import Feed, Result
from rock_seg_ros.tools.view.link import STEPS
from rock_seg_ros.tools.view.sources import Source

JPEG = b'\xff\xd8'


class Pushed(Source):
    """A source whose results a test supplies."""

    def __init__(self, feed, folder):
        super().__init__(feed, 'pushed', folder)
        self.wanted = []
        self.calls = []
        self.results = weakref.WeakSet()

    def start(self):
        self.calls.append('start')

    def stop(self):
        self.calls.append('stop')

    def want(self, layers):
        self.wanted.append(layers)

    def play(self):
        self.calls.append('play')

    def pause(self):
        self.calls.append('pause')

    def step(self):
        self.calls.append('step')

    def controls(self):
        return []

    def set(self, name, value):
        if name == 'disk':
            raise OSError(28, 'No space left on device')
        raise ValueError(f'{name} is {value}; it must be less')

    def set_scale(self, first, second, mm):
        self.calls.append((first, second, mm))

    def _open_recording(self):
        raise ImportError('no', name='rclpy')

    def push(self, number=0, side=64):
        image = np.full((side * 3 // 4, side, 3), number % 256, np.uint8)
        record = {'image': str(number), 'width': side, 'height': side * 3 // 4, 'rocks': []}
        result = Result(record, float(number), {'overlay': image}.get)
        self.results.add(result)
        self._feed.show(result)


@pytest.fixture
def pushed(tmp_path):
    feed = Feed()
    return Pushed(feed, tmp_path), feed


def test_a_viewer_gets_the_rocks_and_a_jpeg_of_each_frame(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            frame, (overlay,) = await viewer.frame()
            assert frame['image'] == 'half.png'
            assert [rock['area'] for rock in frame['rocks']] == [200, 120]
            assert frame['rocks'][0]['bbox'] == [8, 4, 20, 10]
            assert [8, 4] in frame['rocks'][0]['polygon']
            image = cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR)
            assert image.shape == (48, 64, 3)
            assert viewer.status['title'].endswith('images')

    view.run(scenario())


def test_a_frame_has_the_layers_that_are_switched_on(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            await viewer.frame()
            await viewer.send(layers=['confidence', 'mask', 'nonsense'])
            frame, images = await viewer.frame(lambda f: f['layers'] != ['overlay'])
            assert frame['layers'] == ['mask', 'confidence']
            mask = cv2.imdecode(np.frombuffer(images[0], np.uint8), cv2.IMREAD_GRAYSCALE)
            assert mask[8, 16] > 200
            assert mask[20, 20] < 50
            colour = cv2.imdecode(np.frombuffer(images[1], np.uint8), cv2.IMREAD_COLOR)
            assert colour.std(axis=2).max() > 10

    view.run(scenario())


def test_a_setting_changes_the_rocks_of_the_image_that_is_shown(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            await viewer.frame()
            assert await viewer.reply(set='min_area', value=150) == ''
            frame = viewer.message.get('frame') or (await viewer.frame())[0]
            assert frame['image'] == 'half.png'
            assert len(frame['rocks']) == 1

    view.run(scenario())


def test_two_points_give_sizes_in_mm_of_this_image_and_the_next(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            await viewer.frame()
            await viewer.send(scale=[8, 4, 28, 4, 100])
            frame, _ = await viewer.frame(lambda frame: frame['scale'])
            assert frame['scale']['mm_per_px'] == 5
            sizes = [rock['diameter_mm'] for rock in frame['rocks']]
            assert sizes[0] == pytest.approx(5 * 15.96, abs=0.05)
            await viewer.send(command='step')
            frame, _ = await viewer.frame(lambda frame: frame['image'] == 'same.png')
            assert frame['rocks'][0]['diameter_mm'] == sizes[0]

    view.run(scenario())


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        ({'set': 'threshold', 'value': 2}, 'threshold is 2.0; it must be 0 to 1'),
        ({'set': 'min_area', 'value': 1.5}, 'min_area is 1.5; it must be a whole number'),
        ({'set': 'track', 'value': 1}, 'track is 1; it must be true or false'),
        ({'set': 'weights', 'value': '/x'}, 'weights cannot be changed here'),
        ({'set': 'threshold'}, 'threshold is None; it must be a number'),
        ({'command': 'format'}, "command is 'format'; it must be one of play, pause,"),
        ({'select': 'x'}, 'invalid literal'),
        ({'side': None}, 'int() argument'),
        ({'side': float('inf')}, 'cannot convert float infinity to integer'),
        ({'layers': 5}, 'not iterable'),
        ({'scale': [0, 0, 5, 5]}, 'not enough values'),
        ({'scale': [0, 0, 5, 5, 0]}, 'the distance is 0 mm; it must be a number above 0'),
        ({'scale': [0, 0, 5, 5, 'x']}, 'could not convert'),
        ({'scale': [5, 5, 5, 5, 10]}, 'the two points are the same: 5, 5'),
    ],
)
def test_an_invalid_message_is_rejected_with_the_reason(view, samples, message, reason):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            assert reason in await viewer.reply(**message)

    view.run(scenario())


@pytest.mark.parametrize(
    'text',
    ['{', '[]', '3', '"x"', 'null', '{"ack": "\\ud800"}', pytest.param('[' * 4000, id='nested')],
)
def test_text_that_is_no_message_does_not_close_the_connection(view, samples, text):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            await viewer.socket.send_str(text)
            assert await viewer.reply(set='min_area', value=1) == ''

    view.run(scenario())


def test_play_pause_and_step_go_through_the_images(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            await viewer.frame(lambda frame: frame['image'] == 'half.png')
            await viewer.send(command='step')
            await viewer.frame(lambda frame: frame['image'] == 'same.png')
            await viewer.send(command='step')  # after the end, from the beginning
            await viewer.frame(lambda frame: frame['image'] == 'half.png')
            await viewer.send(command='play')
            await viewer.until(lambda _: viewer.status['playing'])
            await viewer.send(command='pause')
            await viewer.until(lambda _: not viewer.status['playing'])

    view.run(scenario())


def test_the_history_of_the_selected_rock_grows_with_the_images(view, drive):
    async def scenario():
        async with view.serving(*drive) as served, served.viewer() as viewer:
            frame, _ = await viewer.frame()
            chosen = frame['rocks'][0]['id']
            await viewer.send(select=chosen)
            message, _ = await viewer.until(
                lambda m: len(m.get('track', {'points': []})['points']) > 3
            )
            points = message['track']['points']
            assert message['track']['id'] == chosen
            assert points[0][1:] == [200, None]
            assert points[1][0] - points[0][0] == pytest.approx(0.05, abs=0.002)
            await viewer.send(select=None)
            await viewer.until(lambda m: 'track' not in m)

    view.run(scenario())


def test_each_viewer_gets_each_sample_of_the_plots_once(view, pushed):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served:
            feed.measure(12.34, 0)
            async with served.viewer() as first:
                message, _ = await first.until(lambda m: 'samples' in m)
                assert message['samples'] == [[12.3, 0]]
                feed.measure(20, 3)
                feed.notify()
                message, _ = await first.until(lambda m: 'samples' in m)
                assert message['samples'] == [[20, 3]]
            async with served.viewer() as second:
                message, _ = await second.until(lambda m: 'samples' in m)
                assert message['samples'] == [[12.3, 0], [20, 3]]

    view.run(scenario())


def test_a_slow_viewer_gets_only_the_newest_frame_and_does_not_slow_others(view, pushed):
    source, feed = pushed

    async def scenario():
        async with (
            view.serving(source, feed) as served,
            served.viewer() as slow,
            served.viewer() as fast,
        ):
            source.push(0)
            while 'frame' not in (await slow.next())[0]:
                await slow.acknowledge()
            for number in range(1, 30):  # the slow viewer does not acknowledge them
                source.push(number)
                await fast.frame(lambda frame, n=number: frame['image'] == str(n))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow.socket.receive(), 0.05)
            await slow.acknowledge()
            message, _ = await slow.next()
            assert message['frame']['image'] == '29'

    view.run(scenario())


def test_old_results_are_released_while_a_viewer_does_not_answer(view, pushed):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served, served.viewer() as viewer:
            source.push(0)
            while 'frame' not in (await viewer.next())[0]:
                await viewer.acknowledge()
            for number in range(1, 200):
                source.push(number)
                await asyncio.sleep(0)
            gc.collect()
            assert len(source.results) <= 2  # the one that was sent, and the newest

    view.run(scenario())


def test_images_become_smaller_on_a_slow_link_and_larger_on_a_fast_one(view, pushed):
    source, feed = pushed
    asked = {}

    async def scenario():
        async with (
            view.serving(source, feed) as served,
            served.viewer() as slow,
            served.viewer() as fast,
        ):
            for number in range(6):
                source.push(number, side=1000)
                for viewer in (slow, fast):
                    while 'frame' not in (await viewer.next())[0]:
                        await viewer.acknowledge()
                    asked[viewer] = viewer.message['link']['side']
                await fast.acknowledge()
                source.push(number, side=1000)
                while 'frame' not in (await fast.next())[0]:
                    await fast.acknowledge()
                await fast.acknowledge()
                await asyncio.sleep(0.35)  # the time of the slow link
                await slow.acknowledge()
        assert asked[slow] <= STEPS[1].side
        assert asked[fast] >= STEPS[4].side

    view.run(scenario())


def test_no_image_is_larger_than_the_page_or_the_original(view, pushed):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served, served.viewer() as viewer:
            source.push(1, side=500)
            message, _ = await viewer.until(lambda m: 'frame' in m)
            assert message['link']['side'] == 500
            await viewer.reply(side=300)
            source.push(2, side=500)
            message, (image,) = await viewer.until(
                lambda m: 'frame' in m and m['frame']['image'] == '2'
            )
            assert message['link']['side'] == 300
            assert cv2.imdecode(np.frombuffer(image, np.uint8), 1).shape == (225, 300, 3)

    view.run(scenario())


def test_the_source_is_informed_of_the_shown_layers(view, pushed):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served:
            async with served.viewer() as viewer:
                await viewer.next()
                await viewer.acknowledge()
                assert source.wanted[-1] == {'overlay'}
                await viewer.reply(layers=['mask'])
                assert source.wanted[-1] == {'mask'}
                await viewer.reply(layers=[])
                assert source.wanted[-1] == frozenset()
            while source.wanted[-1] is not None:
                await asyncio.sleep(0.005)
        assert source.calls == ['start', 'stop']

    view.run(scenario())


def test_a_viewer_that_disconnects_during_a_frame_does_not_affect_others(view, pushed, caplog):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served, served.viewer() as other:
            for number in range(20):
                async with served.viewer() as viewer:
                    source.push(number, side=1500)
                    await viewer.next()
                    viewer.socket._response.connection.transport.abort()
            source.push(99)
            await other.frame(lambda frame: frame['image'] == '99')
            while len(source.wanted) < 41:
                await asyncio.sleep(0.005)

    view.run(scenario())
    assert not caplog.records


def test_a_full_disk_or_a_missing_package_is_reported_in_one_line(view, pushed):
    async def scenario():
        async with view.serving(*pushed) as served, served.viewer() as viewer:
            assert 'No space left' in await viewer.reply(set='disk', value=1)
            assert await viewer.reply(command='record') == 'missing dependency: rclpy'

    view.run(scenario())


def test_a_snapshot_has_the_overlay_in_full_size_and_the_record(view, samples):
    async def scenario():
        async with view.serving(*samples) as served:
            assert (await served.client.get('/snapshot')).status == 404
            async with served.viewer() as viewer:
                await viewer.frame()
            snapshot = await (await served.client.get('/snapshot')).json()
            assert snapshot['name'] == 'half'
            assert snapshot['record']['image'] == 'half.png'
            assert snapshot['record']['rocks'][0]['area'] == 200
            image = np.frombuffer(base64.b64decode(snapshot['overlay']), np.uint8)
            assert cv2.imdecode(image, 1).shape == (48, 64, 3)

    view.run(scenario())


def test_the_page_is_served_with_a_strict_content_security_policy(view, pushed):
    async def scenario():
        async with view.serving(*pushed) as served:
            for path, kind in (
                ('/', 'text/html'),
                ('/view.css', 'text/css'),
                ('/view.js', 'javascript'),
            ):
                response = await served.client.get(path)
                assert response.status == 200
                assert kind in response.headers['Content-Type']
                policy = response.headers['Content-Security-Policy']
                assert "default-src 'none'" in policy
                assert "script-src 'self';" in policy
                assert response.headers['X-Content-Type-Options'] == 'nosniff'
            for path in ('/other', '/../server.py', '/%2e%2e/server.py', '/static/view.js'):
                assert (await served.client.get(path)).status == 404
            assert (await served.client.post('/')).status == 405

    view.run(scenario())


@pytest.mark.parametrize('path', ['/', '/view.js', '/snapshot', '/live'])
@pytest.mark.parametrize(
    'headers',
    [
        {'Host': 'other.example'},
        {'Host': 'other.example:8080'},
        {'Host': '192.168.0.9'},
        {'Host': ''},
        {'Origin': 'http://other.example'},
        {'Origin': 'null'},
        {'Origin': 'http://127.0.0.1:1'},
        {'Origin': 'https://127.0.0.1'},
    ],
    ids=str,
)
def test_a_foreign_host_or_origin_is_rejected(view, pushed, path, headers):
    source, feed = pushed

    async def scenario():
        async with view.serving(source, feed) as served:
            upgrade = {'Upgrade': 'websocket', 'Connection': 'Upgrade'} if path == '/live' else {}
            response = await served.client.get(path, headers=headers | upgrade)
            assert response.status == 403
            assert (await response.text()).count('\n') == 0

    view.run(scenario())
    assert source.wanted == []


def test_the_page_itself_and_programs_without_an_origin_are_accepted(view, pushed):
    async def scenario():
        async with view.serving(*pushed) as served:
            own = str(served.client.make_url('/')).rstrip('/')
            async with served.viewer(headers={'Origin': own}) as viewer:
                await viewer.next()
            async with served.viewer(headers={'Host': 'localhost:80'}) as viewer:
                await viewer.next()

    view.run(scenario())


def test_a_missing_or_wrong_token_is_rejected(view, pushed):
    source, feed = pushed
    access = Access('0.0.0.0', 'right')

    async def scenario():
        async with view.serving(source, feed, access) as served:
            get = served.client.get
            for path in ('/', '/view.js', '/snapshot', '/live', '/?token=wrong', '/?token=%ff'):
                response = await get(path)
                assert response.status == 401, path
                assert 'token is missing or wrong' in await response.text()
            for headers in ({'Authorization': 'Bearer wrong'}, {'Cookie': 'rock_seg_view_1=right'}):
                assert (await get('/', headers=headers)).status == 401
            assert (await get('/view.js', headers={'Authorization': 'Bearer right'})).status == 200

    view.run(scenario())
    assert source.wanted == []


@pytest.mark.parametrize('token', ['right', 'ab+c/1==', 'a&b#c %41;"ä'])
def test_the_printed_url_sets_a_cookie_and_hides_the_token(view, pushed, token):
    access = Access('0.0.0.0', token)

    async def scenario():
        async with view.serving(*pushed, access) as served:
            # A container does not know the address that its viewers use, so each is allowed.
            host = {'Host': f'192.168.0.9:{served.client.port}'}
            path = access.url(80).partition(':80')[2]
            response = await served.client.get(path, headers=host, allow_redirects=False)
            assert (response.status, response.headers['Location']) == (303, '/')
            cookie = response.headers['Set-Cookie']
            assert 'HttpOnly' in cookie
            assert 'SameSite=Lax' in cookie
            headers = host | {'Cookie': cookie.split(';')[0]}
            assert (await served.client.get('/', headers=headers)).status == 200
            async with served.viewer(headers=headers) as viewer:
                await viewer.next()

    view.run(scenario())


def test_a_recording_is_started_and_stopped_and_its_file_is_named(view, drive):
    from rock_seg_ros.tools.bag.files import Bag

    async def scenario():
        async with view.serving(*drive) as served, served.viewer() as viewer:
            assert await viewer.reply(command='record') == ''
            await viewer.until(lambda _: viewer.status['recording'])
            path = viewer.status['recording']
            await viewer.frame()
            await viewer.frame()
            assert await viewer.reply(command='stop') == ''
            await viewer.until(lambda _: not viewer.status['recording'])
        return path

    with Bag(view.run(scenario())) as bag:
        counts = {topic.name: topic.count for topic in bag.topics}
    assert set(counts) == {
        '/rock_seg/mask',
        '/rock_seg/overlay/compressed',
        '/rock_seg/polygon_points',
        '/rock_seg/rocks',
    }
    assert counts['/rock_seg/rocks'] >= 2


def test_messages_to_the_page_have_only_finite_numbers(view, samples):
    async def scenario():
        async with view.serving(*samples) as served, served.viewer() as viewer:
            message, _ = await viewer.until(lambda m: 'frame' in m)
            json.dumps(message, allow_nan=False)

    view.run(scenario())
