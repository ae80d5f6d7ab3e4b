# SPDX-License-Identifier: Apache-2.0
"""Scale cards, boards, buildings and fences."""

from __future__ import annotations

import numpy as np

from training.synthetic.materials import Colour
from training.synthetic.paint import Painted
from training.synthetic.site import PAINTS, SceneObject, Site, at_pixel, ground_depth, near_colour
from training.synthetic.solids import UP, ball, box, gable, joined, tube, turned

BALLS: tuple[Colour, ...] = (
    (0.6, 0.02, 0.02),
    (0.7, 0.7, 0.7),
    (0.03, 0.1, 0.4),
    (0.6, 0.3, 0.02),
)
WALLS: tuple[Colour, ...] = (
    (0.75, 0.74, 0.7),
    (0.6, 0.55, 0.45),
    (0.4, 0.4, 0.4),
    (0.3, 0.12, 0.07),
    (0.22, 0.16, 0.1),
    (0.5, 0.5, 0.42),
)
ROOFS: tuple[Colour, ...] = ((0.28, 0.1, 0.06), (0.1, 0.1, 0.11), (0.5, 0.5, 0.5))


# Pattern, minimum and maximum length relative to the image width, and width relative to length.
SCALES = {
    'card': ('scale', 0.06, 0.16, 0.5),
    'ruler': ('scale', 0.15, 0.45, 0.09),
    'bar': ('checks', 0.1, 0.4, 0.06),
}


def scale(site: Site) -> list[SceneObject]:
    """Places a ruler, a scale card, a chequered bar or a ball on the ground or on the stones."""
    rng, camera = site.rng, site.camera()
    u, v = rng.uniform(0.15, 0.85), rng.uniform(0.35, 0.9)
    depth = ground_depth(site, camera, u, v)
    unit = depth / camera.focal_length * camera.size[0]
    place = at_pixel(camera, u, v, depth)[:2]
    if rng.uniform() < 0.25:
        radius = unit * rng.uniform(0.02, 0.09)
        around = place + 0.5 * radius * rng.standard_normal((12, 2))
        top = float(site.upon(around)[:, 2].max())
        return [(ball(np.array([*place, top + 0.8 * radius]), radius), site.paint(BALLS))]
    pattern, least, most, share = SCALES[str(rng.choice(list(SCALES)))]
    long = unit * rng.uniform(least, most)
    wide = share * long * rng.uniform(0.75, 1.35)
    turn = turned(UP, rng.uniform(0, 2 * np.pi))
    lean = turned(turn[:, 0], rng.normal(0, 0.08)) @ turn
    axes = lean.T * np.array([[long], [wide], [0.03 * wide]])
    under = place + rng.uniform(-1, 1, (30, 2)) @ axes[:2, :2]
    top = float(np.quantile(site.upon(under)[:, 2], 0.95))
    centre = np.array([*place, top + 0.03 * wide])
    paint = Painted(
        near_colour(rng, ((0.75, 0.75, 0.7), (0.7, 0.62, 0.3), (0.6, 0.6, 0.6))),
        (0.03, 0.03, 0.05),
        pattern,
        scale=2 * wide if pattern == 'checks' else wide / 2.5,
        origin=tuple(centre),
        axes=(tuple(lean[:, 0]), tuple(lean[:, 1])),
    )
    return [(box(centre, axes), paint)]


def board(site: Site) -> list[SceneObject]:
    """Places boards, boxes and crates on the ground."""
    rng, camera = site.rng, site.camera()
    found: list[SceneObject] = []
    for _ in range(int(rng.integers(1, 4))):
        u, v = rng.uniform(0, 1), rng.uniform(0.4, 0.95)
        depth = ground_depth(site, camera, u, v)
        unit = depth / camera.focal_length * camera.size[0]
        place = at_pixel(camera, u, v, depth)
        place[2] = float(site.terrain.height(place[:2]))
        flat = rng.uniform() < 0.4
        size = unit * rng.uniform(0.04, 0.25, 3) * ((1, 0.1, 1) if flat else (1, 1, 0.6))
        turn = turned(UP, rng.uniform(0, 2 * np.pi)).T
        pattern = str(rng.choice(['plain', 'plain', 'planks', 'tiles']))
        paint = site.paint(
            PAINTS if pattern == 'plain' else (PAINTS[7], PAINTS[1]),
            pattern=pattern,
            scale=float(size.max() / 4),
            origin=tuple(place),
            axes=(tuple(turn[0] + turn[1]), (0.0, 0.0, 1.0)),
        )
        found.append((box(place + 0.93 * size[2] * UP, turn * size[:, None]), paint))
    return found


def buildings(site: Site) -> list[SceneObject]:
    """Places sheds, houses or walls at some distance."""
    rng = site.rng
    found: list[SceneObject] = []
    for _ in range(int(rng.integers(1, 4))):
        camera = site.camera()
        heading = np.arctan2(camera.pose[1, 2], camera.pose[0, 2])
        angle = heading + rng.uniform(-0.6, 0.6) * camera.field_of_view[0]
        away = float(np.exp(rng.uniform(np.log(6), np.log(80))))
        root = camera.position[:2] + away * np.array([np.cos(angle), np.sin(angle)])
        wall = rng.uniform() < 0.3
        size = away * rng.uniform(0.08, 0.5, 3) * ((2, 0.05, 0.5) if wall else (1, 1, 0.6))
        size[2] = max(size[2], 0.7)
        around = root + size[:2].max() * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        ground = float(site.terrain.height(around).min())
        turn = turned(UP, angle + np.pi / 2 + rng.normal(0, 0.5)).T
        centre = np.array([*root, ground + size[2]])
        pattern = str(rng.choice(['plain', 'bricks', 'planks', 'windows', 'windows', 'tiles']))
        unit = {'bricks': 0.08, 'planks': 0.2, 'windows': max(2.2, size[2] / 3), 'tiles': 1.0}.get(
            pattern, 1.0
        )
        joint = tuple(float(part) for part in rng.uniform(0.02, 0.3) * np.ones(3))
        paint = site.paint(
            WALLS,
            other=joint,
            pattern=pattern,
            scale=float(unit),
            origin=tuple(centre),
            axes=(tuple(turn[0] + turn[1]), (0.0, 0.0, 1.0)),
        )
        found.append((box(centre, turn * size[:, None]), paint))
        if not wall and rng.uniform() < 0.6:
            axes = turn * (size * (1.06, 1.06, 0))[:, None]
            axes[2] = size[1] * rng.uniform(0.3, 0.9) * UP
            top = centre + size[2] * UP
            rows = Painted(
                near_colour(rng, ROOFS),
                (0.05, 0.05, 0.05),
                'grooves',
                0.4,
                tuple(top),
                (tuple(turn[0]), (0.0, 0.0, 1.0)),
            )
            found.append((gable(top, axes), rows))
    return found


def fence(site: Site) -> list[SceneObject]:
    """Places a fence of posts and rails across the view."""
    rng, camera = site.rng, site.camera()
    heading = np.arctan2(camera.pose[1, 2], camera.pose[0, 2])
    away = float(np.exp(rng.uniform(np.log(3), np.log(25))))
    middle = camera.position[:2] + away * np.array([np.cos(heading), np.sin(heading)])
    along = heading + np.pi / 2 + rng.normal(0, 0.5)
    gap, height = rng.uniform(1.2, 3.0), rng.uniform(0.8, 2.0)
    steps = np.arange(-12, 13)[:, None] * gap
    roots = site.rooted(middle + steps * np.array([np.cos(along), np.sin(along)]))
    tops = roots + height * UP
    thick = rng.uniform(0.02, 0.08)
    posts = [tube(np.array([a - 0.2 * UP, b]), thick, 8) for a, b in zip(roots, tops, strict=True)]
    for share in np.linspace(0.35, 0.95, int(rng.integers(1, 4))):
        posts.append(tube(roots + share * height * UP, thick * rng.uniform(0.15, 0.7), 6))
    return [(joined(posts), site.paint((PAINTS[0], PAINTS[1], PAINTS[3], WALLS[4])))]
