# SPDX-License-Identifier: Apache-2.0
"""A small labelled data set: images with bright discs on dark ground."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rock_seg_ros.perception.inference.backends import openvino_backend

torch.set_num_threads(1)  # a second thread makes operations on small tensors slower


def write_images(folder: Path, count: int) -> Path:
    """Writes images/NAME.png and masks/NAME.png of 96×80 px without a manifest."""
    for part in ('images', 'masks'):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 60, (80, 96, 3), dtype=np.uint8)
        mask = np.zeros((80, 96), np.uint8)
        for _ in range(3):
            centre = (int(rng.integers(10, 86)), int(rng.integers(10, 70)))
            cv2.circle(mask, centre, int(rng.integers(5, 14)), 255, -1)
        image[mask > 0] += 150
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image)
        cv2.imwrite(str(folder / 'masks' / f'{number}.png'), mask)
    return folder


@pytest.fixture
def torch_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes backend 'auto' choose PyTorch, whose networks need no compilation."""
    monkeypatch.setattr(openvino_backend, 'is_available', lambda: False)


@pytest.fixture(scope='session')
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six images, which tests must not change."""
    return write_images(tmp_path_factory.mktemp('discs'), 6)


@pytest.fixture
def own_discs(tmp_path: Path) -> Path:
    """A folder of five images, which the test may change."""
    return write_images(tmp_path / 'data', 5)
