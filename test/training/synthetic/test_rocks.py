# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from training.synthetic.rocks import KINDS, Shape, cover, draw_diameters, spread_out


@pytest.mark.parametrize('abundance', [0.05, 0.2, 0.5])
def test_diameters_follow_the_distribution_of_golombek_and_rapp(abundance: float) -> None:
    area = 40_000.0
    rng = np.random.default_rng(0)
    diameters = draw_diameters(rng, abundance, area, 0.1, 2.0)
    assert (np.diff(diameters) <= 0).all()
    for diameter in (0.1, 0.2, 0.4, 0.8):
        larger = diameters[diameters >= diameter]
        covered = np.pi / 4 * np.sum(larger**2) / area
        expected = cover(diameter, abundance) - cover(2.0, abundance)
        # Four standard deviations of a Poisson distribution.
        assert covered == pytest.approx(float(expected), rel=4 / np.sqrt(len(larger)))


def test_the_distribution_has_the_published_exponent() -> None:
    assert cover(1.0, 0.1) == pytest.approx(0.1 * np.exp(-(1.79 + 1.52)))


def test_an_empty_range_of_diameters_has_no_rocks() -> None:
    assert len(draw_diameters(np.random.default_rng(0), 0.2, 100.0, 1.0, 0.5)) == 0


def test_placed_discs_do_not_touch() -> None:
    rng = np.random.default_rng(0)
    radii = np.sort(rng.uniform(0.05, 0.5, 200))[::-1]
    points = rng.uniform(0, 8, (200, 2))
    placed = spread_out(rng, points, radii)
    assert placed.sum() > 100
    points, radii = points[placed], radii[placed]
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) - radii[:, None] - radii[None]
    assert gaps[~np.eye(len(points), dtype=bool)].min() >= 0


@pytest.mark.parametrize('kind', KINDS)
def test_a_shape_has_a_diameter_of_1_m_at_each_detail(kind: str) -> None:
    shape = Shape(kind, 7)
    for detail in (2, 4):
        vertices, faces = shape.body(detail)
        assert faces.max() == len(vertices) - 1
        assert 2 * np.hypot(*vertices[:, :2].T).max() == pytest.approx(1.0)
    coarse, fine = shape.body(2)[0], shape.body(4)[0]
    assert np.ptp(coarse, axis=0) == pytest.approx(np.ptp(fine, axis=0), rel=0.3)


def test_shapes_depend_on_the_seed() -> None:
    assert not np.allclose(Shape('angular', 1).body(2)[0], Shape('angular', 2).body(2)[0])
