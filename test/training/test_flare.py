# SPDX-License-Identifier: Apache-2.0
"""A lens flare adds light: the Sun, its glow, a veil and ghosts."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation import Perturbation
from training.flare import GHOSTS, SUN, VEIL, add_flare

DARK = np.full((90, 160, 3), 10, np.uint8)


def test_the_sun_is_white_and_its_glow_decreases_to_the_veil() -> None:
    flared = add_flare(DARK, 1.0)
    row, column = round(90 * SUN[1]), round(160 * SUN[0])
    assert (flared[row, column] == 255).all()
    along = flared[row:, column, 2].astype(int)
    assert (np.diff(along) <= 0).all()
    assert flared.min() == pytest.approx(10 + VEIL, abs=8)


def test_the_ghosts_lie_on_the_line_from_the_sun_through_the_centre() -> None:
    difference = add_flare(DARK, 0.5).astype(int)
    for position, _, colour in GHOSTS:
        x = 160 * (SUN[0] + position * (0.5 - SUN[0]))
        y = 90 * (SUN[1] + position * (0.5 - SUN[1]))
        red, green, blue = difference[round(y), round(x)]
        expected = np.array(colour) * 0.5
        assert red - green == pytest.approx(expected[0] - expected[1], abs=1)
        assert blue - green == pytest.approx(expected[2] - expected[1], abs=1)


def test_without_strength_nothing_changes_and_the_perturbation_applies_it() -> None:
    assert np.array_equal(add_flare(DARK, 0), DARK)
    assert np.array_equal(Perturbation(flare=0.8).apply(DARK), add_flare(DARK, 0.8))
    assert str(Perturbation(flare=0.8)) == 'flare 0.8'
    with pytest.raises(ValueError, match='flare must be 0 to 1, not 2'):
        Perturbation(flare=2)
