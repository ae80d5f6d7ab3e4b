# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from training.synthetic.camera import Camera
from training.synthetic.materials import Soil
from training.synthetic.render import BACKGROUND, ROCK, SHADOW, Light, Rendering, World
from training.synthetic.rocks import Rock, Shape
from training.synthetic.sensor import Sensor
from training.synthetic.terrain import Terrain

SIZE = (160, 120)
LIGHT = Light(
    sun=(0.0, -0.6, 0.8),
    sun_colour=(1.0, 1.0, 1.0),
    sky_colour=(0.3, 0.3, 0.3),
    horizon=(0.5, 0.5, 0.5),
    zenith=(0.3, 0.3, 0.3),
    haze=(0.5, 0.5, 0.5),
    visibility=1e6,
)
SOIL = Soil((0.3, 0.2, 0.1), (0.3, 0.2, 0.1), 0.0, ((0.3, 0.2, 0.1),), 0.1, 0.02, 0.5, 0.002)
BALL_CENTRE, BALL_DIAMETER = np.array([5.0, 0.0, 1.0]), 1.0


class Ball(Shape):
    """A sphere, whose picture is known."""

    def body(self, detail: int) -> tuple[np.ndarray, np.ndarray]:
        from training.synthetic.rocks import _icosphere

        vertices, faces = _icosphere(5)
        return vertices / 2, faces


def ball(centre: np.ndarray, diameter: float) -> Rock:
    place = tuple(float(part) for part in centre)
    return Rock(Ball('rounded', 0), diameter, place, 0.0, (0.2, 0.2, 0.2), (0.0, 0.0, 1.0), 0.0)


def taken(rocks: list[Rock], camera: Camera, **settings: object) -> Rendering:
    plane = Terrain(roughness=0.0, finest=1.0).mesh((-1.0, 0.0), (-1.5, 1.5), 0.1, 3000.0)
    world = World([(plane, SOIL)], rocks, [5] * len(rocks))
    chance = np.random.default_rng(0)
    return world.render(camera, LIGHT, Sensor(), chance, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def camera() -> Camera:
    return Camera.aimed((0.0, 0.0, 1.5), 0.0, np.radians(10), np.radians(60), SIZE)


@pytest.fixture(scope='module')
def with_ball(camera: Camera) -> Rendering:
    return taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera)


def test_the_depth_of_a_plane_is_what_geometry_says(camera: Camera) -> None:
    depth = taken([], camera).depth
    down = -camera.directions()[..., 2].astype(float)
    expected = np.where(down > 0, camera.position[2] / np.where(down > 0, down, 1), np.nan)
    near = down > 0.05
    np.testing.assert_allclose(depth[near], expected[near], rtol=1e-4)


def test_the_sky_has_no_depth_and_is_background(camera: Camera) -> None:
    rendering = taken([], camera)
    sky = camera.directions()[..., 2] > 0.01
    assert sky.any()
    assert np.isnan(rendering.depth[sky]).all()
    assert (rendering.classes[sky] == BACKGROUND).all()


def test_a_ball_appears_where_and_as_large_as_it_projects(
    camera: Camera, with_ball: Rendering
) -> None:
    v, u = np.nonzero(with_ball.instances == 1)
    (centre_u, centre_v, depth), *_ = camera.project(BALL_CENTRE[None])
    assert abs(u.mean() - centre_u) < 0.5
    assert abs(v.mean() - centre_v) < 0.5
    radius = camera.focal_length * BALL_DIAMETER / 2 / np.sqrt(depth**2 - 0.25)
    assert np.sqrt(len(u) / np.pi) == pytest.approx(radius, rel=0.03)
    nearest = float(np.nanmin(with_ball.depth[with_ball.instances == 1]))
    assert nearest == pytest.approx(depth - BALL_DIAMETER / 2, abs=0.02)
    assert (with_ball.classes[with_ball.instances == 1] == ROCK).all()


def test_a_cast_shadow_is_marked_apart_where_the_sun_throws_it(
    camera: Camera, with_ball: Rendering
) -> None:
    # The sun stands at −y, 53° high: a ball one metre up has its shadow 0.75 m to +y.
    place = np.array([[5.0, 0.75, 0.0]])
    u, v, _ = np.round(camera.project(place)[0]).astype(int)
    assert with_ball.classes[v, u] == SHADOW
    assert with_ball.instances[v, u] == 0
    lit = taken([], camera)
    assert not (lit.classes == SHADOW).any()
    assert with_ball.picture[v, u].mean() < 0.8 * lit.picture[v, u].mean()


def test_a_rock_of_too_few_pixels_is_ground_and_its_shadow_too(camera: Camera) -> None:
    rendering = taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera, smallest=(60.0, 80.0))
    assert (rendering.classes == BACKGROUND).all()
    assert (rendering.instances == 0).all()


def test_a_rock_between_the_two_limits_is_ignored_but_keeps_its_number(camera: Camera) -> None:
    rendering = taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera, smallest=(8.0, 80.0))
    assert (rendering.classes[rendering.instances == 1] == 64).all()
    assert (rendering.instances == 1).any()


def test_projecting_a_pixel_with_its_depth_gives_the_pixel_again(
    camera: Camera, with_ball: Rendering
) -> None:
    points = camera.position + with_ball.depth[..., None] * camera.directions()
    u, v, depth = camera.project(points[100, 30:32].astype(float)).T
    np.testing.assert_allclose(u, [30, 31], atol=0.02)
    np.testing.assert_allclose(v, 100, atol=0.02)
    np.testing.assert_allclose(depth, with_ball.depth[100, 30:32], rtol=1e-4)
