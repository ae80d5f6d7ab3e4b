# SPDX-License-Identifier: Apache-2.0
"""Parts of the robot that carries the camera: wheel, deck, arm, mast and cables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from training.synthetic.camera import Camera
from training.synthetic.site import PAINTS, SceneObject, Site, at_pixel, ground_depth
from training.synthetic.solids import UP, ball, box, joined, tube, turned


def robot(site: Site) -> list[SceneObject]:
    """Makes up to two parts of the robot per image."""
    parts = (_wheel, _deck, _arm, _mast)
    found: list[SceneObject] = []
    for camera in site.cameras:
        for number in site.rng.choice(len(parts), int(site.rng.integers(0, 3)), replace=False):
            found += parts[number](site, camera)
    return found


def _wheel(site: Site, camera: Camera) -> list[SceneObject]:
    """Makes a wheel with cleats and spokes on the ground at the image border."""
    rng = site.rng
    u, v = rng.choice([rng.uniform(-0.05, 0.25), rng.uniform(0.75, 1.05)]), 0.95
    depth = ground_depth(site, camera, u, v)
    root = at_pixel(camera, u, v, depth)
    radius = depth / camera.focal_length * camera.size[0] * rng.uniform(0.12, 0.35)
    radius = min(radius, 0.45 * site.stand(camera))
    forward = np.array([camera.pose[0, 2], camera.pose[1, 2], 0.0])
    forward = turned(UP, rng.normal(0, 0.3)) @ (forward / max(np.linalg.norm(forward), 1e-9))
    axle = np.cross(forward, UP)
    hub = np.array([root[0], root[1], float(site.terrain.height(root[:2])) + 0.93 * radius])
    half = radius * rng.uniform(0.3, 0.6)
    across = np.linspace(-1, 1, 7)[:, None] * half * axle
    profile = radius * np.array([0.93, 0.99, 1, 1, 1, 0.99, 0.93])
    rim = [tube(hub + across, profile, 40)]
    count = int(rng.integers(14, 34))
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        out = np.cos(angle) * forward + np.sin(angle) * UP
        way = np.cross(out, axle)
        axes = np.array([0.035 * radius * out, half * axle, 0.25 * np.pi / count * radius * way])
        rim.append(box(hub + 1.02 * radius * out, axes))
    spokes = []
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(5, 9)), endpoint=False):
        out = np.cos(angle) * forward + np.sin(angle) * UP
        for side in (-1, 1):
            axes = np.array(
                [0.4 * radius * out, 0.03 * radius * axle, 0.06 * radius * np.cross(out, axle)]
            )
            spokes.append(box(hub + 0.45 * radius * out + side * 1.02 * half * axle, axes))
    strut = np.array(
        [
            hub,
            hub + radius * (0.6 * axle + 1.3 * UP),
            hub + radius * 4.0 * UP - 2 * radius * forward,
        ]
    )
    spokes.append(tube(strut, 0.12 * radius, 10))
    return [(joined(rim), site.paint(PAINTS[1:4])), (joined(spokes), site.paint())]


def _deck(site: Site, camera: Camera) -> list[SceneObject]:
    """Makes a deck at the lower image border, with boxes and cables on it."""
    rng = site.rng
    reach = rng.uniform(0.62, 0.95)
    depth = rng.uniform(0.25, 0.6) * ground_depth(site, camera, 0.5, reach)
    middle = at_pixel(camera, rng.uniform(0.2, 0.8), reach, depth)
    right, forward = camera.pose[:3, 0].copy(), camera.pose[:3, 2].copy()
    right[2] = forward[2] = 0
    right /= np.linalg.norm(right)
    forward = np.cross(UP, right)
    wide = depth / camera.focal_length * camera.size[0] * rng.uniform(0.25, 0.9)
    long = 2.0 * depth
    thick = rng.uniform(0.02, 0.1) * wide
    centre = middle - long * forward
    axes = np.array([wide * right, long * forward, thick * UP])
    scale = wide / rng.uniform(2, 9)
    pattern = str(rng.choice(['plain', 'plain', 'tiles', 'grooves']))
    paint = site.paint(
        pattern=pattern, scale=scale, origin=tuple(centre), axes=(tuple(right), tuple(forward))
    )
    found: list[SceneObject] = [(box(centre, axes), paint)]
    lumps, lines = [], []
    for _ in range(int(rng.integers(0, 6))):
        size = wide * rng.uniform(0.03, 0.2, 3)
        place = middle + rng.uniform(-1, 1) * wide * right - rng.uniform(0, 1) * wide * forward
        lumps.append(
            box(
                place + (thick + size[2]) * UP,
                np.diag(size) @ np.array([right, forward, UP]),
            )
        )
    for _ in range(int(rng.integers(0, 4))):
        start = middle + rng.uniform(-1, 1) * wide * right + thick * UP
        steps = np.linspace(0, 1, 24)[:, None]
        sway = 0.1 * wide * np.sin(steps * rng.uniform(4, 14) + rng.uniform(0, 6))
        path = start - steps * wide * 1.5 * forward + sway * right + 0.02 * wide * UP
        lines.append(tube(path, wide * rng.uniform(0.006, 0.02), 7))
    if lumps:
        found.append((joined(lumps), site.paint()))
    if lines:
        found.append(
            (
                joined(lines),
                site.paint(
                    ((0.02, 0.02, 0.02), (0.5, 0.1, 0.04), (0.5, 0.5, 0.5), (0.55, 0.4, 0.1))
                ),
            )
        )
    return found


def _arm(site: Site, camera: Camera) -> list[SceneObject]:
    """Makes an arm from the side of the image: links, joints, a turret and a cable."""
    rng = site.rng
    side = rng.choice([-1, 1])
    u = [
        0.5 + side * 0.62,
        0.5 + side * rng.uniform(0.1, 0.4),
        0.5 + side * rng.uniform(-0.2, 0.3),
    ]
    v = [rng.uniform(0.3, 1.15), rng.uniform(0.3, 0.8), rng.uniform(0.35, 0.9)]
    depth = rng.uniform(0.25, 0.7) * min(
        ground_depth(site, camera, a, b) for a, b in zip(u, v, strict=True)
    )
    depths = depth * np.array([rng.uniform(0.6, 1), 1.0, rng.uniform(0.8, 1)])
    joints = np.array([at_pixel(camera, *each) for each in zip(u, v, depths, strict=True)])
    unit = depth / camera.focal_length * camera.size[0]
    thick = unit * rng.uniform(0.012, 0.045)
    links = [tube(np.array([a, b]), thick, 14) for a, b in pairwise(joints)]
    knobs = [ball(joint, 1.5 * thick) for joint in joints[1:]]
    for _ in range(int(rng.integers(1, 4))):
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0] * (
            unit * rng.uniform(0.015, 0.07, (3, 1))
        )
        knobs.append(box(joints[2] + unit * rng.normal(0, 0.025, 3), axes))
    steps = np.linspace(0, 1, 20)[:, None]
    line = joints[0] + steps * (joints[1] - joints[0]) + 1.8 * thick * UP
    line = line - UP * unit * rng.uniform(-0.03, 0.08) * np.sin(np.pi * steps)
    return [
        (joined(links), site.paint()),
        (joined(knobs), site.paint()),
        (tube(line, 0.25 * thick, 7), site.paint(PAINTS[3:6])),
    ]


def _mast(site: Site, camera: Camera) -> list[SceneObject]:
    """Makes a pole or an antenna at the lower image border."""
    rng = site.rng
    u = rng.uniform(0, 1)
    depth = rng.uniform(0.3, 0.7) * ground_depth(site, camera, u, 1.0)
    foot, head = (
        at_pixel(camera, u, 1.1, depth),
        at_pixel(camera, u + rng.normal(0, 0.05), rng.uniform(0.2, 0.7), depth),
    )
    unit = depth / camera.focal_length * camera.size[0]
    thick = unit * rng.uniform(0.006, 0.03)
    found: list[SceneObject] = [
        (tube(np.array([foot, head]), thick, 14), site.paint(pattern='plain'))
    ]
    if rng.uniform() < 0.6:
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0] * (
            unit * rng.uniform(0.01, 0.08, (3, 1))
        )
        found.append((box(head, axes), site.paint()))
    return found
