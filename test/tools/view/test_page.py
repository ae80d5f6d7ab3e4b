# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium, controlled by Playwright."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from aiohttp import web

from rock_seg_ros.tools.view.access import Access, listen
from rock_seg_ros.tools.view.server import Viewers

sync_api = pytest.importorskip('playwright.sync_api')
CHROMIUM = Path('/usr/bin/chromium')
OPTIONS = (
    *('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    '--disable-background-networking',
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f'{CHROMIUM} is missing: apt-get install chromium'
)
DESKTOP = {'width': 1280, 'height': 860}
PHONE = {'width': 390, 'height': 844}


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(OPTIONS))
        yield launched
        launched.close()


@pytest.fixture
def serve():
    """Serves a source from a thread; returns the address of the page."""
    stops = []

    def start(source, feed, access=None, port=0):
        access = access or Access('127.0.0.1')
        listener = listen('127.0.0.1', port)
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(Viewers(source, feed, access).application(), access_log=None)

        async def run():
            await runner.setup()
            await web.SockSite(runner, listener).start()

        # In a thread, because Playwright runs the event loop of this one.
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        asyncio.run_coroutine_threadsafe(run(), loop).result(20)

        def stop():
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        stops.append(stop)
        port = listener.getsockname()[1]
        return f'http://127.0.0.1:{port}/' + (f'?token={access.token}' if access.token else '')

    yield SimpleNamespace(start=start, stop=lambda: stops.pop()())
    for stop in stops:
        stop()


@pytest.fixture
def open_page(browser):
    """Opens a page; fails if it reports an error or loads from another host."""
    contexts, problems = [], []

    def opened(url, size=DESKTOP, **options):
        context = browser.new_context(viewport=size, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on('pageerror', lambda error: problems.append(str(error)))
        page.on('console', lambda line: line.type == 'error' and problems.append(line.text))
        page.on('request', lambda request: is_local(request.url) or problems.append(request.url))
        page.goto(url)
        page.locator('#table tbody tr').first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def is_local(url):
    return url.startswith(('http://127.0.0.1:', 'blob:', 'data:'))


def shown(page):
    """Returns the pixels of the image on the page, H×W×3 RGB."""
    png = page.locator('#canvas').screenshot()
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), 1), cv2.COLOR_BGR2RGB)


def at(page, x, y):
    """Returns the position on the canvas of a pixel of the 64×48 image."""
    box = page.locator('#canvas').bounding_box()
    return {'x': box['width'] * (x + 0.5) / 64, 'y': box['height'] * (y + 0.5) / 48}


def expect(locator):
    return sync_api.expect(locator)


def test_the_page_shows_the_image_and_its_rocks_sorted_by_area(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    rows = page.locator('#table tbody tr')
    assert [row.split('\t') for row in rows.all_inner_texts()] == [
        ['1', '200', '0.78'],
        ['2', '120', '0.78'],
    ]
    image = shown(page)
    height, width = image.shape[:2]
    rock = image[int(height * 9 / 48), int(width * 12 / 64)]
    ground = image[int(height * 24 / 48), int(width * 24 / 64)]
    assert rock.astype(int).sum() > ground.astype(int).sum() + 100
    assert page.locator('#title').inner_text().endswith('samples/images')
    assert page.locator('#name').inner_text() == 'half.png'


def test_a_click_on_a_rock_selects_it_in_the_table_and_shows_its_size(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    page.locator('#canvas').click(position=at(page, 45, 36))
    expect(page.locator('#rock-title')).to_have_text('Rock 2')
    expect(page.locator('#table tr.selected td').first).to_have_text('2')
    facts = page.locator('#rock-facts').inner_text()
    assert '120 px' in facts
    assert '10 × 12 px at 40, 30' in facts
    page.locator('#canvas').click(position=at(page, 30, 24))  # ground
    expect(page.locator('#rock-title')).to_have_text('Click a rock to see its size')


def test_a_row_of_the_table_selects_a_rock_and_its_history_grows(serve, open_page, drive):
    page = open_page(serve.start(*drive))
    page.locator('#table tbody tr').first.click()
    expect(page.locator('#history-title')).to_have_text('Area over time')
    page.get_by_text('images, 0.').or_(page.get_by_text('images, 1.')).first.wait_for()
    plot = page.locator('#history-plot').screenshot()
    assert cv2.imdecode(np.frombuffer(plot, np.uint8), 1).std() > 1


def test_layers_are_switched_on_and_off(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    overlay = shown(page)
    page.locator('#layer-mask').check()
    expect(page.locator('#legend')).to_be_hidden()
    wait_until(page, lambda: shown(page)[300, 10].sum() < 40, 'black ground')
    page.locator('#layer-confidence').check()
    expect(page.locator('#legend')).to_be_visible()
    page.locator('#layer-mask').uncheck()
    page.locator('#layer-confidence').uncheck()
    wait_until(page, lambda: np.abs(shown(page) - overlay.astype(int)).mean() < 4, 'the overlay')
    page.locator('#layer-overlay').uncheck()
    wait_until(page, lambda: shown(page)[105, 160].min() > 180, 'the rock without a tint')


def wait_until(page, true, what):
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f'waited for {what}')


def test_a_slider_changes_the_rocks_and_a_rejected_value_is_reported(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    slider = page.get_by_label('Minimum area, px').first
    slider.fill('150')
    expect(page.locator('#count')).to_have_text('1')
    number = page.get_by_label('Minimum area, px').last
    expect(number).to_have_value('150')
    number.fill('-5')
    number.press('Enter')
    expect(page.locator('#rejected')).to_have_text('min_area is -5; it must be 0 to 1000000')
    expect(number).to_have_value('150')


def test_two_clicked_points_and_their_distance_give_sizes_in_mm(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    page.on('dialog', lambda dialog: dialog.accept('100'))
    page.locator('#scale').click()
    expect(page.locator('#hint')).to_contain_text('Click two points')
    page.locator('#canvas').click(position=at(page, 8, 4))
    page.locator('#canvas').click(position=at(page, 28, 4))
    expect(page.locator('#hint')).to_be_hidden()
    expect(page.locator('#name')).to_have_text(re.compile(r'^half\.png, 1 px = (5|5.01|4.99) mm$'))
    size = page.locator('#table tbody tr').first.locator('td').nth(2)
    assert float(size.inner_text().removesuffix(' mm')) == pytest.approx(79.8, rel=0.02)
    expect(page.locator('#rock-title')).to_have_text('Click a rock to see its size')


def test_pause_step_and_play_control_the_source(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    expect(page.locator('#play')).to_have_text('Play')
    page.locator('#step').click()
    expect(page.locator('#name')).to_have_text('same.png')
    page.locator('#play').click()
    expect(page.locator('#play')).to_have_text('Pause')
    page.locator('#play').click()
    expect(page.locator('#play')).to_have_text('Play')


def test_latency_and_drops_are_plotted(serve, open_page, drive):
    page = open_page(serve.start(*drive))
    expect(page.locator('#dropped')).to_have_text('0')
    assert page.locator('#latency').inner_text().endswith(' ms')
    for name in ('#latency-plot', '#dropped-plot'):
        plot = page.locator(name).screenshot()
        assert cv2.imdecode(np.frombuffer(plot, np.uint8), 1).std() > 1


def test_a_snapshot_downloads_the_overlay_and_the_record(serve, open_page, samples):
    page = open_page(serve.start(*samples))
    downloads = []
    page.on('download', lambda download: downloads.append(download))
    page.locator('#snapshot').click()
    wait_until(page, lambda: len(downloads) == 2, 'two downloads')
    files = {d.suggested_filename: Path(d.path()).read_bytes() for d in downloads}
    assert set(files) == {'half_overlay.jpg', 'half.json'}
    image = cv2.imdecode(np.frombuffer(files['half_overlay.jpg'], np.uint8), 1)
    assert image.shape == (48, 64, 3)
    assert json.load(io.BytesIO(files['half.json']))['rocks'][0]['area'] == 200


def test_the_file_of_a_recording_is_shown_during_and_after_it(serve, open_page, drive, tmp_path):
    page = open_page(serve.start(*drive))
    page.locator('#record').click()
    expect(page.locator('#record')).to_have_text('Stop')
    text = page.locator('#recording').inner_text()
    assert text.startswith(f'Recording to {tmp_path}/records/view_')
    page.locator('#record').click()
    expect(page.locator('#record')).to_have_text('Record')
    assert page.locator('#recording').inner_text() == text.replace('Recording to', 'Recorded')


@pytest.mark.parametrize('size', [DESKTOP, PHONE, {'width': 320, 'height': 568}], ids=str)
def test_the_page_fits_the_screen(serve, open_page, samples, size):
    page = open_page(serve.start(*samples), size)
    body = page.locator('body').evaluate('body => [body.scrollWidth, innerWidth]')
    assert body[0] <= body[1]
    image = page.locator('#canvas').bounding_box()
    assert image['y'] + image['height'] < size['height']
    assert image['width'] > size['width'] / 2 or image['height'] > size['height'] / 2


def test_a_rock_is_tapped_on_a_phone(serve, open_page, samples):
    page = open_page(
        serve.start(*samples), PHONE, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page.locator('#canvas').tap(
        position=at(page, 39, 33)
    )  # next to the rock, within the tolerance of a finger
    expect(page.locator('#rock-title')).to_have_text('Rock 2')


def test_with_a_token_the_page_works_and_its_address_hides_it(serve, open_page, samples):
    page = open_page(serve.start(*samples, Access('127.0.0.1', 'secret')))
    assert 'secret' not in page.url
    assert 'secret' not in page.content()
    expect(page.locator('#connection')).to_have_text('live')


def test_a_page_of_another_site_cannot_connect(serve, browser, samples):
    """It tries to open a websocket from another origin."""
    url = serve.start(*samples)
    context = browser.new_context()
    page = context.new_page()
    page.goto('data:text/html,<title>other site</title>')
    outcome = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url.replace('http', 'ws') + 'live');
            socket.onopen = () => done('open');
            socket.onerror = () => done('rejected');
        })""",
        url,
    )
    assert outcome == 'rejected'
    context.close()


def test_the_page_reconnects_when_the_server_is_back(
    serve, browser, samples, make_source, demo_data
):
    context = browser.new_context()
    page = context.new_page()
    url = serve.start(*samples)
    page.goto(url)
    expect(page.locator('#name')).to_have_text('half.png')
    serve.stop()
    expect(page.locator('#connection')).to_have_text('no connection; is rock_seg view running?')
    other = make_source(demo_data / 'samples/images/same.png')
    serve.start(*other, port=int(url.strip('/').rpartition(':')[2]))
    expect(page.locator('#connection')).to_have_text('live')
    expect(page.locator('#name')).to_have_text('same.png')
    context.close()
