# SPDX-License-Identifier: Apache-2.0
"""What a path looks like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.datasets import DataError, guess_format


def test_each_format_is_recognised(
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
def test_a_folder_with_json_that_is_no_labels_is_not_taken_for_unlabelled(
    tmp_path: Path, name: str
) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((10, 12, 3), np.uint8))
    (tmp_path / '._labels.json').touch()
    assert guess_format(tmp_path) == 'unlabelled'
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"images": [')
    with pytest.raises(DataError, match=rf'has JSON files .*{name}; name the file, or the format'):
        guess_format(tmp_path)


def test_a_json_file_is_of_coco_and_says_itself_what_is_wrong_with_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'a.json')
    assert guess_format(tmp_path / 'a.json') == 'coco'
