# SPDX-License-Identifier: Apache-2.0
"""Images without labels: every pixel is ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.datasets import IGNORE, DataError, Sample

Finder = Callable[..., list[Sample]]


@pytest.mark.parametrize('folder', ['.', 'images'])
def test_every_pixel_is_ignored(find: Finder, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / folder / 'a.jpg'), np.zeros((10, 12, 3), np.uint8))
    (sample,) = find('unlabelled')
    labelled = sample.read()
    assert labelled.classes.shape == (10, 12)
    assert (labelled.classes == IGNORE).all()
    assert labelled.instances is None
    assert sample.label_files() == ()


def test_a_folder_without_images_is_reported(find: Finder) -> None:
    with pytest.raises(DataError, match="no image in split 'all'"):
        find('unlabelled')
    with pytest.raises(DataError, match='nowhere: no such folder'):
        find('unlabelled', path='nowhere')
