# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from rock_seg_ros.perception.image_io.decoding import FORMATS
from rock_seg_ros.perception.image_io.image_files import (
    SUFFIXES,
    image_files,
    is_lossy,
    unsupported_files,
    unsupported_reason,
)


@pytest.fixture
def folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'c.Tiff', 'd.jfif', '._a.jpg', '.e.png', 'notes.txt', 'f.RAW'):
        (tmp_path / name).touch()
    (tmp_path / 'sub.png').mkdir()
    os.mkfifo(tmp_path / 'pipe.png')
    return tmp_path


def test_image_files_are_found_by_their_suffix_in_upper_and_lower_case(folder):
    assert [path.name for path in image_files(folder)] == ['a.jpg', 'b.PNG', 'c.Tiff', 'd.jfif']


def test_a_missing_folder_has_no_image_files(tmp_path):
    assert image_files(tmp_path / 'none') == []
    assert unsupported_files(tmp_path / 'none') == {}


def test_other_files_are_listed_by_suffix_without_hidden_files(folder):
    others = unsupported_files(folder)
    names = {suffix: [path.name for path in files] for suffix, files in others.items()}
    assert names == {'.txt': ['notes.txt'], '.RAW': ['f.RAW']}


def test_the_reason_for_an_unsupported_suffix_names_the_missing_package():
    assert unsupported_reason('.txt') == 'not the suffix of an image'
    if 'HEIF' not in FORMATS:
        assert unsupported_reason('.HEIC') == 'missing dependency: the package pillow-heif'
        assert '.heic' not in SUFFIXES


def test_jpeg_is_lossy_and_png_and_tiff_are_not(tmp_path):
    assert not is_lossy(tmp_path / 'a.PNG')
    assert not is_lossy(tmp_path / 'a.tif')
    assert is_lossy(tmp_path / 'a.JPG')
    assert is_lossy(tmp_path / 'a.jfif')
