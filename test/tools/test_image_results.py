# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import View
from rock_seg_ros.perception.image_io import encoding
from rock_seg_ros.perception.image_io.decoding import ImageError
from rock_seg_ros.tools.image_results import (
    find_images,
    image_record,
    is_result_file,
    result_paths,
    write_image,
    write_json,
    write_json_lists,
    write_results,
)


def write(stem, name, analysis):
    return write_results(stem, image_record(name, analysis), analysis)


def test_folders_globs_and_files_are_listed_once_and_in_order(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'notes.txt', 'c.tiff'):
        (tmp_path / name).touch()
    given = [str(tmp_path / 'c.tiff'), str(tmp_path), str(tmp_path / '*.jpg'), 'missing.png']
    found = [path.name for path in find_images(given)]
    assert found == ['c.tiff', 'a.jpg', 'b.PNG', 'missing.png']


@pytest.mark.parametrize('given', ['', '*.png'])
def test_a_folder_or_glob_without_images_is_rejected(tmp_path, given):
    with pytest.raises(ImageError, match='contains no images'):
        find_images([str(tmp_path / given)])


def test_the_record_has_the_documented_keys(scene, segmenter):
    record = json.loads(json.dumps(image_record('a.png', Analysis(scene, segmenter))))
    assert list(record) == ['image', 'width', 'height', 'scale', 'rocks']
    assert (record['image'], record['width'], record['height']) == ('a.png', 64, 48)
    assert record['rocks'][0] == {
        'id': 1,
        'class': 'rock',
        'score': pytest.approx(200 / 255, abs=1e-4),
        'area': 200,
        'bbox': [8, 4, 20, 10],
        'polygon': record['rocks'][0]['polygon'],
        'diameter': pytest.approx(2 * (200 / np.pi) ** 0.5, abs=0.01),
        'long_axis': pytest.approx(20, rel=0.2),
        'short_axis': pytest.approx(10, rel=0.3),
        'orientation': pytest.approx(0, abs=0.1),
        'perimeter': pytest.approx(60, rel=0.05),
        'circularity': pytest.approx(0.7, abs=0.06),
        'diameter_mm': None,
        'long_axis_mm': None,
        'short_axis_mm': None,
        'position': [None, None, None],
        'distance': None,
    }
    corners = {tuple(point) for point in record['rocks'][0]['polygon']}
    assert corners == {(8, 4), (27, 4), (27, 13), (8, 13)}
    assert len(record['rocks']) == 2


def test_mask_and_overlay_have_the_size_of_the_image(tmp_path, scene, segmenter):
    write(tmp_path / 'new' / 'a.b', 'a.b.png', Analysis(scene, segmenter))
    files = sorted(path.name for path in (tmp_path / 'new').iterdir())
    assert files == ['a.b.json', 'a.b_mask.png', 'a.b_overlay.jpg']
    mask = cv2.imread(str(tmp_path / 'new/a.b_mask.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, np.where(scene[..., 0] > 127, 255, 0))
    assert cv2.imread(str(tmp_path / 'new/a.b_overlay.jpg')).shape == scene.shape


def test_a_colour_image_is_written_as_rgb(tmp_path, colours):
    write_image(tmp_path / 'a.png', colours)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), colours)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, colours):
    class Interrupted:
        def tobytes(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(encoding.cv2, 'imencode', lambda *_: (True, Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / 'a.png', colours)
    assert list(tmp_path.iterdir()) == []


def test_hidden_files_of_a_folder_are_ignored(tmp_path):
    for name in ('a.png', '._a.png', '.b.jpg'):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([str(tmp_path)])] == ['a.png']
    named = tmp_path / '.b.jpg'
    assert find_images([str(named)]) == [named]


def test_an_image_too_large_for_jpeg_has_results_without_an_overlay(tmp_path, segmenter):
    wide = np.full((2, 65_501, 3), 220, np.uint8)
    problem = write(tmp_path / 'a', 'a.png', Analysis(wide, segmenter))
    assert problem == 'no overlay: JPEG does not support 65501×2 pixels'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.json', 'a_mask.png']


def test_an_image_whose_record_cannot_be_written_leaves_no_files(tmp_path, scene, segmenter):
    (tmp_path / 'a.json').mkdir()
    with pytest.raises(OSError):
        write(tmp_path / 'a', 'a.png', Analysis(scene, segmenter))
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


def test_a_file_name_that_is_not_utf_8_is_written_with_a_replacement(tmp_path):
    write_json(tmp_path / 'a.json', {'image': 'stone\udcff.png'})
    content = (tmp_path / 'a.json').read_bytes()
    assert json.loads(content.decode('utf-8'))['image'] == 'stone\ufffd.png'


def test_without_the_scale_that_was_asked_for_the_sizes_are_in_pixels_only(scene, segmenter):
    matrix = np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    depth = np.full((48, 64), 2, np.float32)
    view = View(Intrinsics(matrix, np.zeros(0), size=(64, 48)), depth)
    measured = image_record('a.png', Analysis(scene, segmenter, view=view))['rocks'][0]
    assert measured['diameter_mm'] > 0
    record = image_record('a.png', Analysis(scene, segmenter, view=view), None, 'no tag found')
    assert record['scale'] == {'mm_per_px': None, 'problem': 'no tag found'}
    rock = record['rocks'][0]
    assert [rock[f'{name}_mm'] for name in ('diameter', 'long_axis', 'short_axis')] == [None] * 3
    assert rock['distance'] == measured['distance']


def test_a_json_file_of_values_and_lists_is_written_piece_by_piece(tmp_path):
    write_json_lists(tmp_path / 'a.json', {'frames': iter([1, 2]), 'rest': []}, video='a.mp4')
    content = (tmp_path / 'a.json').read_bytes()
    assert json.loads(content) == {'video': 'a.mp4', 'frames': [1, 2], 'rest': []}
    assert is_result_file(tmp_path / 'a.json')


def test_a_result_file_is_recognized_by_its_content(tmp_path, scene, segmenter):
    write(tmp_path / 'a', 'a"b.png', Analysis(scene, segmenter))
    assert is_result_file(result_paths(tmp_path / 'a')[2])
    own = (
        {'image': 'a.png', 'boxes': []},
        {'image': 'a.png', 'width': 9, 'height': 9, 'boxes': []},
    )
    texts = [json.dumps(content).encode() for content in (*own, {'video': 'a.mp4', 'frames': []})]
    for content in (b'{"version": "5.0", "image": "a.png"}', b'', b'[]', b'\xff\xfe', *texts):
        (tmp_path / 'b.json').write_bytes(content)
        assert not is_result_file(tmp_path / 'b.json')
