# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from training.synthetic.terrain import Terrain, draw_craters


def test_a_crater_is_a_bowl_with_a_rim() -> None:
    plane = Terrain(roughness=0.0, finest=1.0, craters=np.array([[5.0, 0.0, 2.0]]))
    middle, rim, far = plane.height(np.array([[5.0, 0.0], [5.0, 2.0], [5.0, 9.0]]))
    assert middle == pytest.approx(2 * (0.05 - 0.22))
    assert rim == pytest.approx(2 * 0.05)
    assert far == 0.0


def test_craters_of_each_octave_cover_the_same_share() -> None:
    craters = draw_craters(np.random.default_rng(0), 0.05, 1.0, 8.0)
    radius = craters[:, 2]
    counts = np.histogram(radius, [1, 2, 4, 8])[0]
    assert counts == pytest.approx(0.05 * 40**2, rel=0.4)
    assert (np.hypot(craters[:, 0], craters[:, 1]) <= 40 * radius + 1e-9).all()
