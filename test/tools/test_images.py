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
    """Runs `rock_seg images` with the test network; results go to `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    return lambda *given: main(['images', *map(str, given), '-o', str(tmp_path / 'out')])


@pytest.fixture
def images(tmp_path, scene):
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(folder / name), scene)
    return folder


def messages(capsys):
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


def test_an_unreadable_file_is_reported_in_one_line_and_the_others_are_processed(
    find_rocks, images, tmp_path, capsys
):
    bad = images / 'aa.png'
    bad.write_bytes(b'no image')
    assert find_rocks(images, images / 'missing.png') == 1
    assert messages(capsys) == [
        f'{bad}: does not decode as an image (8 bytes)',
        f'{images / "missing.png"}: No such file or directory',
    ]
    assert len(names(tmp_path / 'out')) == 6


def test_an_ignore_mask_of_another_size_is_an_error_for_that_image(
    find_rocks, images, tmp_path, capsys, scene
):
    cv2.imwrite(str(tmp_path / 'small.png'), scene[:8, :8])
    cv2.imwrite(str(tmp_path / 'keep.png'), scene[..., 0])
    status = find_rocks(images, tmp_path / 'small.png', '--ignore-mask', tmp_path / 'keep.png')
    assert status == 1
    error = capsys.readouterr().err
    assert f'{tmp_path / "small.png"}: the ignore mask is 64×48, the image is 8×8' in error
    assert (tmp_path / 'out/a.json').exists()


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (MemoryError(), 'MemoryError'),
        (cv2.error('too large\nat line 7'), 'too large'),
        (RuntimeError('out of memory\ntrace'), 'out of memory'),
    ],
)
def test_an_error_on_one_image_is_reported_in_one_line_and_the_others_are_processed(
    find_rocks, images, tmp_path, capsys, segmenter, monkeypatch, error, message
):
    segment, errors = segmenter.segment, [error]

    def fail_once(image, threshold=None):
        if errors:
            raise errors.pop()
        return segment(image, threshold)

    monkeypatch.setattr(segmenter, 'segment', fail_once)
    assert find_rocks(images) == 1
    assert messages(capsys) == [f'{images / "a.png"}: {message}']
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_an_image_with_logits_that_are_not_finite_is_reported_and_has_no_results(
    images, tmp_path, capsys, white_corner, nan_segmenter, monkeypatch
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: nan_segmenter)
    cv2.imwrite(str(images / 'a.png'), white_corner)
    assert main(['images', str(images), '-o', str(tmp_path / 'out')]) == 1
    (line,) = messages(capsys)
    assert line.startswith(f"{images}/a.png: the network's logits are not finite")
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_the_minimum_area_is_applied(find_rocks, images, tmp_path):
    assert find_rocks(images / 'a.png', '--min-area', 150) == 0
    assert len(json.loads((tmp_path / 'out/a.json').read_text())['rocks']) == 1


def test_two_inputs_with_the_same_result_names_are_rejected(
    find_rocks, images, tmp_path, scene, capsys
):
    cv2.imwrite(str(images / 'a.bmp'), scene)
    assert find_rocks(images) == 2
    assert 'would overwrite that of' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_input_is_not_overwritten(find_rocks, images, monkeypatch, scene, capsys):
    cv2.imwrite(str(images / 'a_mask.png'), scene)
    assert main(['images', str(images), '-o', str(images)]) == 2
    assert 'would overwrite the input' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['a.json', 'a_mask.png', 'a_overlay.jpg'])
def test_a_result_that_is_a_folder_is_named_before_any_work(
    find_rocks, images, tmp_path, capsys, name
):
    (tmp_path / 'out' / name).mkdir(parents=True)
    assert find_rocks(images) == 2
    assert f'would overwrite {tmp_path}/out/{name}, which' in capsys.readouterr().err


def test_an_output_that_is_a_file_is_named_before_any_work(find_rocks, images, tmp_path, capsys):
    (tmp_path / 'out').write_text('')
    assert find_rocks(images) == 2
    assert capsys.readouterr().err == (
        f'rock_seg images: {tmp_path}/out: exists and is not a folder;'
        ' choose another output folder\n'
    )


def test_missing_weights_are_an_error_of_one_line(images, tmp_path, capsys):
    arguments = ['images', str(images), '-o', str(tmp_path), '--weights', 'no.safetensors']
    assert main(arguments) == 1
    assert capsys.readouterr().err == 'rock_seg images: no.safetensors: no such file\n'


def test_skipped_files_are_reported_by_suffix_with_the_reason(
    find_rocks, images, monkeypatch, capsys
):
    without = tuple(suffix for suffix in image_files.SUFFIXES if suffix != '.heic')
    monkeypatch.setattr(image_files, 'SUFFIXES', without)
    for name in ('1.HEIC', '2.HEIC', '3.HEIC', '4.HEIC', 'notes.txt', '._a.png', 'README'):
        (images / name).write_bytes(b'x')
    (images / 'sub').mkdir()
    assert find_rocks(images) == 0
    assert messages(capsys) == [
        f'{images}: 4 files skipped (.HEIC): 1.HEIC, 2.HEIC, 3.HEIC and 1 more;'
        ' missing dependency: the package pillow-heif',
        f'{images}: 1 file skipped (no suffix): README; not the suffix of an image',
        f'{images}: 1 file skipped (.txt): notes.txt; not the suffix of an image',
    ]


def test_a_folder_without_images_is_rejected_after_its_skipped_files_are_reported(
    find_rocks, tmp_path, capsys
):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/a.doc').touch()
    assert find_rocks(tmp_path / 'in') == 1
    assert messages(capsys) == [
        f'{tmp_path}/in: 1 file skipped (.doc): a.doc; not the suffix of an image',
        f'{tmp_path}/in: contains no images',
    ]


def test_values_of_fewer_than_16_bits_are_scaled_and_reported(find_rocks, tmp_path, scene, capsys):
    deep = scene.astype(np.uint16) * 16
    cv2.imwrite(str(tmp_path / 'a.tif'), deep)
    assert find_rocks(tmp_path / 'a.tif') == 0
    assert len(json.loads((tmp_path / 'out/a.json').read_text())['rocks']) == 2
    assert messages(capsys) == [
        f'{tmp_path}/a.tif: 16-bit values up to 3680 are scaled as 12 bits;'
        ' set the number of bits with --significant-bits'
    ]
    assert find_rocks(tmp_path / 'a.tif', '--significant-bits', 16) == 0
    assert json.loads((tmp_path / 'out/a.json').read_text())['rocks'] == []
    assert messages(capsys) == []


def test_scaled_values_are_reported_for_three_files_only(find_rocks, tmp_path, scene, capsys):
    (tmp_path / 'in').mkdir()
    for name in 'abcde':
        cv2.imwrite(str(tmp_path / f'in/{name}.png'), scene.astype(np.uint16) * 4)
    assert find_rocks(tmp_path / 'in') == 0
    lines = messages(capsys)
    assert len(lines) == 4
    assert lines[3] == 'the same holds for other files, which are not listed'


def test_a_file_larger_than_max_pixels_is_rejected_by_name(find_rocks, images, capsys):
    assert find_rocks(images / 'a.png', '--max-pixels', 3000) == 1
    assert messages(capsys) == [f'{images}/a.png: 64×48; max_pixels is 3000']


def test_the_report_shows_images_of_up_to_max_pixels(find_rocks, images, tmp_path, monkeypatch):
    given, read = [], command.read_rgb

    def read_rgb(*arguments, **options):
        given.append(options.get('max_pixels'))
        return read(*arguments, **options)

    monkeypatch.setattr(command, 'read_rgb', read_rgb)
    report = ('--report', tmp_path / 'report.html')
    assert find_rocks(images / 'a.png', *report, '--max-pixels', 200_000_000) == 0
    assert given == [None, 200_000_000], 'the image, and its overlay for the report'


def test_a_file_name_that_is_not_utf_8_is_processed(find_rocks, images, tmp_path):
    strange = os.fsdecode(os.fsencode(images) + b'/stone\xff.png')
    (images / 'a.png').rename(strange)
    assert find_rocks(strange) == 0
    stem = os.fsdecode(b'stone\xff')
    assert names(tmp_path / 'out') == [f'{stem}.json', f'{stem}_mask.png', f'{stem}_overlay.jpg']


def test_a_missing_overlay_is_reported_as_an_error(
    find_rocks, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, 'write_results', lambda *_: 'no overlay: JPEG does not support it')
    assert find_rocks(images / 'a.png') == 1
    assert messages(capsys) == [f'{images}/a.png: no overlay: JPEG does not support it']


def test_a_json_file_that_is_no_record_is_not_overwritten(find_rocks, images, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/b.json').write_text('{"shapes": []}')
    assert find_rocks(images) == 2
    (line,) = messages(capsys)
    assert f'{tmp_path}/out/b.json' in line
    assert names(tmp_path / 'out') == ['b.json']
    (tmp_path / 'out/b.json').unlink()
    assert find_rocks(images) == 0
    assert find_rocks(images) == 0, 'own results may be overwritten'


def test_control_characters_in_a_file_name_do_not_reach_the_terminal(find_rocks, images, capsys):
    (images / 'clear\x1b[2J.png').write_bytes(b'no image')
    assert find_rocks(images) == 1
    assert '\x1b' not in capsys.readouterr().err.replace('\x1b[A', '')  # which tqdm writes


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Five images with rocks, of two sizes, and a file that is no image."""
    folder = tmp_path_factory.mktemp('photographs')
    rocks = cv2.resize(cv2.imread(str(SAMPLE)), (160, 120), interpolation=cv2.INTER_AREA)
    for number in range(5):
        image = np.roll(rocks, 9 * number, 1)[: 120 if number < 4 else 96]
        cv2.imwrite(str(folder / f'{number}.png'), image)
    (folder / '2a.png').write_bytes(b'no image')
    return folder


def segment_photographs(folder, out, *options):
    """Returns the exit status and the files of `rock_seg images` with the embedded weights."""
    settings = ['--device', 'cpu', '--backend', 'torch', '--min-area', '4']  # no compilation
    given = ['images', str(folder), '-o', str(out), *settings, *options]
    return main(given), {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope='module')
def single_images(photographs, tmp_path_factory):
    """The files of a run with one image at a time."""
    status, files = segment_photographs(photographs, tmp_path_factory.mktemp('single'))
    assert (status, len(files)) == (1, 15)
    assert json.loads(files['0.json'])['rocks']
    return files


@pytest.mark.parametrize(
    'options', [['--batch', '3'], ['--jobs', '2', '--batch', '2']], ids=['batch', 'jobs']
)
def test_batches_and_jobs_give_the_same_files_and_messages_as_single_images(
    photographs, single_images, tmp_path, capsys, options
):
    status, files = segment_photographs(photographs, tmp_path / 'out', *options)
    assert status == 1
    assert messages(capsys) == [f'{photographs}/2a.png: does not decode as an image (8 bytes)']
    assert [name for name in files if files[name] != single_images.get(name)] == []
    assert files.keys() == single_images.keys()


def test_images_of_a_batch_are_segmented_together(
    photographs, tmp_path, light_weights_file, monkeypatch
):
    batches = []
    segment = Segmenter.segment_batch

    def count(self, images, threshold=None):
        batches.append(len(images))
        return segment(self, images, threshold)

    monkeypatch.setattr(Segmenter, 'segment_batch', count)
    given = ['--weights', str(light_weights_file), '--device', 'cpu', '--backend', 'torch']
    given += ['--batch', '3', '-o', str(tmp_path / 'out')]
    assert main(['images', str(photographs), *given]) == 1
    assert batches == [3, 2]


def test_an_image_that_fails_in_a_batch_does_not_affect_the_others(
    images, tmp_path, capsys, white_corner, nan_segmenter, monkeypatch
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: nan_segmenter)
    cv2.imwrite(str(images / 'a.png'), white_corner)
    assert main(['images', str(images), '-o', str(tmp_path / 'out'), '--batch', '2']) == 1
    assert len(messages(capsys)) == 1
    assert names(tmp_path / 'out') == ['b.json', 'b_mask.png', 'b_overlay.jpg']


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    image = cv2.resize(cv2.imread(str(SAMPLE)), (480, 360), interpolation=cv2.INTER_AREA)
    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in/000.jpg'), image)
    for number in range(1, 80):
        os.link(tmp_path / 'in/000.jpg', tmp_path / f'in/{number:03}.jpg')
    used = []  # MB of this process, before each image is written
    write = command.write_results

    def write_results(*given):
        pages = int(Path('/proc/self/statm').read_text().split()[1])
        used.append(pages * os.sysconf('SC_PAGE_SIZE') / 1e6)
        return write(*given)

    monkeypatch.setattr(command, 'write_results', write_results)
    given = ['--device', 'cpu', '--backend', 'torch', '--input-size', '64', '64']
    assert main(['images', str(tmp_path / 'in'), '-o', str(tmp_path / 'out'), *given]) == 0
    growth = used[-1] - used[29]
    assert growth < 10, f'{growth:.1f} MB in 50 images of 0.5 MB'
