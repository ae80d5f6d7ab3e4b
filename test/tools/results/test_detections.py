# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest


def test_each_image_has_one_object_with_the_fields_of_detections(find_rocks, tmp_path):
    assert find_rocks('--supervision', tmp_path / 'rocks.json') == 0
    images = json.loads((tmp_path / 'rocks.json').read_text())['images']
    assert [image['image'] for image in images] == ['a.png', 'b.png', 'empty.png']
    first = images[0]
    assert first['xyxy'] == [[8, 4, 28, 14], [40, 30, 50, 42]]
    assert first['confidence'] == pytest.approx([200 / 255] * 2, abs=1e-3)
    assert (first['class_id'], first['tracker_id']) == ([1, 1], [1, 2])
    assert first['data']['class_name'] == ['rock', 'rock']
    assert [len(polygon) for polygon in first['polygon']] == [4, 4]
    assert images[2]['xyxy'] == []


def test_supervision_loads_the_fields(find_rocks, tmp_path):
    supervision = pytest.importorskip('supervision')
    assert find_rocks('--supervision', tmp_path / 'rocks.json') == 0
    image = json.loads((tmp_path / 'rocks.json').read_text())['images'][0]
    detections = supervision.Detections(
        xyxy=np.array(image['xyxy'], float).reshape(-1, 4),
        confidence=np.array(image['confidence']),
        class_id=np.array(image['class_id']),
        tracker_id=np.array(image['tracker_id']),
        data={name: np.array(values) for name, values in image['data'].items()},
    )
    assert len(detections) == 2
