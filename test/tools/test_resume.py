# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rock_seg_ros.tools import images as command
from rock_seg_ros.tools.main import main

KILLED_AT_ITS_THIRD_RECORD = """
import os, runpy, signal, sys
from rock_seg_ros.perception import writing
from rock_seg_ros.tools import image_results, images
from rock_seg_ros.tools.main import main

Segmenter = runpy.run_path(sys.argv[1])['BrightSegmenter']
images.segmenter_of = lambda _: Segmenter()
records = []

def write_json(path, value):
    records.append(path)
    if len(records) == 3:
        writing.atomic_write(path, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    written(path, value)

written, image_results.write_json = image_results.write_json, write_json
main(sys.argv[2:])
"""


@pytest.fixture
def images(tmp_path, scene):
    folder = tmp_path / 'in'
    folder.mkdir()
    for number, name in enumerate(('a', 'b', 'c', 'd')):
        cv2.imwrite(str(folder / f'{name}.png'), np.roll(scene, number, 1))
    return folder


@pytest.fixture
def find_rocks(monkeypatch, segmenter, images):
    """Runs `rock_seg images`; returns the exit status and the names of processed images."""
    processed = []
    read = command.read_rgb

    def read_rgb(path, *more):
        processed.append(path.name)
        return read(path, *more)

    def run(out, *more):
        processed.clear()
        return main(['images', str(images), '-o', str(out), *map(str, more)]), list(processed)

    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    monkeypatch.setattr(command, 'read_rgb', read_rgb)
    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_resuming_a_killed_run_gives_the_files_of_a_complete_run(find_rocks, images, tmp_path):
    def options(name):
        return ['--table', str(tmp_path / f'{name}.csv'), '--coco', str(tmp_path / f'{name}.json')]

    out, whole = tmp_path / 'out', tmp_path / 'whole'
    conftest = Path(__file__).with_name('conftest.py')
    script = [sys.executable, '-c', KILLED_AT_ITS_THIRD_RECORD, str(conftest)]
    given = ['images', str(images), '-o', str(out), *options('resumed')]
    assert subprocess.run([*script, *given], check=False).returncode == -signal.SIGKILL
    left = {path.name for path in out.iterdir()}
    assert {'a.json', 'b.json', 'c_mask.png', 'c_overlay.jpg'} < left
    assert not {'c.json', 'd.json'} & left
    assert any(name.startswith('.writing-') for name in left)

    assert find_rocks(out, '--resume', *options('resumed')) == (0, ['c.png', 'd.png'])
    assert find_rocks(whole, *options('whole'))[0] == 0
    assert contents(out) == contents(whole)
    for suffix in ('csv', 'json'):
        resumed = (tmp_path / f'resumed.{suffix}').read_bytes()
        assert resumed == (tmp_path / f'whole.{suffix}').read_bytes()


def test_finished_images_are_counted_and_not_processed_again(find_rocks, tmp_path, capsys):
    find_rocks(tmp_path / 'out')
    (tmp_path / 'out/b.json').unlink()
    capsys.readouterr()
    assert find_rocks(tmp_path / 'out', '--resume') == (0, ['b.png'])
    assert lines(capsys) == ['rock_seg images: 3 of 4 images are finished already']
    assert find_rocks(tmp_path / 'out', '--resume') == (0, [])
    assert find_rocks(tmp_path / 'out')[1] == ['a.png', 'b.png', 'c.png', 'd.png']


def test_an_image_whose_name_is_not_utf_8_is_not_processed_again(find_rocks, images, tmp_path):
    (images / 'a.png').rename(os.fsdecode(os.fsencode(images) + b'/stone\xff.png'))
    assert len(find_rocks(tmp_path / 'out')[1]) == 4
    assert find_rocks(tmp_path / 'out', '--resume') == (0, [])


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (('--threshold', '0.7'), 'threshold 0.5, not 0.7'),
        (('--alpha', '0.5'), 'alpha 0.4, not 0.5'),
        (('--mm-per-px', '2'), 'mm_per_px None, not 2.0'),
    ],
)
@pytest.mark.parametrize('left', [0, 1])
def test_a_run_with_other_settings_is_not_resumed(
    find_rocks, tmp_path, capsys, setting, message, left
):
    out = tmp_path / 'out'
    find_rocks(out)
    for name in 'ab'[:left]:
        (out / f'{name}.json').unlink()
    before = contents(out)
    capsys.readouterr()
    assert find_rocks(out, '--resume', *setting) == (2, [])
    assert lines(capsys)[-1] == (
        f'rock_seg images: {out}: has results that were made with {message}; use another output'
        ' folder, or leave out --resume to replace them'
    )
    assert contents(out) == before


def test_a_run_with_other_weights_is_not_resumed(find_rocks, tmp_path, capsys):
    out = tmp_path / 'out'
    find_rocks(out)
    record = json.loads((out / 'a.json').read_text())
    record['made_by']['weights_sha256'] = '0123'
    (out / 'a.json').write_text(json.dumps(record))
    assert find_rocks(out, '--resume') == (2, [])
    assert f'{out}: has results that were made with weights_sha256 0123, not' in lines(capsys)[-1]


def newer(images, out):
    later = (out / 'a.json').stat().st_mtime + 10
    os.utime(images / 'a.png', (later, later))


def without_overlay(images, out):
    (out / 'a_overlay.jpg').unlink()


def cut_off(images, out):
    (out / 'a.json').write_text((out / 'a.json').read_text()[:100])


def of_another_image(images, out):
    text = (out / 'a.json').read_text()
    (out / 'a.json').write_text(text.replace('a.png', 'a.jpg'))


def of_an_older_version(images, out):
    record = json.loads((out / 'a.json').read_text())
    del record['made_by']
    (out / 'a.json').write_text(json.dumps(record))


@pytest.mark.parametrize(
    'spoil', [newer, without_overlay, cut_off, of_another_image, of_an_older_version]
)
def test_an_image_with_incomplete_results_is_processed_again(find_rocks, images, tmp_path, spoil):
    find_rocks(tmp_path / 'out')
    whole = contents(tmp_path / 'out')
    spoil(images, tmp_path / 'out')
    assert find_rocks(tmp_path / 'out', '--resume') == (0, ['a.png'])
    assert contents(tmp_path / 'out') == whole


def test_an_image_that_failed_is_processed_again(find_rocks, images, tmp_path):
    (images / 'b.png').write_bytes(b'no image')
    assert find_rocks(tmp_path / 'out')[0] == 1
    assert find_rocks(tmp_path / 'out', '--resume') == (1, ['b.png'])


def test_records_are_removed_before_masks_of_other_settings_are_written(
    find_rocks, images, tmp_path, monkeypatch
):
    out = tmp_path / 'out'
    find_rocks(out)
    monkeypatch.setattr(
        'rock_seg_ros.tools.image_results.encode_image',
        lambda *_: (_ for _ in ()).throw(OSError('the disk is full')),
    )
    assert find_rocks(out, '--threshold', '0.7')[0] == 1
    assert not list(out.glob('*.json'))
