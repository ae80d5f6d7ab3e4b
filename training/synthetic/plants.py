# SPDX-License-Identifier: Apache-2.0
"""Grass, bushes, trees and leaf litter, made of separate triangles."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.materials import Colour, Foliage
from training.synthetic.site import SceneObject, Site
from training.synthetic.solids import UP, Points, joined, loose, tube
from training.synthetic.terrain import Mesh

GREENS: tuple[Colour, ...] = (
    (0.055, 0.11, 0.022),
    (0.09, 0.15, 0.035),
    (0.035, 0.075, 0.025),
    (0.12, 0.14, 0.05),
)
DRY: tuple[Colour, ...] = ((0.34, 0.26, 0.12), (0.26, 0.19, 0.09), (0.42, 0.36, 0.2))
LITTER: tuple[Colour, ...] = ((0.22, 0.12, 0.05), (0.14, 0.08, 0.04), (0.36, 0.24, 0.1))
BARK: tuple[Colour, ...] = ((0.11, 0.085, 0.06), (0.2, 0.18, 0.15), (0.06, 0.05, 0.04))


def foliage(rng: Generator, palette: tuple[Colour, ...], leaf: float) -> Foliage:
    """Draws the material of leaves.

    Args:
        rng: Random generator.
        palette: Linear albedos to draw from.
        leaf: Size of a leaf, m.
    """
    bright = float(np.exp(rng.normal(0, 0.25)))
    one, two = (
        tuple(
            float(part * bright)
            for part in np.array(palette[rng.integers(len(palette))])
            * np.exp(rng.normal(0, 0.08, 3))
        )
        for _ in range(2)
    )
    return Foliage(one, two, leaf)  # type: ignore[arg-type]


def grass(rng: Generator, roots: Points, height: float, blades: int) -> Mesh:
    """Makes tufts of grass.

    Args:
        rng: Random generator.
        roots: N×3 positions of the tufts, m.
        height: Height of the blades, m.
        blades: Number of blades per tuft.
    """
    count = len(roots) * blades
    root = np.repeat(roots, blades, axis=0)
    size = np.repeat(np.exp(rng.normal(0, 0.35, len(roots))), blades)
    size *= rng.uniform(0.4, 1.1, count) * height
    angle = rng.uniform(0, 2 * np.pi, count)
    out = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], -1)
    root = root + (0.25 * height * np.sqrt(rng.uniform(size=(count, 1)))) * out
    bend = rng.uniform(0.05, 0.9, count)[:, None]
    width = (0.012 * size + 0.0012)[:, None] * np.stack(
        [-np.sin(angle), np.cos(angle), np.zeros(count)], -1
    )
    size = size[:, None]
    middle = root + size * (0.55 * UP + 0.25 * bend * out)
    tip = root + size * ((1 - 0.45 * bend) * UP + 0.95 * bend * out)
    left, right = middle - 0.7 * width, middle + 0.7 * width
    low, lower = root - width, root + width
    return loose(
        np.concatenate(
            [
                np.stack([low, lower, right], 1),
                np.stack([low, right, left], 1),
                np.stack([left, right, tip], 1),
            ]
        )
    )


def leaves(
    rng: Generator, places: Points, size: float, facing: NDArray[np.floating] | None = None
) -> Mesh:
    """Makes pointed leaves of two triangles each.

    Args:
        rng: Random generator.
        places: N×3 positions, m.
        size: Length of a leaf, m.
        facing: N×3 directions of their upper sides; None = random directions.
    """
    count = len(places)
    normal = rng.standard_normal((count, 3))
    if facing is not None:
        normal = 0.35 * normal + facing
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    along = np.cross(normal, rng.standard_normal((count, 3)))
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = np.cross(normal, along)
    long = (size * rng.uniform(0.6, 1.3, count))[:, None]
    wide = long * rng.uniform(0.2, 0.45, count)[:, None]
    start, end = places - 0.5 * long * along, places + 0.5 * long * along
    lift = 0.12 * long * normal
    left, right = places + wide * across + lift, places - wide * across + lift
    return loose(
        np.concatenate([np.stack([start, right, end], 1), np.stack([start, end, left], 1)])
    )


def crown(rng: Generator, centre: Points, radii: Points, count: int, leaf: float) -> Mesh:
    """Makes a bush or the crown of a tree: clusters of leaves in an ellipsoid.

    Args:
        rng: Random generator.
        centre: Centre of the ellipsoid, 3, m.
        radii: Radii of the ellipsoid, 3, m.
        count: Number of leaves.
        leaf: Size of a leaf, m.
    """
    clumps = rng.standard_normal((14, 3))
    clumps *= rng.uniform(0.4, 0.8, (14, 1)) / np.linalg.norm(clumps, axis=1, keepdims=True)
    out = rng.standard_normal((count, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    # Most leaves are near the surface.
    inside = clumps[rng.integers(14, size=count)]
    places = inside + 0.45 * out * rng.uniform(size=(count, 1)) ** (1 / 4)
    return leaves(rng, centre + places * radii, leaf, facing=out + 0.4 * UP)


def tree(
    rng: Generator, root: Points, height: float, pixel: float, leafy: bool = True
) -> tuple[Mesh, Mesh | None]:
    """Makes a tree.

    Args:
        rng: Random generator.
        root: Position of its foot, m.
        height: Height, m.
        pixel: Size of a pixel at its distance, m.
        leafy: Whether it has leaves.

    Returns:
        Trunk with branches, and leaves or None.
    """
    lean = rng.normal(0, 0.04, 2)
    steps = np.linspace(-0.03, 0.75, 8)[:, None]
    path = root + height * np.concatenate([steps * lean + 0.01 * np.sin(6 * steps), steps], 1)
    thick = height * float(rng.uniform(0.012, 0.03))
    wood = [tube(path, np.linspace(1.3 * thick, 0.4 * thick, 8), 9)]
    for _ in range(int(rng.integers(4, 9)) + (0 if leafy else 12)):
        start = path[rng.integers(3, 8)]
        angle = rng.uniform(0, 2 * np.pi)
        reach = height * rng.uniform(0.12, 0.3)
        way = np.array([np.cos(angle), np.sin(angle), rng.uniform(0.3, 1.2)])
        bent = np.array([start, start + 0.5 * reach * way, start + reach * (way + 0.2 * UP)])
        wood.append(tube(bent, 0.25 * thick * np.array([1.2, 0.8, 0.3]), 5))
    if not leafy:
        return joined(wood), None
    wide = height * float(rng.uniform(0.16, 0.32))
    tall = height * float(rng.uniform(0.22, 0.36))
    leaf = max(3 * pixel, 0.06)
    count = int(np.clip(24 * wide * tall / leaf**2, 200, 5000))
    middle = root + np.array([*(0.7 * height * lean), 0.68 * height])
    return joined(wood), crown(rng, middle, np.array([wide, wide, tall]), count, leaf)


def meadow(site: Site) -> list[SceneObject]:
    """Places tufts of grass, in clusters or on the whole ground."""
    rng = site.rng
    palette = (GREENS, GREENS, DRY)[rng.integers(3)]
    height = float(np.exp(rng.uniform(np.log(0.05), np.log(0.5))))
    height = min(height, 0.25 * site.stand(site.cameras[0]))
    full = rng.uniform() < 0.25
    roots = []
    for camera in site.cameras:
        places = site.seen(camera, 500 if full else 120, 25 * site.stand(camera))
        if not full and len(places) > 3:
            middles = places[rng.integers(len(places), size=3)]
            away = np.linalg.norm(places[:, None] - middles, axis=2).min(1)
            places = places[away < np.quantile(away, rng.uniform(0.1, 0.6))]
        roots.append(places)
    every = np.concatenate(roots)
    blades = int(np.clip(20000 / max(len(every), 1), 8, 60))
    return [(grass(rng, every, height, blades), foliage(rng, palette, 0.3 * height))]


def bushes(site: Site) -> list[SceneObject]:
    """Places bushes and broad-leaved plants."""
    rng = site.rng
    found = []
    camera = site.camera()
    stand = site.stand(camera)
    for root in site.seen(camera, int(rng.integers(2, 9)), 30 * stand):
        away = float(np.linalg.norm(root - camera.position))
        size = min(away * rng.uniform(0.04, 0.25), 2.5)
        pixel = away / camera.focal_length
        leaf = max(2.5 * pixel, min(0.12 * size, 0.12))
        count = int(np.clip(14 * size**2 / leaf**2, 60, 4000))
        radii = size * np.array([1, 1, rng.uniform(0.5, 1.0)])
        found.append(crown(rng, root + 0.6 * radii[2] * UP, radii, count, leaf))
    return [(joined(found), foliage(rng, GREENS, 0.1))] if found else []


def trees(site: Site) -> list[SceneObject]:
    """Places a few near trees, a wood, or a distant line of trees."""
    rng, camera = site.rng, site.camera()
    heading = np.arctan2(camera.pose[1, 2], camera.pose[0, 2])
    kind = str(rng.choice(['few', 'wood', 'line']))
    count = {'few': int(rng.integers(1, 6)), 'wood': 22, 'line': 45}[kind]
    low, high = {'few': (5, 60), 'wood': (5, 45), 'line': (60, 400)}[kind]
    wide = max(camera.field_of_view[0], 0.5) * (0.8 + 0.4 * len(site.cameras))
    leafy = rng.uniform() < 0.85
    wood, green = [], []
    for _ in range(count):
        angle = heading + rng.uniform(-0.5, 0.5) * wide
        away = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        place = camera.position[:2] + away * np.array([[np.cos(angle), np.sin(angle)]])
        root = site.rooted(place)[0]
        pixel = away / camera.focal_length
        trunk, crowned = tree(rng, root, rng.uniform(5, 16), max(pixel, 0.02), leafy)
        wood.append(trunk)
        if crowned is not None:
            green.append(crowned)
    found: list[SceneObject] = [(joined(wood), site.paint(BARK))]
    if green:
        found.append((joined(green), foliage(rng, GREENS, 0.3)))
    return found


def litter(site: Site) -> list[SceneObject]:
    """Scatters dry leaves and twigs on the ground."""
    rng = site.rng
    palette = (LITTER, LITTER, DRY, GREENS)[rng.integers(4)]
    many = int(np.exp(rng.uniform(np.log(40), np.log(600))))
    places = np.concatenate(
        [site.seen(camera, many, 12 * site.stand(camera)) for camera in site.cameras]
    )
    size = min(rng.uniform(0.03, 0.1), 0.06 * site.stand(site.cameras[0]))
    places = site.upon(places[:, :2])
    lying = places + np.column_stack(
        [np.zeros((len(places), 2)), rng.uniform(0.02, 0.4, len(places)) * size]
    )
    found: list[SceneObject] = [(leaves(rng, lying, size, UP), foliage(rng, palette, size))]
    twigs = []
    for root in places[: int(rng.integers(0, 12))]:
        angle = rng.uniform(0, np.pi)
        way = size * rng.uniform(1, 5) * np.array([np.cos(angle), np.sin(angle), 0.0])
        bent = np.array([root - way, root + 0.1 * size * UP, root + way * (0.9, 1.1, 1)])
        twigs.append(tube(bent + 0.1 * size * UP, 0.05 * size, 5))
    if twigs:
        found.append((joined(twigs), site.paint(BARK)))
    return found
