# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from training.synthetic.sensor import Sensor

QUIET = {'blur': 0.0, 'shot_noise': 0.0, 'read_noise': 0.0}


def exposed(light: np.ndarray, **settings: object) -> np.ndarray:
    sensor = Sensor(**{**QUIET, **settings})  # type: ignore[arg-type]
    return sensor.expose(light.astype(np.float32), np.random.default_rng(0), gain=1.0)


def test_motion_blurs_along_its_direction_only() -> None:
    light = np.zeros((21, 21, 3))
    light[10, 10] = 8.0
    lit = exposed(light, motion=(6.0, 0.0))[..., 0] > 0
    assert lit[10].sum() == pytest.approx(7, abs=1)
    assert lit.sum() == lit[10].sum()
    assert abs(int(np.flatnonzero(lit[10]).mean()) - 10) <= 1


def test_contrast_darkens_shadows_and_brightens_highlights() -> None:
    light = np.full((4, 4, 3), 0.03)
    light[2:] = 0.6
    flat, steep = exposed(light), exposed(light, contrast=1.0)
    assert steep[0, 0, 0] < flat[0, 0, 0] - 5
    assert steep[3, 3, 0] > flat[3, 3, 0] + 5


def test_sharpening_adds_a_halo_at_an_edge() -> None:
    light = np.full((9, 20, 3), 0.1)
    light[:, 10:] = 0.4
    plain, sharp = exposed(light)[4, :, 0], exposed(light, sharpening=1.0)[4, :, 0]
    assert sharp[9] < plain[9] - 5
    assert sharp[10] > plain[10] + 5
    assert sharp[0] == plain[0]
