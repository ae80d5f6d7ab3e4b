# SPDX-License-Identifier: Apache-2.0
"""Objects that are not rock: robot parts, scale cards, boards, buildings, plants and water."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.synthetic.materials import Water
from training.synthetic.plants import bushes, litter, meadow, trees
from training.synthetic.robot import robot
from training.synthetic.site import SceneObject, Site, near_colour
from training.synthetic.structures import board, buildings, fence, scale
from training.synthetic.terrain import REACH, grid_mesh


@dataclass(frozen=True)
class ObjectProbabilities:
    """Probability of each kind of object in a scene, 0 to 1.

    Attributes:
        robot: Wheel, deck, mast, arm and cables of a robot.
        scale: Ruler, scale card or ball.
        board: Boards and boxes.
        building: Sheds, walls and houses.
        fence: Posts with rails.
        grass: Tufts of grass and meadows.
        bushes: Bushes.
        trees: Trees nearby and on the horizon.
        litter: Leaves and twigs on the ground.
        water: Pools, a creek or a lake.
    """

    robot: float = 0.0
    scale: float = 0.0
    board: float = 0.0
    building: float = 0.0
    fence: float = 0.0
    grass: float = 0.0
    bushes: float = 0.0
    trees: float = 0.0
    litter: float = 0.0
    water: float = 0.0


def place_objects(objects: ObjectProbabilities, site: Site) -> list[SceneObject]:
    """Draws which objects a scene has, and makes them.

    Returns:
        Meshes and their materials.
    """
    makers: tuple[tuple[float, Callable[[Site], list[SceneObject]]], ...] = (
        (objects.robot, robot),
        (objects.scale, scale),
        (objects.board, board),
        (objects.building, buildings),
        (objects.fence, fence),
        (objects.grass, meadow),
        (objects.bushes, bushes),
        (objects.trees, trees),
        (objects.litter, litter),
        (objects.water, water),
    )
    found: list[SceneObject] = []
    for probability, make in makers:
        if site.rng.uniform() < probability:
            found += make(site)
    return found


def water(site: Site) -> list[SceneObject]:
    """Fills the lowest ground with water."""
    rng = site.rng
    places = np.concatenate(
        [site.seen(camera, 200, 20 * site.stand(camera)) for camera in site.cameras]
    )
    if not len(places):
        return []
    level = float(np.quantile(places[:, 2], rng.uniform(0.1, 0.7)))
    level = min(level, *(float(c.position[2]) - 0.3 * site.stand(c) for c in site.cameras))
    stand = site.stand(site.cameras[0])
    colour = near_colour(rng, ((0.02, 0.03, 0.025), (0.06, 0.05, 0.03), (0.03, 0.05, 0.06)))
    waves = float(rng.choice([0.0, rng.uniform(0.02, 0.15)]))
    corners = np.array([[(-1, -1), (-1, 1)], [(1, -1), (1, 1)]]) * REACH
    flat = grid_mesh(corners, np.full((2, 2), level))
    return [(flat, Water(colour, waves, float(rng.uniform(0.05, 0.4) * stand)))]
