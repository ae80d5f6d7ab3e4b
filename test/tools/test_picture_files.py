# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.decoding import PictureError
from rock_seg_ros.tools import picture_files
from rock_seg_ros.tools.picture_files import (
    find_pictures,
    picture_record,
    write_picture,
    write_results,
)


def test_folders_globs_and_files_are_listed_once_and_in_order(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'notes.txt', 'c.tiff'):
        (tmp_path / name).touch()
    given = [str(tmp_path / 'c.tiff'), str(tmp_path), str(tmp_path / '*.jpg'), 'missing.png']
    found = [path.name for path in find_pictures(given)]
    assert found == ['c.tiff', 'a.jpg', 'b.PNG', 'missing.png']


@pytest.mark.parametrize('given', ['', '*.png'])
def test_a_folder_or_glob_without_pictures_is_refused(tmp_path, given):
    with pytest.raises(PictureError, match='no pictures there'):
        find_pictures([str(tmp_path / given)])


def test_the_record_is_what_programs_read(scene, segmenter):
    record = json.loads(json.dumps(picture_record('a.png', Analysis(scene, segmenter))))
    assert list(record) == ['image', 'width', 'height', 'rocks']
    assert (record['image'], record['width'], record['height']) == ('a.png', 64, 48)
    assert record['rocks'][0] == {
        'id': 1,
        'class': 'rock',
        'score': pytest.approx(200 / 255, abs=1e-4),
        'area': 200,
        'bbox': [8, 4, 20, 10],
        'polygon': record['rocks'][0]['polygon'],
    }
    corners = {tuple(point) for point in record['rocks'][0]['polygon']}
    assert corners == {(8, 4), (27, 4), (27, 13), (8, 13)}
    assert len(record['rocks']) == 2


def test_mask_overlay_and_record_have_the_pictures_size(tmp_path, scene, segmenter):
    write_results(tmp_path / 'new' / 'a.b', 'a.b.png', Analysis(scene, segmenter))
    files = sorted(path.name for path in (tmp_path / 'new').iterdir())
    assert files == ['a.b.json', 'a.b_mask.png', 'a.b_overlay.jpg']
    mask = cv2.imread(str(tmp_path / 'new/a.b_mask.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, np.where(scene[..., 0] > 127, 255, 0))
    assert cv2.imread(str(tmp_path / 'new/a.b_overlay.jpg')).shape == scene.shape


def test_a_colour_picture_is_written_as_it_is_seen(tmp_path, colours):
    write_picture(tmp_path / 'a.png', colours)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), colours)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, colours):
    class Interrupted:
        def tobytes(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(picture_files.cv2, 'imencode', lambda *_: (True, Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / 'a.png', colours)
    assert list(tmp_path.iterdir()) == []
