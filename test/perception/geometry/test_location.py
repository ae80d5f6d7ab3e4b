# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import astuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.ground import fit_ground
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.location import Location, locate, outlines, surface_points
from rock_seg_ros.perception.geometry.view import Plane, View, level_ground
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks

SIZE = (320, 240)
FOCAL = 260.0
MATRIX = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]])
PINHOLE = Intrinsics(MATRIX, np.zeros(0), size=SIZE)
BARREL = Intrinsics(MATRIX, np.array([-0.3, 0.1, 0.001, -0.001, 0.0]), size=SIZE)
FISHEYE = Intrinsics(MATRIX, np.array([-0.02, 0.01, 0.0, 0.0]), 'equidistant', SIZE)
GROUND = level_ground(1.2, np.radians(35))
BALL = np.array([0.2, 0.1, 2.0])  # centre, m
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
    """Returns the depth of a plane by intersection with the ray of each pixel."""
    slope = all_rays(intrinsics) @ ground.normal
    with np.errstate(divide='ignore'):
        return np.where(slope < 0, -ground.offset / slope, np.nan).astype(np.float32)


def ball_on_ground(intrinsics: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the depth of a ball above the ground, and the mask of the ball."""
    rays = all_rays(intrinsics)
    along, square = rays @ BALL, (rays**2).sum(axis=-1)
    inner = along**2 - square * (BALL @ BALL - RADIUS**2)
    hit = inner > 0
    z = np.where(hit, (along - np.sqrt(np.maximum(inner, 0))) / square, np.nan)
    return np.where(hit, z, ground_depth(intrinsics)).astype(np.float32), hit


def is_unknown(location: Location) -> bool:
    return bool(np.isnan(np.hstack(astuple(location))).all())


@pytest.mark.parametrize('intrinsics', [PINHOLE, BARREL, FISHEYE])
def test_the_place_of_a_ball_is_that_of_its_visible_surface_for_every_lens_model(
    intrinsics: Intrinsics,
) -> None:
    depth, hit = ball_on_ground(intrinsics)
    (location,) = locate(rocks_of(hit), View(intrinsics, depth))
    points = (all_rays(intrinsics) * depth[..., None])[hit]
    assert location.position == pytest.approx(points.mean(axis=0), abs=0.004)
    assert location.diameter == pytest.approx(2 * RADIUS * location.position[2] / BALL[2], rel=0.02)
    assert location.extent[:2] == pytest.approx((location.diameter, location.diameter), rel=0.03)
    assert 0.6 * RADIUS < location.extent[2] < RADIUS  # the visible half
    assert location.distance == pytest.approx(np.linalg.norm(location.position))
    top = BALL @ GROUND.normal + GROUND.offset + RADIUS
    assert location.height == pytest.approx(top, abs=0.015)


def test_background_in_a_coarse_mask_and_mixed_edge_pixels_do_not_move_the_rock() -> None:
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
    (location,) = locate(rocks_of(mask), View(PINHOLE, depth.astype(np.float32)))
    assert location.position[2] == pytest.approx(2.0)
    assert location.diameter == pytest.approx(
        2 * np.sqrt((mask.sum() * (1 - share)) / np.pi) * 2 / FOCAL, rel=0.02
    )


def test_noise_holes_and_unknown_depth_change_the_place_by_less_than_one_percent() -> None:
    rng = np.random.default_rng(5)
    depth, hit = ball_on_ground(PINHOLE)
    (exact,) = locate(rocks_of(hit), View(PINHOLE, depth))
    depth *= rng.normal(1, 0.01, depth.shape)
    for value in (np.nan, 0.0, np.inf, -np.inf, -2.0):
        depth[rng.uniform(size=depth.shape) < 0.08] = value
    (location,) = locate(rocks_of(hit), View(PINHOLE, depth.astype(np.float32)))
    assert location.position == pytest.approx(exact.position, abs=0.01 * exact.distance)
    assert location.diameter == pytest.approx(exact.diameter, rel=0.01)
    assert location.height == pytest.approx(exact.height, abs=0.03)


def test_the_ground_around_a_rock_is_found_among_undetected_rocks() -> None:
    depth, hit = ball_on_ground(PINHOLE)
    (alone,) = locate(rocks_of(hit), View(PINHOLE, depth))
    for x, y in ((165, 115), (160, 140), (170, 158)):
        depth[disc(x, y, 9) & ~hit] -= np.float32(0.3)
    (among_rocks,) = locate(rocks_of(hit), View(PINHOLE, depth))
    assert among_rocks.height == pytest.approx(alone.height, abs=0.01)


def test_depth_noise_above_the_width_of_a_rock_does_not_make_it_smaller() -> None:
    mask = disc(160, 120, 8)
    noise = np.random.default_rng(2).normal(0, 0.6, SIZE[::-1])
    (location,) = locate(rocks_of(mask), View(PINHOLE, (9 + noise).astype(np.float32)))
    assert location.diameter == pytest.approx(2 * np.sqrt(mask.sum() / np.pi) * 9 / FOCAL, rel=0.03)
    assert location.diameter < 0.6


@pytest.mark.parametrize('value', [np.nan, 0.0, np.inf, -1.0])
def test_without_depth_and_ground_the_place_is_unknown(value: float) -> None:
    depth = np.full(SIZE[::-1], value, np.float32)
    rocks = rocks_of(disc(160, 120, 20) | disc(40, 40, 5))
    assert all(is_unknown(location) for location in locate(rocks, View(PINHOLE, depth)))
    assert surface_points(rocks, View(PINHOLE, depth), 2).shape == (0, 3)
    assert all(is_unknown(location) for location in locate(rocks, View(PINHOLE)))


def test_a_place_needs_enough_pixels_with_depth() -> None:
    mask = disc(160, 120, 20)
    rows = np.flatnonzero(mask.any(axis=1))
    for share, known in ((0.2, False), (0.45, True)):
        depth = np.full(SIZE[::-1], np.nan, np.float32)
        depth[: rows[0] + round(share * len(rows))] = 2.0
        (location,) = locate(rocks_of(mask), View(PINHOLE, depth))
        assert is_unknown(location) is not known


def test_a_rock_that_fills_the_image_is_sampled_in_all_columns() -> None:
    """Its left edge has no depth, as in stereo cameras."""
    depth = np.full((480, 640), 2.0, np.float32)
    depth[:, :40] = np.nan
    lens = Intrinsics(MATRIX, np.zeros(0), size=(640, 480))
    (location,) = locate(rocks_of(depth != 0), View(lens, depth))
    assert location.position[2] == 2.0


def test_without_visible_ground_only_the_height_is_unknown() -> None:
    everything = np.ones(SIZE[::-1], bool)
    (location,) = locate(rocks_of(everything), View(PINHOLE, np.full(SIZE[::-1], 2, np.float32)))
    assert location.position == pytest.approx((0, 0, 2), abs=1e-6)
    assert location.extent[0] == pytest.approx(2 * SIZE[0] / FOCAL)
    assert np.isnan(location.height)


def test_a_strip_of_ground_too_narrow_for_a_plane_gives_no_height() -> None:
    for rows, known in ((4, False), (60, True)):
        mask = np.ones(SIZE[::-1], bool)
        mask[-rows:] = False
        (location,) = locate(rocks_of(mask), View(PINHOLE, ground_depth(PINHOLE)))
        assert np.isfinite(location.height) == known


def test_a_rock_of_one_pixel_and_rocks_in_the_corners_have_places() -> None:
    mask = disc(0, 0, 6) | disc(319, 239, 6)
    mask[100, 200] = True
    rocks = rocks_of(mask)
    assert len(rocks) == 3
    locations = locate(rocks, View(PINHOLE, ground_depth(PINHOLE)))
    assert np.isfinite([location.position for location in locations]).all()
    smallest = min(locations, key=lambda location: location.diameter)
    z = smallest.position[2]
    assert smallest.diameter == pytest.approx(2 * z / FOCAL / np.sqrt(np.pi))


def test_on_known_ground_the_depth_of_a_rock_is_that_of_its_foot() -> None:
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
        (location,) = locate(rocks_of(mask), View(intrinsics, ground=GROUND))
        assert location.position[2] == pytest.approx(3.0, rel=0.01)
        assert location.position[0] == pytest.approx(0.3, rel=0.03)
        assert location.extent[0] == pytest.approx(9 * 3 / FOCAL, rel=0.15)
        assert np.isnan(location.extent[2])
        assert 0.06 < location.height < 0.1
        assert location.diameter > 0.09


def test_on_known_ground_rocks_at_the_horizon_or_the_border_have_no_place() -> None:
    ground = level_ground(1.2, np.radians(10))
    horizon = 119.5 - FOCAL * np.tan(np.radians(10))
    view = View(PINHOLE, ground=ground)
    at, above = disc(100, round(horizon), 4), disc(200, round(horizon) - 30, 6)
    below, cut = disc(200, round(horizon) + 40, 6), disc(60, 237, 8)
    for mask, known in ((at, False), (above, False), (cut, False), (below, True)):
        (location,) = locate(rocks_of(mask), view)
        assert is_unknown(location) is not known


def test_depth_takes_precedence_and_the_ground_is_used_where_depth_is_missing() -> None:
    rocks = rocks_of(disc(100, 150, 10) | disc(220, 150, 9))
    depth = np.full(SIZE[::-1], 5, np.float32)
    depth[:, :160] = np.nan
    dark, seen = locate(rocks, View(PINHOLE, depth, GROUND))
    (foot,) = locate(rocks[:1], View(PINHOLE, ground=GROUND))
    assert dark.position == foot.position
    assert dark.diameter == foot.diameter
    assert dark.position[2] < 4 < seen.position[2]


def test_fit_ground_fits_one_plane_to_all_pixels_that_are_not_rock() -> None:
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


def test_surface_points_exclude_far_background_within_the_mask() -> None:
    mask = disc(160, 120, 20)
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    depth[:, 165:] = 9.0
    points = surface_points(rocks_of(mask), View(PINHOLE, depth), 1)
    assert len(points) == (mask[:, :165]).sum()
    assert (points[:, 2] == 2.0).all()


def test_surface_points_exclude_pixels_without_depth() -> None:
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    depth[:, 220:] = 0
    points = surface_points(rocks_of(depth > -1), View(PINHOLE, depth), 4)
    assert len(points) == 60 * 55
    assert (points[:, 2] == 2.0).all()


def test_outlines_are_at_the_depth_of_the_rock_or_at_one_metre() -> None:
    rocks = rocks_of(disc(100, 100, 10) | disc(200, 100, 9))
    location = Location((0.0, 0.0, 3.0), (0.1, 0.1, 0.1), 0.1, 0.1, 3.0)
    near, flat = outlines(rocks, [location, Location.unknown()], PINHOLE)
    assert near.dtype == flat.dtype == np.float32
    assert (near[:, 2] == 3).all()
    assert (flat[:, 2] == 1).all()
    for rock, points in zip(rocks, (near, flat), strict=True):
        pixels = points @ MATRIX.T
        assert pixels[:, :2] / pixels[:, 2:] == pytest.approx(rock.polygon, abs=1e-3)


def test_without_rocks_there_are_no_places_points_or_outlines() -> None:
    view = View(PINHOLE, ground_depth(PINHOLE), GROUND)
    assert locate([], view) == outlines([], [], PINHOLE) == []
    assert surface_points([], view, 4).shape == (0, 3)


def test_depth_or_rocks_of_another_image_size_are_rejected() -> None:
    with pytest.raises(ValueError, match='depth is 100×50'):
        View(PINHOLE, np.zeros((50, 100), np.float32))
    small = Intrinsics(MATRIX, np.zeros(0), size=(100, 100))
    for view in (View(small, ground=GROUND), View(small, np.ones((100, 100), np.float32))):
        with pytest.raises(ValueError, match='100×100'):
            locate(rocks_of(disc(160, 120, 20)), view)


def test_many_rocks_are_located_like_each_rock_alone() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros(SIZE[::-1], bool)
    for x, y in rng.integers((5, 60), (315, 235), (60, 2)):
        mask |= disc(int(x), int(y), int(rng.integers(1, 6)))
    rocks = rocks_of(mask)
    depth = ground_depth(PINHOLE) - np.float32(0.02) * mask
    together = locate(rocks, View(PINHOLE, depth, GROUND))
    assert len(rocks) > 20
    assert draw_instances(rocks, mask.shape).max() == len(rocks)
    for rock, location in zip(rocks, together, strict=True):
        (alone,) = locate([rock], View(PINHOLE, depth, GROUND))
        assert location.position == pytest.approx(alone.position)
        assert location.diameter == pytest.approx(alone.diameter)


def test_one_known_depth_at_the_border_of_a_wide_fisheye_lens_is_no_error() -> None:
    matrix = np.array([[85, 0, 159.5], [0, 85, 119.5], [0, 0, 1]])
    wide = Intrinsics(matrix, np.array([0.0, 0.0, 0.0, 1e-6]), 'equidistant', SIZE)
    for x in range(4, 16):
        depth = np.full(SIZE[::-1], np.nan, np.float32)
        depth[57, x] = 1.0
        (location,) = locate(rocks_of(disc(24, 60, 8)), View(wide, depth))
        assert is_unknown(location)
