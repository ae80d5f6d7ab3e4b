# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings, find_rocks
from rock_seg_ros.tools.bench.programs.plain_node import fixed_logits


@pytest.mark.parametrize(('width', 'height'), [(640, 480), (1920, 1080)])
def test_the_logits_have_separate_rocks(width, height):
    logits = fixed_logits(height, width, 3)
    assert logits.shape == (3, height, width)
    class_ids = logits.argmax(axis=0).astype(np.uint8)
    segmentation = Segmentation(class_ids, np.full_like(class_ids, 255), (1,), rim_id=2)
    found = find_rocks(segmentation, RockSettings(max_rocks=1000))
    assert len(found) == 20
    assert sum(rock.area for rock in found) > 0.2 * width * height
