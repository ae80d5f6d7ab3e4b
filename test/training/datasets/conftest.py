# SPDX-License-Identifier: Apache-2.0
"""Fixtures that write small data sets in each format, and list their samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.datasets import DatasetConfig, Sample, find_samples

Finder = Callable[..., list[Sample]]
SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]  # 4×4 px from (2, 1)


def write_image(path: Path, pixels: NDArray[Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((10, 12, 3), 80, np.uint8) if pixels is None else pixels)


@pytest.fixture
def find(tmp_path: Path) -> Finder:
    """Returns a function that lists the samples of a source at tmp_path, or below it."""

    def _find(
        kind: str,
        split: str = 'all',
        path: str = '.',
        classes: Sequence[str] = ('background', 'rock'),
        **settings: Any,
    ) -> list[Sample]:
        config = DatasetConfig(str(tmp_path / path), kind, **settings)
        return find_samples(config, split, classes)

    return _find


@pytest.fixture
def write_masks(tmp_path: Path) -> Callable[..., None]:
    """Returns a function that writes images NAME.png with masks whose left half is rock."""

    def _write(*names: str) -> None:
        mask = np.zeros((10, 12), np.uint8)
        mask[:, :6] = 255
        for name in names:
            write_image(tmp_path / 'images' / f'{name}.png')
            write_image(tmp_path / 'masks' / f'{name}.png', mask)

    return _write


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a.png of 12×10 px and a COCO file with annotations of it.

    The categories are rock (1), clod (2) and belt (3). Missing keys of an annotation are added: id,
    image_id, category_id (rock) and segmentation (SQUARE).
    """

    def _write(*annotations: dict[str, Any], **changes: Any) -> Path:
        write_image(tmp_path / 'images' / 'a.png')
        defaults = {'image_id': 1, 'category_id': 1, 'segmentation': [SQUARE]}
        names = enumerate(('rock', 'clod', 'belt'), start=1)
        data = {
            'images': [{'id': 1, 'file_name': 'a.png', 'width': 12, 'height': 10}],
            'categories': [{'id': number, 'name': name} for number, name in names],
            'annotations': [{'id': n, **defaults, **a} for n, a in enumerate(annotations, 1)],
        }
        path = tmp_path / 'annotations.coco.json'
        path.write_text(json.dumps({**data, **changes}))
        return path

    return _write


@pytest.fixture
def write_labelme(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a.png of 12×10 px and a.json; missing keys are added."""

    def _write(*shapes: dict[str, Any], **changes: Any) -> Path:
        write_image(tmp_path / 'a.png')
        square = np.reshape(SQUARE, (4, 2)).tolist()
        defaults = {'label': 'rock', 'points': square, 'shape_type': 'polygon', 'group_id': None}
        data = {
            'imagePath': 'a.png',
            'imageWidth': 12,
            'imageHeight': 10,
            'imageData': 'no image',
            'shapes': [{**defaults, **shape} for shape in shapes],
        }
        path = tmp_path / 'a.json'
        path.write_text(json.dumps({**data, **changes}))
        return path

    return _write
