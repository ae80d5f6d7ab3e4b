# SPDX-License-Identifier: Apache-2.0
"""Hand-drawn regions of images that are not part of this repository."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

REGIONS = Path(__file__).parents[2] / 'training/regions'
NOT_ROCK = {'sky', 'far', 'sand', 'vegetation', 'robot', 'building', 'road', 'indoor', 'shadow'}
LABELS = {'rock', 'soil', 'void'} | NOT_ROCK  # pixels without a label are ignored


@pytest.mark.parametrize('folder', sorted(REGIONS.iterdir()), ids=lambda folder: folder.name)
def test_regions_are_inside_their_image_and_the_manifest_lists_each_file(folder: Path) -> None:
    files = {path.stem: json.loads(path.read_text()) for path in folder.glob('*.json')}
    assert files
    for name, content in files.items():
        assert Path(content['imagePath']).stem == name
        size = (content['imageWidth'], content['imageHeight'])
        for shape in content['shapes']:
            assert shape['label'] in LABELS
            points = np.array(shape['points'])
            assert (points >= 0).all(), name
            assert (points <= size).all(), name
    with (folder / 'manifest.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row['id'] for row in rows) == sorted(files)
    assert {row['split'] for row in rows} <= {'train', 'val'}
