# SPDX-License-Identifier: Apache-2.0
"""Rock abundance: the share of the ground that rocks cover by size, and the fit of its law."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rock_seg_ros.perception.geometry.abundance import (
    SIZES,
    Observation,
    combine,
    compute_abundance,
    cumulative_coverage,
    fit_abundance,
    observe,
)
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.location import locate
from rock_seg_ros.perception.geometry.view import View, level_ground
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, find_rocks

SIZE = (320, 240)
FOCAL = 260.0
PINHOLE = Intrinsics(
    np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]]), np.zeros(0), size=SIZE
)
DOWN = level_ground(2.0, np.pi / 2)
WHOLE = 4.0 * SIZE[0] * SIZE[1] / FOCAL**2  # m² of ground in view from a height of 2 m
SMALLEST = 0.05


def squares(side: int, *corners: tuple[int, int]) -> list[Rock]:
    ids = np.zeros(SIZE[::-1], np.uint8)
    for x, y in corners:
        ids[y : y + side, x : x + side] = 1
    settings = RockSettings(min_area=1, split_touching=False)
    return find_rocks(Segmentation(ids, np.full_like(ids, 250), (1,)), settings)


def population(abundance: float, area: float, seed: int = 0) -> np.ndarray:
    """Draws random diameters, m, whose coverage in each size class follows the law."""
    rng = np.random.default_rng(seed)
    edges = np.geomspace(SMALLEST, 6, 2000)
    rate = 1.79 + 0.152 / abundance
    covered = abundance * np.exp(-rate * edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    counts = rng.poisson(area * -np.diff(covered) / (np.pi / 4 * middle**2))
    return np.repeat(middle, counts)


@pytest.mark.parametrize('abundance', [0.05, 0.1, 0.3])
@pytest.mark.parametrize('seed', range(5))
def test_the_k_of_a_random_rock_population_is_estimated_within_10_percent(
    abundance: float, seed: int
) -> None:
    diameters = population(abundance, 4000, seed)
    found = compute_abundance(Observation(1, 1, 0, 4000, diameters, SMALLEST))
    assert found.k == pytest.approx(abundance, rel=0.1)
    at = [int(np.abs(SIZES - size).argmin()) for size in (0.1, 0.2)]
    coverage = [found.covered[each] for each in at]
    exact = cumulative_coverage(SIZES[at], abundance)
    assert coverage == pytest.approx(exact, rel=0.15)


def test_the_fit_recovers_k_exactly_and_without_the_smallest_rocks() -> None:
    covered = 0.2 * np.exp(-(1.79 + 0.152 / 0.2) * SIZES)
    assert cumulative_coverage(SIZES, 0.2) == pytest.approx(covered)
    assert fit_abundance(SIZES, covered) == pytest.approx(0.2, rel=0.005)
    covered[SIZES < 0.1] = 0.001
    assert fit_abundance(SIZES, covered, smallest=0.1) == pytest.approx(0.2, rel=0.005)


def test_k_is_unknown_without_rocks_or_metres() -> None:
    nothing = compute_abundance(Observation(1, 100, 0, 5.0, np.zeros(0), 0.1))
    assert np.isnan(nothing.k)
    assert nothing.abundance == 0
    assert nothing.numbers == (0,) * len(SIZES)
    unknown = compute_abundance(Observation(1, 100, 20, np.nan, np.zeros(0), np.nan))
    assert unknown.pixel_share == 0.2
    assert np.isnan([unknown.k, unknown.abundance, unknown.ground, *unknown.covered]).all()


def test_numbers_and_coverage_are_cumulative_from_each_diameter_up() -> None:
    found = compute_abundance(
        Observation(1, 1, 0, 10.0, np.array([SIZES[4], SIZES[8], 0.001]), 0.0)
    )
    assert found.numbers == (0.2,) * 5 + (0.1,) * 4 + (0.0,) * 10
    large = np.pi / 4 * SIZES[8] ** 2 / 10
    assert found.covered[8] == pytest.approx(large)
    assert found.covered[4] == pytest.approx(large + np.pi / 4 * SIZES[4] ** 2 / 10)
    assert found.abundance == pytest.approx(found.covered[0] + np.pi / 4 * 1e-7)
    assert found.rocks == 3


def test_the_ground_area_seen_from_above_is_the_footprint_of_the_image() -> None:
    rocks = squares(26, (50, 50), (200, 100))
    view = View(PINHOLE, ground=DOWN)
    observed = observe(rocks, locate(rocks, view), SIZE[::-1], view)
    assert observed.ground == pytest.approx(WHOLE, rel=1e-3)
    assert observed.diameters == pytest.approx([0.2, 0.2], rel=0.01)
    assert observed.smallest == pytest.approx(2 * np.sqrt(50 / np.pi) * 10 / FOCAL)
    assert observed.rock_pixels / observed.pixels == pytest.approx(2 * 26**2 / SIZE[0] / SIZE[1])
    depth = View(PINHOLE, np.full(SIZE[::-1], 2, np.float32))
    fitted = observe(rocks, locate(rocks, depth), SIZE[::-1], depth)
    assert fitted.ground == pytest.approx(WHOLE, rel=1e-3)


@pytest.mark.parametrize('has_depth', [False, True])
def test_what_the_ignore_mask_excludes_is_not_ground(has_depth: bool) -> None:
    valid = np.full(SIZE[::-1], 255, np.uint8)
    valid[:, :240] = 0
    deck = np.where(valid, np.float32(2), np.float32(0.5))
    view = View(PINHOLE, deck) if has_depth else View(PINHOLE, None, DOWN)
    seen = observe([], [], SIZE[::-1], view, valid_mask=valid)
    assert seen.ground == pytest.approx(WHOLE / 4, rel=0.01)


def test_the_ground_area_ends_at_the_reach_and_at_the_horizon() -> None:
    wide = Intrinsics(
        np.array([[100, 0, 159.5], [0, 100, 119.5], [0, 0, 1.0]]), np.zeros(0), size=SIZE
    )
    max_distance, height = 2.4, 2.0
    above = View(wide, ground=level_ground(height, np.pi / 2))
    observed = observe([], [], SIZE[::-1], above, max_distance)
    assert observed.ground == pytest.approx(np.pi * (max_distance**2 - height**2), rel=0.02)
    level = View(wide, ground=level_ground(height, 0.0))
    farther = [observe([], [], SIZE[::-1], level, far).ground for far in (5, 10, 20)]
    sector = 2 * np.arctan(1.6) / 2 * (20**2 - 10**2)
    assert farther[2] - farther[1] == pytest.approx(sector, rel=0.02)
    assert farther[0] > 0
    sky = View(wide, ground=level_ground(height, -np.pi / 2))
    assert observe([], [], SIZE[::-1], sky).ground == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(('tilt', 'area'), [(0.3, 162.3), (1.57, 309.6)])
def test_the_ground_outside_the_image_circle_of_a_fisheye_lens_does_not_count(
    tilt: float, area: float
) -> None:
    matrix = np.array([[286.0, 0, 419], [0, 286, 400], [0, 0, 1]])  # of an Intel T265
    lens = np.array([-0.0047, 0.0397, -0.0374, 0.0062])
    size = (848, 800)
    view = View(Intrinsics(matrix, lens, 'equidistant', size), ground=level_ground(1.2, tilt))
    observed = observe([], [], size[::-1], view)
    assert observed.ground == pytest.approx(area, rel=0.03)  # of points drawn at random


def test_rocks_beyond_the_reach_or_without_metres_are_not_counted() -> None:
    rocks = squares(26, (50, 50), (200, 100))
    depth = np.full(SIZE[::-1], 2, np.float32)
    depth[:, :120] = 30
    view = View(PINHOLE, depth, DOWN)
    assert (
        len(observe(rocks, locate(rocks, view), SIZE[::-1], view, max_distance=10).diameters) == 1
    )
    blind = observe(rocks, locate(rocks, View(PINHOLE)), SIZE[::-1], None)
    assert not len(blind.diameters)
    assert np.isnan(blind.ground)
    assert blind.rock_pixels == 2 * 26**2


def test_rocks_are_counted_although_the_ground_area_is_unknown() -> None:
    rocks = squares(26, (50, 50), (200, 100), (10, 10))
    shape = SIZE[::-1]
    on_rocks = np.full(shape, np.nan, np.float32)
    on_rocks[50:76, 50:76] = 2
    on_rocks[100:126, 200:226] = 30
    for view, count in ((None, 3), (View(PINHOLE), 3), (View(PINHOLE, on_rocks), 2)):
        locations = locate(rocks, view) if view else []
        observed = observe(rocks, locations, shape, view, max_distance=10)
        found = compute_abundance(combine([observed, observed]))
        assert found.rocks == 2 * count, 'one is known to be beyond reach'
        assert compute_abundance(observed).to_dict()['rocks'] == count
        assert np.isnan([found.ground, found.abundance]).all()
    ground = observe(
        rocks, locate(rocks, View(PINHOLE, ground=DOWN)), shape, View(PINHOLE, ground=DOWN)
    )
    assert compute_abundance(combine([ground, observed])).rocks == 3, (
        'only of images with known ground'
    )


def test_the_abundance_of_several_images_is_their_rock_area_over_their_ground_area() -> None:
    first = Observation(1, 100, 10, 5.0, np.array([0.2]), 0.1)
    second = Observation(1, 100, 30, 15.0, np.array([0.4, 0.1]), 0.05)
    blind = Observation(1, 100, 80, np.nan, np.zeros(0), np.nan)
    both = combine([first, second, blind])
    assert (both.images, both.pixels, both.rock_pixels) == (3, 300, 120)
    assert both.ground == 20.0
    assert both.smallest == 0.1
    covered = np.pi / 4 * (0.2**2 + 0.4**2 + 0.1**2)
    assert compute_abundance(both).abundance == pytest.approx(covered / 20)
    assert compute_abundance(combine([first, first])).k == compute_abundance(first).k
    assert np.isnan(compute_abundance(combine([blind])).ground)


def test_the_json_has_null_for_unknown_values() -> None:
    for observed in (
        Observation(1, 9, 3, np.nan, np.zeros(0), np.nan),
        Observation(1, 9, 3, 1, np.ones(2), 0.1),
    ):
        record = compute_abundance(observed).to_dict()
        again = json.loads(json.dumps(record, allow_nan=False))
        assert again == record
        assert len(again['sizes']) == len(again['covered']) == len(again['numbers'])
        assert (again['k'] is None) == np.isnan(observed.ground)
