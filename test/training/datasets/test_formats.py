# SPDX-License-Identifier: Apache-2.0
"""The format of a data set is determined from its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.datasets import DataError, guess_format


def test_each_format_is_recognized(
    write_masks: Callable[..., None],
    write_coco: Callable[..., Path],
    write_labelme: Callable[..., Path],
    tmp_path: Path,
) -> None:
    write_labelme({})
    assert guess_format(tmp_path) == 'labelme'
    write_coco({})
    assert guess_format(tmp_path) == 'coco'
    write_masks('a')
    assert guess_format(tmp_path) == 'masks'
    assert guess_format(tmp_path / 'images') == 'unlabelled'
    assert guess_format(tmp_path / 'nowhere') == 'masks'


@pytest.mark.parametrize('name', ['labels.json', 'deep/er/labels.JSON'])
def test_a_folder_with_invalid_json_files_is_not_unlabelled(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((10, 12, 3), np.uint8))
    (tmp_path / '._labels.json').touch()
    assert guess_format(tmp_path) == 'unlabelled'
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"images": [')
    with pytest.raises(DataError, match=rf'has JSON files .*{name}; give the path of the file'):
        guess_format(tmp_path)


def test_any_json_file_is_coco(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.json')
    assert guess_format(tmp_path / 'a.json') == 'coco'
