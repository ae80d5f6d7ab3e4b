# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import cv2
import pytest

from rock_seg_ros.tools import images
from rock_seg_ros.tools.main import main


@pytest.fixture
def find_rocks(monkeypatch, segmenter, tmp_path):
    """Runs `rock_seg images` with the network for tests; results go to `out`."""
    monkeypatch.setattr(images, 'segmenter_of', lambda _: segmenter)
    return lambda *given: main(['images', *map(str, given), '-o', str(tmp_path / 'out')])


@pytest.fixture
def pictures(tmp_path, scene):
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(folder / name), scene)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_picture_of_a_folder_gets_mask_overlay_and_record(find_rocks, pictures, tmp_path):
    assert find_rocks(pictures) == 0
    assert names(tmp_path / 'out') == [
        'a.json', 'a_mask.png', 'a_overlay.jpg', 'b.json', 'b_mask.png', 'b_overlay.jpg',
    ]  # fmt: skip
    record = json.loads((tmp_path / 'out/b.json').read_text())
    assert (record['image'], len(record['rocks'])) == ('b.png', 2)


def test_a_bad_file_is_told_in_one_line_and_the_others_go_on(
    find_rocks, pictures, tmp_path, capsys
):
    bad = pictures / 'aa.png'
    bad.write_bytes(b'no picture')
    assert find_rocks(pictures, pictures / 'missing.png') == 1
    told = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg images' in line]
    assert told == [
        f'rock_seg images: {bad}: does not decode as a picture (10 bytes)',
        f'rock_seg images: {pictures / "missing.png"}: No such file or directory',
    ]
    assert len(names(tmp_path / 'out')) == 6


def test_a_failure_on_one_picture_names_it(find_rocks, pictures, tmp_path, capsys, scene):
    cv2.imwrite(str(tmp_path / 'small.png'), scene[:8, :8])
    cv2.imwrite(str(tmp_path / 'keep.png'), scene)
    status = find_rocks(pictures, tmp_path / 'small.png', '--ignore-mask', tmp_path / 'keep.png')
    assert status == 1
    error = capsys.readouterr().err
    assert f'{tmp_path / "small.png"}: the ignore mask is 64×48, the picture 8×8' in error
    assert (tmp_path / 'out/a.json').exists()


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (MemoryError(), 'MemoryError'),
        (cv2.error('too large\nat line 7'), 'too large'),
        (RuntimeError('out of memory\ntrace'), 'out of memory'),
    ],
)
def test_an_error_on_one_picture_is_one_line_and_the_others_go_on(
    find_rocks, pictures, tmp_path, capsys, segmenter, monkeypatch, error, told
):
    segment, errors = segmenter.segment, [error]

    def fail_once(picture, threshold=None):
        if errors:
            raise errors.pop()
        return segment(picture, threshold)

    monkeypatch.setattr(segmenter, 'segment', fail_once)
    assert find_rocks(pictures) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg images' in line]
    assert lines == [f'rock_seg images: {pictures / "a.png"}: {told}']
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_options_are_heeded(find_rocks, pictures, tmp_path):
    assert find_rocks(pictures / 'a.png', '--min-area', 150) == 0
    assert len(json.loads((tmp_path / 'out/a.json').read_text())['rocks']) == 1


def test_two_inputs_of_one_name_are_refused_before_any_work(
    find_rocks, pictures, tmp_path, scene, capsys
):
    cv2.imwrite(str(pictures / 'a.bmp'), scene)
    assert find_rocks(pictures) == 2
    assert 'would overwrite that of' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_input_is_never_overwritten(find_rocks, pictures, monkeypatch, scene, capsys):
    cv2.imwrite(str(pictures / 'a_mask.png'), scene)
    assert main(['images', str(pictures), '-o', str(pictures)]) == 2
    assert 'would overwrite the input' in capsys.readouterr().err


def test_weights_that_are_not_there_are_one_line(pictures, tmp_path, capsys):
    arguments = ['images', str(pictures), '-o', str(tmp_path), '--weights', 'no.safetensors']
    assert main(arguments) == 1
    assert capsys.readouterr().err == 'rock_seg images: no.safetensors: no such file\n'
