# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.image_io import image_files
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.tools import images as command
from rock_seg_ros.tools.main import main

SAMPLE = Path(__file__).parents[2] / 'demo/samples/images/332.webp'


@pytest.fixture
def find_rocks(monkeypatch, segmenter, tmp_path):
    """Runs `rock_seg images` with the network for tests; results go to `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    return lambda *given: main(['images', *map(str, given), '-o', str(tmp_path / 'out')])


@pytest.fixture
def images(tmp_path, scene):
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(folder / name), scene)
    return folder


def told(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line.rpartition('rock_seg images: ')[2] for line in lines if 'rock_seg images' in line]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_image_of_a_folder_gets_mask_overlay_and_record(find_rocks, images, tmp_path):
    assert find_rocks(images) == 0
    assert names(tmp_path / 'out') == [
        'a.json', 'a_mask.png', 'a_overlay.jpg', 'b.json', 'b_mask.png', 'b_overlay.jpg',
    ]  # fmt: skip
    record = json.loads((tmp_path / 'out/b.json').read_text())
    assert (record['image'], len(record['rocks'])) == ('b.png', 2)


def test_a_bad_file_is_told_in_one_line_and_the_others_go_on(find_rocks, images, tmp_path, capsys):
    bad = images / 'aa.png'
    bad.write_bytes(b'no image')
    assert find_rocks(images, images / 'missing.png') == 1
    told = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg images' in line]
    assert told == [
        f'rock_seg images: {bad}: does not decode as an image (8 bytes)',
        f'rock_seg images: {images / "missing.png"}: No such file or directory',
    ]
    assert len(names(tmp_path / 'out')) == 6


def test_a_failure_on_one_image_names_it(find_rocks, images, tmp_path, capsys, scene):
    cv2.imwrite(str(tmp_path / 'small.png'), scene[:8, :8])
    cv2.imwrite(str(tmp_path / 'keep.png'), scene[..., 0])
    status = find_rocks(images, tmp_path / 'small.png', '--ignore-mask', tmp_path / 'keep.png')
    assert status == 1
    error = capsys.readouterr().err
    assert f'{tmp_path / "small.png"}: the ignore mask is 64×48, the image is 8×8' in error
    assert (tmp_path / 'out/a.json').exists()


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (MemoryError(), 'MemoryError'),
        (cv2.error('too large\nat line 7'), 'too large'),
        (RuntimeError('out of memory\ntrace'), 'out of memory'),
    ],
)
def test_an_error_on_one_image_is_one_line_and_the_others_go_on(
    find_rocks, images, tmp_path, capsys, segmenter, monkeypatch, error, told
):
    segment, errors = segmenter.segment, [error]

    def fail_once(image, threshold=None):
        if errors:
            raise errors.pop()
        return segment(image, threshold)

    monkeypatch.setattr(segmenter, 'segment', fail_once)
    assert find_rocks(images) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg images' in line]
    assert lines == [f'rock_seg images: {images / "a.png"}: {told}']
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_an_image_with_scores_that_are_no_numbers_is_named_and_nothing_is_written_for_it(
    images, tmp_path, capsys, scene, nan_segmenter, monkeypatch
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: nan_segmenter)
    cv2.imwrite(str(images / 'a.png'), np.full_like(scene, 255))
    assert main(['images', str(images), '-o', str(tmp_path / 'out')]) == 1
    (line,) = told(capsys)
    assert line.startswith(f"{images}/a.png: the network's scores are not finite")
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_options_are_heeded(find_rocks, images, tmp_path):
    assert find_rocks(images / 'a.png', '--min-area', 150) == 0
    assert len(json.loads((tmp_path / 'out/a.json').read_text())['rocks']) == 1


def test_two_inputs_of_one_name_are_refused_before_any_work(
    find_rocks, images, tmp_path, scene, capsys
):
    cv2.imwrite(str(images / 'a.bmp'), scene)
    assert find_rocks(images) == 2
    assert 'would overwrite that of' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_input_is_never_overwritten(find_rocks, images, monkeypatch, scene, capsys):
    cv2.imwrite(str(images / 'a_mask.png'), scene)
    assert main(['images', str(images), '-o', str(images)]) == 2
    assert 'would overwrite the input' in capsys.readouterr().err


def test_weights_that_are_not_there_are_one_line(images, tmp_path, capsys):
    arguments = ['images', str(images), '-o', str(tmp_path), '--weights', 'no.safetensors']
    assert main(arguments) == 1
    assert capsys.readouterr().err == 'rock_seg images: no.safetensors: no such file\n'


def test_files_that_are_passed_over_are_told_by_suffix_with_the_reason(
    find_rocks, images, monkeypatch, capsys
):
    without = tuple(suffix for suffix in image_files.SUFFIXES if suffix != '.heic')
    monkeypatch.setattr(image_files, 'SUFFIXES', without)
    for name in ('1.HEIC', '2.HEIC', '3.HEIC', '4.HEIC', 'notes.txt', '._a.png', 'README'):
        (images / name).write_bytes(b'x')
    (images / 'sub').mkdir()
    assert find_rocks(images) == 0
    assert told(capsys) == [
        f'{images}: 4 files skipped (.HEIC): 1.HEIC, 2.HEIC, 3.HEIC and 1 more;'
        ' reading them needs the package pillow-heif',
        f'{images}: 1 file skipped (no suffix): README; not the suffix of an image',
        f'{images}: 1 file skipped (.txt): notes.txt; not the suffix of an image',
    ]


def test_a_folder_of_nothing_but_files_passed_over_says_so_before_it_is_refused(
    find_rocks, tmp_path, capsys
):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/a.doc').touch()
    assert find_rocks(tmp_path / 'in') == 1
    assert told(capsys) == [
        f'{tmp_path}/in: 1 file skipped (.doc): a.doc; not the suffix of an image',
        f'{tmp_path}/in: contains no images',
    ]


def test_the_low_bits_of_a_file_are_scaled_and_said(find_rocks, tmp_path, scene, capsys):
    deep = scene.astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / 'a.tif'), deep)
    assert find_rocks(tmp_path / 'a.tif') == 0
    assert len(json.loads((tmp_path / 'out/a.json').read_text())['rocks']) == 2
    assert told(capsys) == [
        f'{tmp_path}/a.tif: 16-bit values up to 3680 are scaled as 12 bits;'
        ' set the number of bits with --significant-bits'
    ]
    assert find_rocks(tmp_path / 'a.tif', '--significant-bits', 16) == 0
    assert json.loads((tmp_path / 'out/a.json').read_text())['rocks'] == []
    assert told(capsys) == []


def test_of_many_files_with_low_bits_three_are_named(find_rocks, tmp_path, scene, capsys):
    (tmp_path / 'in').mkdir()
    for name in 'abcde':
        cv2.imwrite(str(tmp_path / f'in/{name}.png'), scene.astype(np.uint16) * 4)
    assert find_rocks(tmp_path / 'in') == 0
    lines = told(capsys)
    assert len(lines) == 4
    assert lines[3] == 'the same holds for other files, which are not listed'


def test_a_file_larger_than_max_pixels_is_refused_by_name(find_rocks, images, capsys):
    assert find_rocks(images / 'a.png', '--max-pixels', 3000) == 1
    assert told(capsys) == [f'{images}/a.png: 64×48, max_pixels is 3000']


def test_a_name_that_is_not_utf_8_is_worked_on(find_rocks, images, tmp_path):
    strange = os.fsdecode(os.fsencode(images) + b'/stone\xff.png')
    (images / 'a.png').rename(strange)
    assert find_rocks(strange) == 0
    stem = os.fsdecode(b'stone\xff')
    assert names(tmp_path / 'out') == [f'{stem}.json', f'{stem}_mask.png', f'{stem}_overlay.jpg']


def test_an_image_whose_overlay_is_lost_is_told_and_fails(
    find_rocks, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, 'write_results', lambda *_: 'no overlay: JPEG cannot hold it')
    assert find_rocks(images / 'a.png') == 1
    assert told(capsys) == [f'{images}/a.png: no overlay: JPEG cannot hold it']


def test_a_json_file_that_is_not_ours_is_never_overwritten(find_rocks, images, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/b.json').write_text('{"shapes": []}')
    assert find_rocks(images) == 2
    (line,) = told(capsys)
    assert f'{tmp_path}/out/b.json' in line
    assert names(tmp_path / 'out') == ['b.json']
    (tmp_path / 'out/b.json').unlink()
    assert find_rocks(images) == 0
    assert find_rocks(images) == 0, 'our own may be made anew'


def test_a_file_name_has_no_power_over_the_terminal(find_rocks, images, capsys):
    evil = images / 'evil\x1b[2J.png'
    evil.write_bytes(b'no image')
    assert find_rocks(images) == 1
    assert '\x1b' not in capsys.readouterr().err.replace('\x1b[A', '')  # which tqdm writes


@pytest.fixture
def photographs(tmp_path):
    """Five images with rocks, of two sizes, and a file that is none."""
    folder = tmp_path / 'photographs'
    folder.mkdir()
    rocks = cv2.resize(cv2.imread(str(SAMPLE)), (160, 120), interpolation=cv2.INTER_AREA)
    for number in range(5):
        image = np.roll(rocks, 9 * number, 1)[: 120 if number < 4 else 96]
        cv2.imwrite(str(folder / f'{number}.png'), image)
    (folder / '2a.png').write_bytes(b'no image')
    return folder


@pytest.mark.parametrize(
    'options', [['--batch', '3'], ['--jobs', '2', '--batch', '2']], ids=['batch', 'jobs']
)
def test_batches_and_jobs_give_the_same_files_and_messages_as_one_image_after_the_other(
    photographs, tmp_path, capsys, options
):
    def find(out, *more):
        settings = ('--device', 'cpu', '--min-area', '4')
        status = main(['images', str(photographs), '-o', str(tmp_path / out), *settings, *more])
        files = {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}
        return status, told(capsys), files

    alone, together = find('alone'), find('together', *options)
    assert alone[:2] == together[:2]
    assert [name for name in alone[2] if alone[2][name] != together[2].get(name)] == []
    assert alone[2].keys() == together[2].keys()
    assert len(alone[2]) == 15
    assert json.loads(alone[2]['0.json'])['rocks']


def test_images_of_a_batch_go_through_the_network_together(
    photographs, tmp_path, weights_file, monkeypatch
):
    batches = []
    segment = Segmenter.segment_batch

    def count(self, images, threshold=None):
        batches.append(len(images))
        return segment(self, images, threshold)

    monkeypatch.setattr(Segmenter, 'segment_batch', count)
    given = ['--weights', str(weights_file), '--device', 'cpu', '--batch', '3']
    assert main(['images', str(photographs), '-o', str(tmp_path / 'out'), *given]) == 1
    assert batches == [3, 2]


def test_an_image_that_fails_in_a_batch_does_not_harm_the_others(
    images, tmp_path, capsys, scene, nan_segmenter, monkeypatch
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: nan_segmenter)
    cv2.imwrite(str(images / 'a.png'), np.full_like(scene, 255))
    assert main(['images', str(images), '-o', str(tmp_path / 'out'), '--batch', '2']) == 1
    assert len(told(capsys)) == 1
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    image = cv2.resize(cv2.imread(str(SAMPLE)), (640, 480), interpolation=cv2.INTER_AREA)
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in/000.jpg'), image)
    for number in range(1, 120):
        os.link(tmp_path / 'in/000.jpg', tmp_path / f'in/{number:03}.jpg')
    used = []  # MB of this process, before each image is written
    write = command.write_results

    def write_results(*given):
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        used.append(pages * os.sysconf('SC_PAGE_SIZE') / 1e6)
        return write(*given)

    monkeypatch.setattr(command, 'write_results', write_results)
    given = ['--device', 'cpu', '--input-size', '64', '64']
    assert main(['images', str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), *given]) == 0
    growth = used[-1] - used[39]
    assert growth < 10, f'{growth:.1f} MB in 80 images of 0.9 MB'
