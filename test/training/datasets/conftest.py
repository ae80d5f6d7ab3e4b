# SPDX-License-Identifier: Apache-2.0
"""Small sources in each format, and what a test asks of them."""

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
    """Finds the samples of a source at tmp_path, or at a path below."""

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
    """Writes NAME.png with a mask whose left half is rock, for each name."""

    def _write(*names: str) -> None:
        mask = np.zeros((10, 12), np.uint8)
        mask[:, :6] = 255
        for name in names:
            write_image(tmp_path / 'images' / f'{name}.png')
            write_image(tmp_path / 'masks' / f'{name}.png', mask)

    return _write


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a.png of 12×10 px and annotations of it; categories are rock (1), clod (2), belt (3).

    An annotation is a dict; what it lacks of id, image_id, category_id (rock) and segmentation
    (SQUARE) is put in.
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
    """Writes a.png of 12×10 px and a.json with the shapes; what a shape lacks is put in."""

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
