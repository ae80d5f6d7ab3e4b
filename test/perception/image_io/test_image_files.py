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


def test_images_are_found_by_suffix_in_any_case_without_hidden_ones_folders_and_pipes(folder):
    assert [path.name for path in image_files(folder)] == ['a.jpg', 'b.PNG', 'c.Tiff', 'd.jfif']


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert image_files(tmp_path / 'none') == []
    assert unsupported_files(tmp_path / 'none') == {}


def test_what_is_no_image_is_told_by_suffix_but_for_hidden_files(folder):
    others = unsupported_files(folder)
    names = {suffix: [path.name for path in files] for suffix, files in others.items()}
    assert names == {'.txt': ['notes.txt'], '.RAW': ['f.RAW']}


def test_an_image_that_needs_a_package_says_which():
    assert unsupported_reason('.txt') == 'not the suffix of an image'
    if 'HEIF' not in FORMATS:
        assert unsupported_reason('.HEIC') == 'reading them needs the package pillow-heif'
        assert '.heic' not in SUFFIXES


def test_a_mask_may_be_png_or_tiff_and_not_jpeg(tmp_path):
    assert not is_lossy(tmp_path / 'a.PNG')
    assert not is_lossy(tmp_path / 'a.tif')
    assert is_lossy(tmp_path / 'a.JPG')
    assert is_lossy(tmp_path / 'a.jfif')
