# SPDX-License-Identifier: Apache-2.0
"""Pixels become metres: from depth, from known ground, and never from a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.projection import (
    Intrinsics,
    Place,
    Plane,
    Sight,
    View,
    fit_ground,
    level_ground,
    locate,
    motion_between,
    outlines,
    standard_distortion,
    surface_points,
)
from rock_seg_ros.perception.inference.segmenter import Segmentation
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks

SIZE = (320, 240)
FOCAL = 260.0
MATRIX = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]])
PINHOLE = Intrinsics(MATRIX, np.zeros(0), size=SIZE)
BARREL = Intrinsics(MATRIX, np.array([-0.3, 0.1, 0.001, -0.001, 0.0]), size=SIZE)
FISHEYE = Intrinsics(MATRIX, np.array([-0.02, 0.01, 0.0, 0.0]), 'equidistant', SIZE)
GROUND = level_ground(1.2, np.radians(35))
BALL = np.array([0.2, 0.1, 2.0])  # middle, m
RADIUS = 0.15
SETTINGS = RockSettings(min_area=1, split_touching=False)


def rocks_of(mask: NDArray[np.bool_]) -> list[Rock]:
    ids = mask.astype(np.uint8)
    return find_rocks(Segmentation(ids, np.full_like(ids, 250), (1,)), SETTINGS)


def disc(x: int, y: int, radius: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE[::-1], np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask > 0


def all_rays(intrinsics: Intrinsics) -> NDArray[np.float64]:
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2)
    return intrinsics.rays(pixels).reshape(*SIZE[::-1], 3)


def ground_depth(intrinsics: Intrinsics, ground: Plane = GROUND) -> NDArray[np.float32]:
    """Depth of a plane, by intersecting each ray with it."""
    slope = all_rays(intrinsics) @ ground.normal
    with np.errstate(divide='ignore'):
        return np.where(slope < 0, -ground.offset / slope, np.nan).astype(np.float32)


def ball_on_ground(intrinsics: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Depth of a ball above the ground, and where it is seen, by intersecting each ray with it."""
    rays = all_rays(intrinsics)
    along, square = rays @ BALL, (rays**2).sum(axis=-1)
    inner = along**2 - square * (BALL @ BALL - RADIUS**2)
    hit = inner > 0
    z = np.where(hit, (along - np.sqrt(np.maximum(inner, 0))) / square, np.nan)
    return np.where(hit, z, ground_depth(intrinsics)).astype(np.float32), hit


def is_unknown(place: Place) -> bool:
    return bool(np.isnan(np.hstack(astuple(place))).all())


@pytest.mark.parametrize('intrinsics', [PINHOLE, BARREL, FISHEYE])
def test_a_balls_place_is_that_of_its_visible_surface_whatever_the_lens(
    intrinsics: Intrinsics,
) -> None:
    depth, hit = ball_on_ground(intrinsics)
    (place,) = locate(rocks_of(hit), View(intrinsics, depth))
    points = (all_rays(intrinsics) * depth[..., None])[hit]
    assert place.position == pytest.approx(points.mean(axis=0), abs=0.004)
    assert place.diameter == pytest.approx(2 * RADIUS * place.position[2] / BALL[2], rel=0.02)
    assert place.extent[:2] == pytest.approx((place.diameter, place.diameter), rel=0.03)
    assert 0.6 * RADIUS < place.extent[2] < RADIUS  # the half that is seen
    assert place.distance == pytest.approx(np.linalg.norm(place.position))
    top = BALL @ GROUND.normal + GROUND.offset + RADIUS
    assert place.height == pytest.approx(top, abs=0.015)


@pytest.mark.parametrize('intrinsics', [PINHOLE, BARREL, FISHEYE])
def test_rays_lead_back_to_their_pixels_by_opencvs_own_projection(intrinsics: Intrinsics) -> None:
    pixels = np.array([(0, 0), (159.5, 119.5), (319, 239), (40.25, 200.5)])
    rays = intrinsics.rays(pixels)[:, None]
    still = np.zeros(3)
    project: Callable = cv2.fisheye.projectPoints if intrinsics is FISHEYE else cv2.projectPoints
    distortion = intrinsics.distortion if intrinsics.distortion.size else np.zeros(4)
    back = project(rays, still, still, MATRIX, distortion)[0]
    assert back.reshape(-1, 2) == pytest.approx(pixels, abs=0.02)


def test_background_in_a_sloppy_mask_and_mixed_pixels_at_its_edge_do_not_move_the_rock() -> None:
    depth, hit = ball_on_ground(PINHOLE)
    (exact,) = locate(rocks_of(hit), View(PINHOLE, depth))
    mixed = cv2.blur(depth, (5, 5))
    wide = cv2.dilate(hit.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (wide & ~hit).sum() > 0.3 * hit.sum()
    (sloppy,) = locate(rocks_of(wide), View(PINHOLE, mixed))
    assert sloppy.position == pytest.approx(exact.position, abs=0.02 * exact.distance)
    assert sloppy.height == pytest.approx(exact.height, abs=0.03)


def test_far_background_behind_two_fifths_of_a_mask_does_not_move_the_rock() -> None:
    mask = disc(160, 120, 20)
    depth = np.where(np.arange(SIZE[1])[:, None] < 117, 9.0, 2.0) * np.ones(SIZE[0])
    share = (mask & (depth > 5)).sum() / mask.sum()
    assert 0.38 < share < 0.45
    (place,) = locate(rocks_of(mask), View(PINHOLE, depth.astype(np.float32)))
    assert place.position[2] == pytest.approx(2.0)
    assert place.diameter == pytest.approx(
        2 * np.sqrt((mask.sum() * (1 - share)) / np.pi) * 2 / FOCAL, rel=0.02
    )


def test_noise_holes_and_unknown_values_leave_the_place_within_a_hundredth() -> None:
    chance = np.random.default_rng(5)
    depth, hit = ball_on_ground(PINHOLE)
    (exact,) = locate(rocks_of(hit), View(PINHOLE, depth))
    depth *= chance.normal(1, 0.01, depth.shape)
    for value in (np.nan, 0.0, np.inf, -np.inf, -2.0):
        depth[chance.uniform(size=depth.shape) < 0.08] = value
    (place,) = locate(rocks_of(hit), View(PINHOLE, depth.astype(np.float32)))
    assert place.position == pytest.approx(exact.position, abs=0.01 * exact.distance)
    assert place.diameter == pytest.approx(exact.diameter, rel=0.01)
    assert place.height == pytest.approx(exact.height, abs=0.03)


def test_the_ground_is_found_among_other_rocks_that_nobody_told_of() -> None:
    depth, hit = ball_on_ground(PINHOLE)
    (alone,) = locate(rocks_of(hit), View(PINHOLE, depth))
    for x, y in ((165, 115), (160, 140), (170, 158)):
        depth[disc(x, y, 9) & ~hit] -= np.float32(0.3)
    (beside,) = locate(rocks_of(hit), View(PINHOLE, depth))
    assert beside.height == pytest.approx(alone.height, abs=0.01)


def test_depth_that_is_noisier_than_a_rock_is_wide_does_not_make_it_smaller() -> None:
    mask = disc(160, 120, 8)
    noise = np.random.default_rng(2).normal(0, 0.6, SIZE[::-1])
    (place,) = locate(rocks_of(mask), View(PINHOLE, (9 + noise).astype(np.float32)))
    assert place.diameter == pytest.approx(2 * np.sqrt(mask.sum() / np.pi) * 9 / FOCAL, rel=0.03)
    assert place.diameter < 0.6


@pytest.mark.parametrize('value', [np.nan, 0.0, np.inf, -1.0])
def test_without_any_depth_nothing_is_known_of_a_rock(value: float) -> None:
    depth = np.full(SIZE[::-1], value, np.float32)
    rocks = rocks_of(disc(160, 120, 20) | disc(40, 40, 5))
    assert all(is_unknown(place) for place in locate(rocks, View(PINHOLE, depth)))
    assert surface_points(rocks, View(PINHOLE, depth), 2).shape == (0, 3)
    assert all(is_unknown(place) for place in locate(rocks, View(PINHOLE)))


def test_too_few_pixels_with_depth_are_no_place_and_enough_are_one() -> None:
    mask = disc(160, 120, 20)
    rows = np.flatnonzero(mask.any(axis=1))
    for share, known in ((0.2, False), (0.45, True)):
        depth = np.full(SIZE[::-1], np.nan, np.float32)
        depth[: rows[0] + round(share * len(rows))] = 2.0
        (place,) = locate(rocks_of(mask), View(PINHOLE, depth))
        assert is_unknown(place) is not known


def test_an_image_that_is_all_rock_is_looked_at_in_all_its_columns() -> None:
    """Its left edge has no depth, as stereo leaves it."""
    depth = np.full((480, 640), 2.0, np.float32)
    depth[:, :40] = np.nan
    lens = Intrinsics(MATRIX, np.zeros(0), size=(640, 480))
    (place,) = locate(rocks_of(depth != 0), View(lens, depth))
    assert place.position[2] == 2.0


def test_no_ground_in_sight_leaves_only_the_height_open() -> None:
    everything = np.ones(SIZE[::-1], bool)
    (place,) = locate(rocks_of(everything), View(PINHOLE, np.full(SIZE[::-1], 2, np.float32)))
    assert place.position == pytest.approx((0, 0, 2), abs=1e-6)
    assert place.extent[0] == pytest.approx(2 * SIZE[0] / FOCAL)
    assert np.isnan(place.height)


def test_a_strip_of_ground_too_narrow_for_a_plane_tells_no_height() -> None:
    for rows, known in ((4, False), (60, True)):
        mask = np.ones(SIZE[::-1], bool)
        mask[-rows:] = False
        (place,) = locate(rocks_of(mask), View(PINHOLE, ground_depth(PINHOLE)))
        assert np.isfinite(place.height) == known


def test_a_rock_of_one_pixel_and_rocks_in_the_corners_have_places() -> None:
    mask = disc(0, 0, 6) | disc(319, 239, 6)
    mask[100, 200] = True
    rocks = rocks_of(mask)
    assert len(rocks) == 3
    places = locate(rocks, View(PINHOLE, ground_depth(PINHOLE)))
    assert np.isfinite([place.position for place in places]).all()
    smallest = min(places, key=lambda place: place.diameter)
    z = smallest.position[2]
    assert smallest.diameter == pytest.approx(2 * z / FOCAL / np.sqrt(np.pi))


def test_on_known_ground_a_rock_is_as_far_as_its_foot() -> None:
    for intrinsics in (PINHOLE, BARREL):
        foot = np.array([0.3, 0.0, 3.0])
        foot[1] = -(GROUND.offset + foot @ GROUND.normal) / GROUND.normal[1]
        up = foot + 0.1 * np.array([0.0, -1.0, 0.0])
        ends = cv2.projectPoints(
            np.array([foot, up]), np.zeros(3), np.zeros(3), MATRIX,
            intrinsics.distortion if intrinsics.distortion.size else np.zeros(4),
        )[0].reshape(-1, 2)  # fmt: skip
        (x, bottom), top = ends[0], ends[1, 1]
        mask = np.zeros(SIZE[::-1], bool)
        mask[round(top) : round(bottom), round(x) - 4 : round(x) + 5] = True
        (place,) = locate(rocks_of(mask), View(intrinsics, ground=GROUND))
        assert place.position[2] == pytest.approx(3.0, rel=0.01)
        assert place.position[0] == pytest.approx(0.3, rel=0.03)
        assert place.extent[0] == pytest.approx(9 * 3 / FOCAL, rel=0.15)
        assert np.isnan(place.extent[2])
        assert 0.06 < place.height < 0.1
        assert place.diameter > 0.09


def test_on_known_ground_nothing_is_told_of_rocks_at_the_horizon_or_cut_by_the_border() -> None:
    ground = level_ground(1.2, np.radians(10))
    horizon = 119.5 - FOCAL * np.tan(np.radians(10))
    view = View(PINHOLE, ground=ground)
    at, above = disc(100, round(horizon), 4), disc(200, round(horizon) - 30, 6)
    below, cut = disc(200, round(horizon) + 40, 6), disc(60, 237, 8)
    for mask, known in ((at, False), (above, False), (cut, False), (below, True)):
        (place,) = locate(rocks_of(mask), view)
        assert is_unknown(place) is not known


def test_depth_is_trusted_before_the_ground_which_helps_where_depth_is_missing() -> None:
    rocks = rocks_of(disc(100, 150, 10) | disc(220, 150, 9))
    depth = np.full(SIZE[::-1], 5, np.float32)
    depth[:, :160] = np.nan
    dark, seen = locate(rocks, View(PINHOLE, depth, GROUND))
    (foot,) = locate(rocks[:1], View(PINHOLE, ground=GROUND))
    assert dark.position == foot.position
    assert dark.diameter == foot.diameter
    assert dark.position[2] < 4 < seen.position[2]


def test_level_ground_has_its_horizon_and_height_where_tilt_and_roll_say() -> None:
    ground = level_ground(2.0, 0.0, np.radians(5))
    left, right = np.array([(-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)])
    assert ground.normal @ ground.normal == pytest.approx(1)
    assert ground.closeness(np.array([left, right])) == pytest.approx(
        np.array([-1, 1]) * np.sin(np.radians(5)) / 2
    )
    below = level_ground(2.0, np.pi / 2)
    assert below.closeness(np.array([[0, 0, 1.0]])) == pytest.approx([0.5])
    assert below.heights(np.array([[0, 0, 1.5]])) == pytest.approx([0.5])


@pytest.mark.parametrize('height', [0.0, -1.0, np.nan, np.inf])
def test_a_camera_that_is_not_above_the_ground_is_refused(height: float) -> None:
    with pytest.raises(ValueError, match='ground'):
        level_ground(height, 0.3)


def test_one_plane_is_fitted_to_all_that_is_no_rock() -> None:
    depth, hit = ball_on_ground(PINHOLE)
    plane = fit_ground(rocks_of(hit), View(PINHOLE, depth))
    assert plane is not None
    assert plane.offset == pytest.approx(GROUND.offset, rel=1e-3)
    assert plane.normal == pytest.approx(GROUND.normal, abs=1e-3)
    depth[:220] = np.nan
    far = fit_ground(rocks_of(hit), View(PINHOLE, depth))
    assert far is not None
    assert far.offset == pytest.approx(GROUND.offset, rel=1e-2)
    assert fit_ground([], View(PINHOLE, np.full(SIZE[::-1], np.nan, np.float32))) is None
    assert fit_ground([], View(PINHOLE)) is None


@pytest.mark.parametrize('step', [1, 3])
def test_surface_points_lie_on_the_rock_and_on_one_grid_of_pixels(step: int) -> None:
    depth, hit = ball_on_ground(PINHOLE)
    wide = cv2.dilate(hit.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    depth[50] = np.nan
    points = surface_points(rocks_of(wide), View(PINHOLE, depth), step)
    assert points.dtype == np.float32
    v, u = np.nonzero(hit)
    assert len(points) >= ((u % step == 0) & (v % step == 0) & np.isfinite(depth[v, u])).sum()
    back = points @ MATRIX.T
    pixels = back[:, :2] / back[:, 2:]
    assert np.rint(pixels) == pytest.approx(pixels, abs=1e-3)
    assert (np.rint(pixels) % step == 0).all()
    away = np.linalg.norm(points - BALL, axis=1)
    assert (np.abs(away - RADIUS) < 0.01).mean() > 0.8


def test_surface_points_leave_out_what_lies_far_behind_within_the_mask() -> None:
    mask = disc(160, 120, 20)
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    depth[:, 165:] = 9.0
    points = surface_points(rocks_of(mask), View(PINHOLE, depth), 1)
    assert len(points) == (mask[:, :165]).sum()
    assert (points[:, 2] == 2.0).all()


def test_pixels_without_depth_of_a_rock_as_wide_as_it_is_far_are_no_surface_points() -> None:
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    depth[:, 220:] = 0
    points = surface_points(rocks_of(depth > -1), View(PINHOLE, depth), 4)
    assert len(points) == 60 * 55
    assert (points[:, 2] == 2.0).all()


def test_outlines_are_at_the_rocks_depth_or_on_the_plane_before_the_camera() -> None:
    rocks = rocks_of(disc(100, 100, 10) | disc(200, 100, 9))
    place = Place((0.0, 0.0, 3.0), (0.1, 0.1, 0.1), 0.1, 0.1, 3.0)
    near, flat = outlines(rocks, [place, Place.unknown()], PINHOLE)
    assert near.dtype == flat.dtype == np.float32
    assert (near[:, 2] == 3).all()
    assert (flat[:, 2] == 1).all()
    for rock, points in zip(rocks, (near, flat), strict=True):
        pixels = points @ MATRIX.T
        assert pixels[:, :2] / pixels[:, 2:] == pytest.approx(rock.polygon, abs=1e-3)


def test_no_rocks_have_no_places_points_or_outlines() -> None:
    view = View(PINHOLE, ground_depth(PINHOLE), GROUND)
    assert locate([], view) == outlines([], [], PINHOLE) == []
    assert surface_points([], view, 4).shape == (0, 3)


@pytest.mark.parametrize(
    ('matrix', 'distortion', 'model', 'size', 'reason'),
    [
        (np.zeros((3, 3)), [], 'plumb_bob', SIZE, 'focal'),
        (np.full((3, 3), np.nan), [], 'plumb_bob', SIZE, 'finite'),
        (np.eye(4), [], 'plumb_bob', SIZE, '3×3'),
        (MATRIX, [0.1, np.nan, 0, 0], 'plumb_bob', SIZE, 'finite'),
        (MATRIX, [0.1, 0, 0], 'plumb_bob', SIZE, '3 distortion'),
        (MATRIX, [0.1, 0, 0, 0], 'wide', SIZE, "'wide'"),
        (MATRIX, [0.1, 0, 0, 0], '', SIZE, "''"),
        (MATRIX, [0.1] * 5, 'equidistant', SIZE, '5 distortion'),
        (MATRIX, [], 'plumb_bob', (0, 0), '0×0'),
    ],
)
def test_what_is_no_camera_is_refused_in_one_line(
    matrix: NDArray, distortion: list[float], model: str, size: tuple[int, int], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        Intrinsics(matrix, np.array(distortion), model, size)
    assert '\n' not in str(refused.value)


def test_a_camera_without_a_distortion_model_may_have_no_distortion() -> None:
    for distortion in (np.zeros(0), np.zeros(5)):
        rays = Intrinsics(MATRIX, distortion, '', SIZE).rays(np.array([[159.5, 119.5]]))
        assert rays == pytest.approx(np.array([[0, 0, 1]]))


@pytest.mark.parametrize('model', ['none', '', 'pinhole', 'plumb_bob', 'equidistant'])
@pytest.mark.parametrize('count', [0, 3, 5, 6, 14])
def test_no_distortion_needs_no_model_and_no_count(model: str, count: int) -> None:
    name, coefficients = standard_distortion(model, np.zeros(count))
    lens = Intrinsics(MATRIX, coefficients, name, SIZE)
    assert lens.rays(np.array([[159.5, 119.5]])) == pytest.approx(np.array([[0, 0, 1]]))
    assert lens.pixels(np.array([[0, 0, 1.0]])) == pytest.approx(np.array([[159.5, 119.5]]))


@pytest.mark.parametrize(
    ('model', 'coefficients', 'standard', 'count'),
    [
        ('radtan', [0.1, -0.05, 1e-3, 1e-3], 'plumb_bob', 4),
        ('Brown-Conrady', [0.1, -0.05, 1e-3, 1e-3, 0.01], 'plumb_bob', 5),
        ('fisheye', [0.01, 0, 0, 0], 'equidistant', 4),
        ('kannala_brandt4', [0.01, 0.02, 0, 0], 'equidistant', 4),
        ('KANNALA_BRANDT', [0.01, 0.02, 0, 0], 'equidistant', 4),
        ('equi', [0.01, 0, 0, 0], 'equidistant', 4),
        ('equidistant', [0.01, 0.02, 0.03, 0.04, 0], 'equidistant', 4),
        ('plumb_bob', [0.1, 0, 0, 0, 0, 0, 0], 'plumb_bob', 4),
        ('plumb_bob', [0.1, 0, 0, 0, 0.2, 0], 'plumb_bob', 5),
        ('rational_polynomial', [0.1] * 8 + [0] * 2, 'rational_polynomial', 8),
    ],
)
def test_other_names_are_the_same_models_and_zeros_beyond_a_model_count_for_nothing(
    model: str, coefficients: list[float], standard: str, count: int
) -> None:
    name, kept = standard_distortion(model, np.array(coefficients))
    assert (name, kept.tolist()) == (standard, coefficients[:count])
    Intrinsics(MATRIX, kept, name, SIZE)


@pytest.mark.parametrize(
    ('model', 'coefficients', 'reason'),
    [
        ('equidistant', [0.1, 0, 0, 0, 0.1], '5 distortion'),
        ('plumb_bob', [0.1, 0, 0], '3 distortion'),
        ('none', [0.1, 0, 0, 0], "'none'"),
    ],
)
def test_coefficients_that_count_and_have_no_model_are_still_refused(
    model: str, coefficients: list[float], reason: str
) -> None:
    name, kept = standard_distortion(model, np.array(coefficients))
    with pytest.raises(ValueError, match=reason):
        Intrinsics(MATRIX, kept, name, SIZE)


def test_depth_or_rocks_of_another_image_size_are_refused() -> None:
    with pytest.raises(ValueError, match='depth is 100×50'):
        View(PINHOLE, np.zeros((50, 100), np.float32))
    small = Intrinsics(MATRIX, np.zeros(0), size=(100, 100))
    for view in (View(small, ground=GROUND), View(small, np.ones((100, 100), np.float32))):
        with pytest.raises(ValueError, match='100×100'):
            locate(rocks_of(disc(160, 120, 20)), view)


def test_many_rocks_are_located_as_each_of_them_alone() -> None:
    chance = np.random.default_rng(1)
    mask = np.zeros(SIZE[::-1], bool)
    for x, y in chance.integers((5, 60), (315, 235), (60, 2)):
        mask |= disc(int(x), int(y), int(chance.integers(1, 6)))
    rocks = rocks_of(mask)
    depth = ground_depth(PINHOLE) - np.float32(0.02) * mask
    together = locate(rocks, View(PINHOLE, depth, GROUND))
    assert len(rocks) > 20
    assert draw_instances(rocks, mask.shape).max() == len(rocks)
    for rock, place in zip(rocks, together, strict=True):
        (alone,) = locate([rock], View(PINHOLE, depth, GROUND))
        assert place.position == pytest.approx(alone.position)
        assert place.diameter == pytest.approx(alone.diameter)


def test_the_motion_of_what_is_near_is_the_larger_one() -> None:
    depth = np.full((48, 64), 4.0, np.float32)
    depth[:, 32:] = 2.0
    lens = Intrinsics(
        np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]), np.zeros(0), size=(64, 48)
    )
    right = np.eye(4)
    right[0, 3] = 0.4  # the camera moves, so what it sees goes left
    motion = motion_between(Sight(View(lens, depth), np.eye(4)), Sight(View(lens, depth), right))
    assert motion is not None
    assert motion.shape == (6, 8, 2)
    assert np.allclose(motion[:, :4, 0], -0.4 * 50 / 4)
    assert np.allclose(motion[:, 4:, 0], -0.4 * 50 / 2)
    assert np.allclose(motion[..., 1], 0, atol=1e-5)


def test_a_turned_camera_moves_the_image_whatever_the_depth_and_without_any_there_is_none() -> None:
    lens = Intrinsics(
        np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]), np.zeros(0), size=(64, 48)
    )
    depth = np.full((48, 64), np.nan, np.float32)
    turned = np.eye(4)
    turned[:3, :3] = cv2.Rodrigues(np.array([0, 0.1, 0]))[0]  # to the right
    dark = Sight(View(lens, depth), np.eye(4))
    assert motion_between(dark, Sight(View(lens, depth), turned)) is None
    seen = depth.copy()
    seen[20] = 3.0
    motion = motion_between(Sight(View(lens, seen), np.eye(4)), Sight(View(lens, depth), turned))
    assert motion is not None
    assert motion[3, 4, 0] == pytest.approx(-50 * np.tan(0.1), rel=0.05)


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant', ''])
def test_pixels_are_where_rays_come_from(model: str) -> None:
    distortion = {'plumb_bob': [0.1, -0.05, 1e-3, 1e-3, 0], 'equidistant': [0.01, 0, 0, 0]}
    lens = Intrinsics(
        np.array([[400.0, 0, 319.5], [0, 410, 239.5], [0, 0, 1]]),
        np.array(distortion.get(model, []), np.float64),
        model,
        (640, 480),
    )
    points = np.array([[10.0, 20], [320, 240], [600, 400]])
    assert lens.pixels(3 * lens.rays(points)) == pytest.approx(points, abs=0.01)
