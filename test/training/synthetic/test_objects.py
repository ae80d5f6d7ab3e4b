# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training.synthetic.camera import Camera
from training.synthetic.heap import Heap
from training.synthetic.objects import ObjectProbabilities, place_objects, water
from training.synthetic.plants import bushes, litter, meadow, trees
from training.synthetic.rendering import BACKGROUND, SHADOW
from training.synthetic.robot import _arm, _deck, _mast, _wheel, robot
from training.synthetic.rocks import Rock, Shape
from training.synthetic.sensor import Sensor
from training.synthetic.site import SceneObject, Site
from training.synthetic.sky import Light
from training.synthetic.soil import Soil
from training.synthetic.structures import board, buildings, fence, scale
from training.synthetic.terrain import Terrain
from training.synthetic.world import World

SIZE = (160, 120)
COLOUR = (0.3, 0.25, 0.2)
SOIL = Soil(COLOUR, COLOUR, 0.0, (COLOUR,), 0.1, 0.02, 0.5, 0.002)
LIGHT = Light((0.0, -0.6, 0.8), (1, 1, 1), (0.3, 0.3, 0.3), (0.5,) * 3, (0.3,) * 3, (0.5,) * 3, 1e6)
CAMERA = Camera.aimed((0.0, 0.0, 1.2), 0.0, np.radians(16), np.radians(60), SIZE)
TERRAIN = Terrain(roughness=0.03, finest=0.1)
ROCKS = [
    Rock(Shape('rounded', number), 0.5, (x, y, 0.1), 0.0, (0.2, 0.2, 0.2), (0, 0, 1), 0.0)
    for number, (x, y) in enumerate([(2.5, -0.7), (2.5, 0.5), (4, -1.3), (4, 0), (4, 1.3), (7, 0)])
]


def site(seed: int) -> Site:
    return Site(np.random.default_rng(seed), TERRAIN, [CAMERA], COLOUR)


def seen(objects: list[SceneObject]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ground = TERRAIN.mesh((-1.0, 0.0), (-1.5, 1.5), 0.1, 3000.0)
    world = World([*objects, (ground, SOIL)], ROCKS, [3] * len(ROCKS))
    rendering = world.render(CAMERA, LIGHT, Sensor(), np.random.default_rng(0), smallest=(0, 0))
    return rendering.depth, rendering.classes, rendering.instances


@pytest.fixture(scope='module')
def bare() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return seen([])


MAKERS: list[Callable[[Site], list[SceneObject]]] = [
    *(lambda where, part=part: part(where, CAMERA) for part in (_wheel, _deck, _arm, _mast)),
    *(scale, board, buildings, fence, meadow, bushes, trees, litter, water),
]


@pytest.mark.parametrize('make', MAKERS)
def test_visible_pixels_of_an_object_are_background_without_instance_id(
    make: Callable[[Site], list[SceneObject]], bare: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    objects = [item for seed in range(3) for item in make(site(seed))]
    depth, classes, instances = seen(objects)
    hiding = np.isfinite(depth) & ~np.isclose(depth, bare[0], rtol=1e-4)
    assert hiding.sum() > 20
    assert np.isin(classes[hiding], (BACKGROUND, SHADOW)).all()
    assert not instances[hiding].any()
    assert (instances[~hiding] == bare[2][~hiding]).all()
    assert (classes[bare[2] > 0][~hiding[bare[2] > 0]] == 255).all()


def test_objects_are_placed_with_their_probability() -> None:
    assert place_objects(ObjectProbabilities(), site(0)) == []
    assert place_objects(ObjectProbabilities(grass=1.0, building=1.0), site(0)) != []


def test_most_images_have_a_part_of_the_robot() -> None:
    cameras = [CAMERA] * 6
    found = robot(Site(np.random.default_rng(0), TERRAIN, cameras, COLOUR))
    assert len(found) >= 6


def test_a_scale_is_placed_on_top_of_the_stones() -> None:
    heap = Heap(20.0, cells=64)
    heap.surface += 0.3
    for seed in range(4):
        where = Site(np.random.default_rng(seed), TERRAIN, [CAMERA], COLOUR, heap)
        (mesh, _), *_ = scale(where)
        assert mesh.vertices[:, 2].mean() > 0.29
