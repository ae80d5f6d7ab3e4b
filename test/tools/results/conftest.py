# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import pytest

from rock_seg_ros.tools import images as command
from rock_seg_ros.tools.main import main


@pytest.fixture
def folder(tmp_path, scene):
    """A folder of three images: two of the scene, and one without rocks."""
    made = tmp_path / 'in'
    made.mkdir()
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(made / name), scene)
    cv2.imwrite(str(made / 'empty.png'), scene // 4)
    return made


@pytest.fixture
def find_rocks(monkeypatch, segmenter, folder, tmp_path):
    """Runs `rock_seg images` on the folder with the test network; results go to `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    return lambda *given: main(
        ['images', str(folder), '-o', str(tmp_path / 'out'), *map(str, given)]
    )


@pytest.fixture
def messages(capsys):
    """Returns the lines that `rock_seg images` has printed since the last call."""

    def lines():
        printed = capsys.readouterr().err.splitlines()
        return [line.rpartition('rock_seg images: ')[2] for line in printed if 'rock_seg' in line]

    return lines
