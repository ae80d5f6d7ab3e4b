# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.synthetic.camera import Camera
from training.synthetic.rendering import BACKGROUND, ROCK, SHADOW, Rendering
from training.synthetic.rocks import Marks, Rock, Shape
from training.synthetic.sensor import Sensor
from training.synthetic.sky import Light
from training.synthetic.soil import Soil
from training.synthetic.terrain import Terrain
from training.synthetic.world import World

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
    """A sphere, whose projection is known."""

    def body(self, detail: int) -> tuple[np.ndarray, np.ndarray]:
        from training.synthetic.rocks import _icosphere

        vertices, faces = _icosphere(5)
        return vertices / 2, faces


def ball(centre: np.ndarray, diameter: float) -> Rock:
    position = tuple(float(part) for part in centre)
    colour = (0.2, 0.2, 0.2)
    return Rock(Ball('rounded', 0), diameter, position, 0.0, colour, (0.0, 0.0, 1.0), 0.0)


def taken(
    rocks: list[Rock],
    camera: Camera,
    light: Light = LIGHT,
    wet: float = 0.0,
    roughness: float = 0.2,
    **settings: object,
) -> Rendering:
    plane = Terrain(roughness=0.0, finest=1.0).mesh((-1.0, 0.0), (-1.5, 1.5), 0.1, 3000.0)
    world = World([(plane, SOIL)], rocks, [5] * len(rocks), roughness, wet)
    rng = np.random.default_rng(0)
    return world.render(camera, light, Sensor(), rng, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope='module')
def camera() -> Camera:
    return Camera.aimed((0.0, 0.0, 1.5), 0.0, np.radians(10), np.radians(60), SIZE)


@pytest.fixture(scope='module')
def with_ball(camera: Camera) -> Rendering:
    return taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera)


def test_the_depth_of_a_plane_is_exact(camera: Camera) -> None:
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


def test_a_ball_has_its_projected_position_and_size(camera: Camera, with_ball: Rendering) -> None:
    v, u = np.nonzero(with_ball.instances == 1)
    (centre_u, centre_v, depth), *_ = camera.project(BALL_CENTRE[None])
    assert abs(u.mean() - centre_u) < 0.5
    assert abs(v.mean() - centre_v) < 0.5
    radius = camera.focal_length * BALL_DIAMETER / 2 / np.sqrt(depth**2 - 0.25)
    assert np.sqrt(len(u) / np.pi) == pytest.approx(radius, rel=0.03)
    nearest = float(np.nanmin(with_ball.depth[with_ball.instances == 1]))
    assert nearest == pytest.approx(depth - BALL_DIAMETER / 2, abs=0.02)
    assert (with_ball.classes[with_ball.instances == 1] == ROCK).all()


def test_a_cast_shadow_has_its_own_class_at_the_expected_position(
    camera: Camera, with_ball: Rendering
) -> None:
    # The sun is at −y with an elevation of 53°, so a ball at 1 m has its shadow at y = 0.75 m.
    place = np.array([[5.0, 0.75, 0.0]])
    u, v, _ = np.round(camera.project(place)[0]).astype(int)
    assert with_ball.classes[v, u] == SHADOW
    assert with_ball.instances[v, u] == 0
    lit = taken([], camera)
    assert not (lit.classes == SHADOW).any()
    assert with_ball.image[v, u].mean() < 0.8 * lit.image[v, u].mean()


def test_a_rock_below_the_first_limit_and_its_shadow_are_ground(camera: Camera) -> None:
    rendering = taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera, smallest=(60.0, 80.0))
    assert (rendering.classes == BACKGROUND).all()
    assert (rendering.instances == 0).all()


def test_a_rock_between_the_limits_is_ignored_and_keeps_its_instance_id(camera: Camera) -> None:
    rendering = taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera, smallest=(8.0, 80.0))
    assert (rendering.classes[rendering.instances == 1] == 64).all()
    assert (rendering.instances == 1).any()


def test_the_dark_side_of_a_rock_is_rock(camera: Camera) -> None:
    hard = replace(LIGHT, sun=(0.0, -0.8, 0.6), sky_colour=(0.01, 0.01, 0.01))
    rendering = taken([ball(BALL_CENTRE, BALL_DIAMETER)], camera, light=hard)
    brightness = rendering.image[rendering.instances == 1].max(axis=1)
    assert (rendering.classes[rendering.instances == 1] == ROCK).all()
    assert (brightness < 40).mean() > 0.1
    assert (brightness > 100).mean() > 0.1


def test_clouds_whiten_the_sky_and_are_background(camera: Camera) -> None:
    blue = replace(LIGHT, horizon=(0.2, 0.3, 0.8), zenith=(0.1, 0.2, 0.8))
    clear = taken([], camera, light=blue)
    cloudy = taken([], camera, light=replace(blue, clouds=0.5))
    sky = np.isnan(clear.depth)
    redder = cloudy.image[sky][:, 0].astype(int) - clear.image[sky][:, 0]
    assert redder.max() > 60
    assert redder.min() < 10
    assert not cloudy.classes[sky].any()


def test_marks_change_the_appearance_and_not_the_labels_of_a_rock(
    camera: Camera, with_ball: Rendering
) -> None:
    marks = Marks((0.8, 0.8, 0.8), patches=0.4, stripes=0.2, veins=1.0, cracks=0.9, speckle=0.2)
    marked = taken([replace(ball(BALL_CENTRE, BALL_DIAMETER), marks=marks)], camera)
    assert (marked.instances == with_ball.instances).all()
    assert (marked.classes == with_ball.classes).all()
    of = marked.instances == 1
    assert marked.image[of].std() > 1.3 * with_ball.image[of].std()


def test_a_wet_rock_reflects_the_sun(camera: Camera) -> None:
    # The sun is behind the camera, so that the near side of the ball reflects it.
    behind = replace(LIGHT, sun=(-0.6, 0.0, 0.8))
    rocks = [ball(BALL_CENTRE, BALL_DIAMETER)]
    dry, wet = (taken(rocks, camera, light=behind, wet=wet, roughness=0.02) for wet in (0, 1))
    on_ball = dry.instances == 1
    assert wet.image[on_ball].max() > dry.image[on_ball].max() + 30
    assert (wet.classes == dry.classes).all()


def test_projecting_a_point_from_the_depth_of_a_pixel_returns_that_pixel(
    camera: Camera, with_ball: Rendering
) -> None:
    points = camera.position + with_ball.depth[..., None] * camera.directions()
    u, v, depth = camera.project(points[100, 30:32].astype(float)).T
    np.testing.assert_allclose(u, [30, 31], atol=0.02)
    np.testing.assert_allclose(v, 100, atol=0.02)
    np.testing.assert_allclose(depth, with_ball.depth[100, 30:32], rtol=1e-4)
