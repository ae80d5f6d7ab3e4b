# SPDX-License-Identifier: Apache-2.0
"""Evaluates the metric measurement of rocks on synthetic scenes with exact ground truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.geometry.abundance import (
    Observation,
    combine,
    compute_abundance,
    observe,
)
from rock_seg_ros.perception.geometry.ground import fit_ground
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.location import Location, locate
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.overlay import draw_overlay
from training.matching import MATCH_IOU
from training.metrics import CONFIDENCE_LEVEL, RESAMPLES
from training.stereo_camera import StereoCamera
from training.synthetic.camera import Camera
from training.synthetic.rendering import ROCK, Rendering
from training.synthetic.scene import Scene, make_scene
from training.writing import write_image

NEAR = 5.0  # m; metrics and abundance are also computed for rocks up to this distance
MIN_LABELLED_AREA = 154  # px, of the smallest disc that the renderer labels as a rock
TOP_VIEW_FOV = np.radians(20)  # field of view of the image that measures the camera height


@dataclass(frozen=True)
class Truth:
    """The true measurements of one rock.

    Attributes:
        rock: Its visible part, as `find_rocks` returns it.
        position: Mean of the points of its visible surface in the optical frame, m.
        diameter: Diameter of the disc with the area of its silhouette, m.
        height: Height of its highest visible point above the surrounding ground, m.
        body: Maximum horizontal diameter of the whole rock, m; NaN if it is not fully visible.
    """

    rock: Rock
    position: NDArray[np.float64]
    diameter: float
    height: float
    body: float


def ground_truth(scene: Scene, rendering: Rendering, min_area: int) -> list[Truth]:
    """Returns the true measurements of the rocks in an image.

    Args:
        scene: The scene.
        rendering: An image of the scene, with exact depth and instances.
        min_area: Minimum area of a rock, px.
    """
    height, width = rendering.depth.shape
    v, u = np.mgrid[:height, :width]
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    points = rendering.depth[..., None] * (pixels @ np.linalg.inv(rendering.intrinsics).T)
    up = rendering.pose[2, :3]
    level = points @ up
    ground = (rendering.instances == 0) & (rendering.depth < np.inf)
    numbers = np.where(rendering.classes == ROCK, rendering.instances, 0)
    found = []
    for number in np.unique(numbers[numbers > 0]).tolist():
        rock = _as_rock(numbers == number, min_area)
        if rock is None:
            continue
        mask = draw_instances([rock], (height, width)) > 0
        z = rendering.depth[mask].astype(np.float64)
        focal = rendering.intrinsics[0, 0] * rendering.intrinsics[1, 1]
        found.append(
            Truth(
                rock,
                points[mask].mean(axis=0),
                float(2 * np.sqrt((z**2).sum() / focal / np.pi)),
                float(level[mask].max() - _ground_height(points, up, mask, ground)),
                scene.world.rocks[number - 1].diameter
                if _is_fully_visible(rock, mask, rendering)
                else np.nan,
            )
        )
    return found


def _as_rock(mask: NDArray[np.bool_], min_area: int) -> Rock | None:
    """Returns the largest connected component of a mask as a rock; None if it is too small."""
    ids = mask.astype(np.uint8)
    settings = RockSettings(min_area=min_area, max_rocks=1, split_touching=False)
    found = find_rocks(Segmentation(ids, np.full_like(ids, 255), (1,)), settings)
    return found[0] if found else None


def _ground_height(
    points: NDArray[np.float64],
    up: NDArray[np.float64],
    mask: NDArray[np.bool_],
    ground: NDArray[np.bool_],
) -> float:
    """Returns the median height of the visible ground around a rock, m; NaN if there is none."""
    rock_points = points[mask]
    centre = rock_points.mean(axis=0)
    radius = 1.5 * np.linalg.norm(rock_points - centre, axis=1).max()
    ground_points = points[ground]
    near = np.linalg.norm(ground_points - centre, axis=1) < radius
    return float(np.median(ground_points[near] @ up)) if near.any() else np.nan


def _is_fully_visible(rock: Rock, mask: NDArray[np.bool_], rendering: Rendering) -> bool:
    """Returns whether neither a nearer rock nor the image border hides a part of a rock."""
    x, y, width, height = rock.box
    if x == 0 or y == 0 or x + width == mask.shape[1] or y + height == mask.shape[0]:
        return False
    border = cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)) > mask
    other = border & (rendering.instances > 0)
    return not (rendering.depth[other] < np.median(rendering.depth[mask])).any()


@dataclass(frozen=True)
class RockErrors:
    """The errors of the measurements of one rock; NaN if it has no measurements.

    Attributes:
        image: Index of the image.
        range: True distance from the camera, m.
        position: Distance between measured and true position, as a share of the range.
        diameter: Relative error of the diameter; positive if it is too large.
        height: Error of the height, m; positive if it is too high.
        body: Measured diameter, as a share of the maximum horizontal diameter of the whole rock.
    """

    image: int
    range: float
    position: float
    diameter: float
    height: float
    body: float


def rock_errors(image: int, truth: Truth, location: Location) -> RockErrors:
    """Compares the measurements of a rock with the truth."""
    distance = float(np.linalg.norm(truth.position))
    return RockErrors(
        image,
        distance,
        float(np.linalg.norm(location.position - truth.position)) / distance,
        location.diameter / truth.diameter - 1,
        location.height - truth.height,
        location.diameter / truth.body,
    )


def figures(errors: Sequence[RockErrors]) -> dict[str, Any]:
    """Returns medians and their 95 % intervals (bootstrap over images) as a JSON object.

    Returns:
        rocks: Number of rocks.
        located: Share of the rocks with measurements.
        position, diameter: Median absolute error, %.
        diameter_bias: Median signed error, %.
        height: Median absolute error, m.
        body: Median ratio of the measured diameter to that of the whole rock.
        intervals: position, diameter and height → [low, high].
    """
    known = [each for each in errors if np.isfinite(each.position)]
    sizes = {
        'position': [100 * each.position for each in known],
        'diameter': [100 * abs(each.diameter) for each in known],
        'height': [abs(each.height) for each in known],
    }
    images = np.array([each.image for each in known])
    return {
        'rocks': len(errors),
        'located': len(known) / len(errors) if errors else None,
        **{name: _median(values) for name, values in sizes.items()},
        'diameter_bias': _median([100 * each.diameter for each in known]),
        'body': _median([each.body for each in known]),
        'intervals': {name: _interval(np.array(values), images) for name, values in sizes.items()},
    }


def _median(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    known = np.asarray(values)[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _interval(values: NDArray[np.float64], images: NDArray[np.int64]) -> list[float] | None:
    """Returns the bootstrap interval of the median over resampled images."""
    groups = [values[images == number] for number in np.unique(images)]
    if len(groups) < 2:
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    medians = [_median(np.concatenate([groups[number] for number in draw])) for draw in draws]
    tail = (1 - CONFIDENCE_LEVEL) / 2
    known = np.array([median for median in medians if median is not None])
    return np.quantile(known, [tail, 1 - tail]).tolist() if len(known) else None


def _pairs(
    truth: Sequence[Truth], rocks: Sequence[Rock], shape: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yields the indices of true and found rocks with an IoU above 0.5, which is one to one."""
    found = draw_instances(rocks, shape)
    for row, each in enumerate(truth):
        overlapping = found[draw_instances([each.rock], shape) > 0]
        intersection = np.bincount(overlapping, minlength=len(rocks) + 1)[1:]
        if not intersection.any():
            continue
        best = int(intersection.argmax())
        union = each.rock.area + rocks[best].area - intersection[best]
        if intersection[best] > MATCH_IOU * union:
            yield row, best


def camera_height(scene: Scene, camera: Camera) -> float:
    """Returns the height of the camera above the ground below it, m; NaN if there is none."""
    x, y, z = camera.position.tolist()
    below = Camera.aimed((x, y, z), 0.0, np.pi / 2, TOP_VIEW_FOV, (16, 16))
    rendering = scene.render(below)
    ground = rendering.depth[(rendering.instances == 0) & np.isfinite(rendering.depth)]
    return float(np.median(ground)) if len(ground) else np.nan


@dataclass
class Measurement:
    """The results on all scenes.

    Attributes:
        errors: Errors of the rocks, by available data and by origin of the masks.
        observations: Observations for the abundance of each scene, by origin of the masks; 'bodies'
            are all rocks of the scene, including hidden ones.
        abundances: True abundance k of each scene.
    """

    errors: dict[tuple[str, str], list[RockErrors]]
    observations: dict[str, list[Observation]]
    abundances: list[float]


def measure(
    scenes: Sequence[tuple[int, int, str]],
    size: tuple[int, int],
    stereo: StereoCamera,
    segmenter: Segmenter | None,
    images: Path | None = None,
) -> Measurement:
    """Evaluates the measurements on each scene.

    Args:
        scenes: Seed, number and kind of each scene.
        size: Width and height of the images, px.
        stereo: The stereo camera that measures depth.
        segmenter: A network, whose masks are evaluated too; None = only exact masks.
        images: Folder for an overlay with the measurements of each scene; None = no overlays.
    """
    result = Measurement(defaultdict(list), defaultdict(list), [])
    for image, (seed, number, kind) in enumerate(tqdm(scenes, unit='scene')):
        scene = make_scene(seed, number, kind, size, images=1)
        rendering = scene.render(scene.cameras[0])
        truth = ground_truth(scene, rendering, RockSettings.min_area)
        masks = {'exact': [each.rock for each in truth]}
        if segmenter is not None:
            masks['network'] = find_rocks(segmenter.segment(rendering.image), RockSettings())
        rng = np.random.default_rng([seed, number, 2])
        result.abundances.append(scene.appearance.abundance)
        views = _views(scene, rendering, stereo, rng, masks['exact'])
        for origin, rocks in masks.items():
            pairs = list(_pairs(truth, rocks, size[::-1]))
            for given, view in views.items():
                locations = locate(rocks, view)
                result.errors[given, origin] += [
                    rock_errors(image, truth[row], locations[found])
                    for row, found in pairs
                    if truth[row].position[2] < stereo.farthest
                ]
            locations = locate(rocks, views['depth'])
            observation = observe(
                rocks, locations, size[::-1], views['depth'], NEAR, MIN_LABELLED_AREA
            )
            result.observations[origin].append(observation)
            if images:
                name = f'{kind}_{number:02}_{origin}.png'
                write_image(images / name, draw_locations(rendering.image, rocks, locations))
        result.observations['bodies'].append(
            replace(result.observations['exact'][-1], diameters=_bodies(scene, scene.cameras[0]))
        )
    return result


def _bodies(scene: Scene, camera: Camera) -> NDArray[np.float64]:
    """Returns the diameters of all near rocks inside the image, including hidden ones."""
    positions = np.array([rock.position for rock in scene.world.rocks]).reshape(-1, 3)
    diameters = np.array([rock.diameter for rock in scene.world.rocks])
    u, v, depth = camera.project(positions).T
    width, height = camera.size
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 0)
    return diameters[inside & (np.linalg.norm(positions - camera.position, axis=1) <= NEAR)]


def _views(
    scene: Scene,
    rendering: Rendering,
    stereo: StereoCamera,
    rng: Generator,
    rocks: Sequence[Rock],
) -> dict[str, View]:
    """Returns the views with the data that are evaluated: depth, level ground or fitted ground."""
    height, width = rendering.depth.shape
    intrinsics = Intrinsics(rendering.intrinsics, np.zeros(0), size=(width, height))
    up = rendering.pose[2, :3]
    depth = stereo.simulate(rendering.depth, rendering.intrinsics[0, 0], rng)
    level = Plane(up, camera_height(scene, scene.cameras[0]))
    near = np.where(rendering.depth < stereo.farthest, rendering.depth, np.float32(np.nan))
    return {
        'depth': View(intrinsics, depth),
        'level ground': View(intrinsics, ground=level),
        'fitted ground': View(intrinsics, ground=fit_ground(rocks, View(intrinsics, near))),
    }


def draw_locations(
    image: NDArray[np.uint8], rocks: Sequence[Rock], locations: Sequence[Location]
) -> NDArray[np.uint8]:
    """Draws an overlay with distance and diameter of each rock in m.

    Args:
        image: H×W×3 uint8 RGB.
        rocks: The rocks in the image.
        locations: The measurements of the rocks.
    """
    mask = np.where(draw_instances(rocks, image.shape[:2]) > 0, np.uint8(255), np.uint8(0))
    drawn: Any = cv2.resize(draw_overlay(image, mask, [], 0.3), None, fx=2, fy=2)
    for rock, location in zip(rocks, locations, strict=True):
        for line, text in enumerate((f'{location.distance:.2f}', f'd {location.diameter:.2f}')):
            at = int(2 * rock.centroid[0] - 16), int(2 * rock.centroid[1] + 12 * line)
            for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, thick)
    return drawn


def report(measurement: Measurement) -> dict[str, Any]:
    """Returns all metrics as a JSON object."""
    cases = {
        f'{given}, {origin}': {
            'all': figures(errors),
            'near': figures([each for each in errors if each.range < NEAR]),
        }
        for (given, origin), errors in measurement.errors.items()
    }
    abundance = {}
    for origin, observations in measurement.observations.items():
        found = [compute_abundance(each).k for each in observations]
        ratios = [k / true for k, true in zip(found, measurement.abundances, strict=True)]
        abundance[origin] = {
            'ratio': _median(ratios),
            'scenes': int(np.isfinite(ratios).sum()),
            'together': compute_abundance(combine(observations)).to_dict(),
        }
    return {'scenes': len(measurement.abundances), 'cases': cases, 'abundance': abundance}
