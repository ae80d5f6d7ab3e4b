# SPDX-License-Identifier: Apache-2.0
"""Measures how well rocks are measured, in metres, on synthetic scenes with exact truth.

The truth is summed pixel by pixel from the renderer's own instances and depth. What is measured
sees the depth that a stereo camera would give, or none but the ground, and exact masks or those of
a network.
"""

from __future__ import annotations

import argparse
import json
import sys
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

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.geometry.abundance import (
    Observation,
    combine,
    compute_abundance,
    observe,
)
from rock_seg_ros.perception.geometry.ground import fit_ground
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.location import Place, locate
from rock_seg_ros.perception.geometry.view import Plane, View
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmentation, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.overlay import draw_overlay
from training.matching import MATCH_IOU
from training.metrics import CERTAINTY, RESAMPLES
from training.synthetic.camera import Camera
from training.synthetic.render import ROCK, Rendering
from training.synthetic.scene import Scene, make_scene
from training.synthetic.scene_kinds import SCENE_KINDS
from training.writing import write_image

NEAR = 5.0  # m; of rocks no farther away the figures are told apart, and the abundance
LABELLED = 154  # px, of the disc from which on the renderer calls a rock one
SEEN_FROM_ABOVE = np.radians(20)  # field of view of the image that tells the camera's height


@dataclass(frozen=True)
class StereoCamera:
    """What a stereo camera makes of exact depth.

    Attributes:
        baseline: m.
        noise: Standard deviation of the disparity, px.
        smoothness: Standard deviation of the noise's own blur, px: a matcher's windows overlap.
        window: Side of the window that mixes disparities at edges, px.
        holes: Share of the pixels that are lost for no reason, in blots.
        farthest: m; farther away is nothing.
    """

    baseline: float = 0.1
    noise: float = 0.15
    smoothness: float = 1.5
    window: int = 3
    holes: float = 0.05
    farthest: float = 20.0

    def sees(self, depth: NDArray[np.float32], focal: float, rng: Generator) -> NDArray[np.float32]:
        """Returns H×W depth in whole mm as m, NaN where unknown or hidden from the second lens.

        Args:
            depth: H×W, exact, m; NaN = nothing there.
            focal: Focal length, px.
            rng: Of noise and holes.
        """
        exact = np.where(np.isnan(depth), 0, self.baseline * focal / depth)
        column = np.arange(depth.shape[1]) - exact
        leftmost = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
        hidden = np.zeros(depth.shape, bool)
        hidden[:, :-1] = column[:, :-1] > leftmost[:, 1:]
        noise = self._blurred(rng, depth.shape, self.smoothness)
        seen = cv2.blur(exact, (self.window, self.window)) + self.noise * noise
        blots = self._blurred(rng, depth.shape, 4.0)
        lost = hidden | np.isnan(depth) | (blots < np.quantile(blots, self.holes))
        z = self.baseline * focal / np.maximum(seen, 1e-6)
        z[lost | (z > self.farthest)] = np.nan
        return (np.rint(z * 1000) / 1000).astype(np.float32)

    def _blurred(self, rng: Generator, shape: tuple[int, ...], blur: float) -> NDArray[Any]:
        """Returns blurred noise of standard deviation 1."""
        noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), blur)
        return noise / noise.std()


@dataclass(frozen=True)
class Truth:
    """What is true of one rock.

    Attributes:
        rock: Its visible part, as `find_rocks` tells it.
        position: Mean of its visible surface's points in the optical frame, m.
        diameter: Of the disc of the area of its silhouette, m.
        height: Of the highest point of it that is seen above the ground about it, m.
        body: Its body's greatest horizontal diameter, m; NaN where not all of it is in sight.
    """

    rock: Rock
    position: NDArray[np.float64]
    diameter: float
    height: float
    body: float


def truths(scene: Scene, rendering: Rendering, least: int) -> list[Truth]:
    """Sums up what is true of each rock of at least so many pixels.

    Args:
        scene: That the image is of.
        rendering: With exact depth.
        least: Smallest area, px.
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
        rock = _as_rock(numbers == number, least)
        if rock is None:
            continue
        of = draw_instances([rock], (height, width)) > 0
        z = rendering.depth[of].astype(np.float64)
        focal = rendering.intrinsics[0, 0] * rendering.intrinsics[1, 1]
        found.append(
            Truth(
                rock,
                points[of].mean(axis=0),
                float(2 * np.sqrt((z**2).sum() / focal / np.pi)),
                float(level[of].max() - _foot(points, up, of, ground)),
                scene.world.rocks[number - 1].diameter if _whole(rock, of, rendering) else np.nan,
            )
        )
    return found


def _as_rock(mask: NDArray[np.bool_], least: int) -> Rock | None:
    """Returns the largest connected part of a mask as a rock."""
    ids = mask.astype(np.uint8)
    settings = RockSettings(min_area=least, max_rocks=1, split_touching=False)
    found = find_rocks(Segmentation(ids, np.full_like(ids, 255), (1,)), settings)
    return found[0] if found else None


def _foot(
    points: NDArray[np.float64],
    up: NDArray[np.float64],
    of: NDArray[np.bool_],
    ground: NDArray[np.bool_],
) -> float:
    """Returns how high the ground about a rock is: the median of what is seen within its radius."""
    own = points[of]
    middle = own.mean(axis=0)
    reach = 1.5 * np.linalg.norm(own - middle, axis=1).max()
    there = points[ground]
    near = np.linalg.norm(there - middle, axis=1) < reach
    return float(np.median(there[near] @ up)) if near.any() else np.nan


def _whole(rock: Rock, of: NDArray[np.bool_], rendering: Rendering) -> bool:
    """Tells whether nothing hides a rock: no nearer rock beside it, nor the image's border."""
    x, y, width, height = rock.box
    if x == 0 or y == 0 or x + width == of.shape[1] or y + height == of.shape[0]:
        return False
    beside = cv2.dilate(of.view(np.uint8), np.ones((3, 3), np.uint8)) > of
    other = beside & (rendering.instances > 0)
    return not (rendering.depth[other] < np.median(rendering.depth[of])).any()


@dataclass(frozen=True)
class Error:
    """By how much a rock's place is wrong; NaN where it has none.

    Attributes:
        image: That it is in.
        range: Its true distance from the camera, m.
        position: Distance of the place from the true one, share of the range.
        diameter: Share of the true one, above 0 where too large.
        height: m, above 0 where too high.
        body: Diameter as measured, of the body's own greatest one.
    """

    image: int
    range: float
    position: float
    diameter: float
    height: float
    body: float


def error(image: int, truth: Truth, place: Place) -> Error:
    """Compares a place with the truth."""
    away = float(np.linalg.norm(truth.position))
    return Error(
        image,
        away,
        float(np.linalg.norm(place.position - truth.position)) / away,
        place.diameter / truth.diameter - 1,
        place.height - truth.height,
        place.diameter / truth.body,
    )


def figures(errors: Sequence[Error]) -> dict[str, Any]:
    """Returns medians and their 95 % intervals (bootstrap over images) as JSON can hold them.

    Returns:
        rocks: How many there are.
        located: Share of them that has metres.
        position, diameter: Median size of the error, %.
        diameter_bias: Median error, %.
        height: Median size of the error, m.
        body: Median of the measured diameter over the body's own.
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
    """Returns between which the median lies when other images are drawn."""
    groups = [values[images == number] for number in np.unique(images)]
    if len(groups) < 2:
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    medians = [_median(np.concatenate([groups[number] for number in draw])) for draw in draws]
    tail = (1 - CERTAINTY) / 2
    told = np.array([median for median in medians if median is not None])
    return np.quantile(told, [tail, 1 - tail]).tolist() if len(told) else None


def _pairs(
    truth: Sequence[Truth], rocks: Sequence[Rock], shape: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yields the rows of true and found rocks with an IoU above 0.5, which is one to one."""
    found = draw_instances(rocks, shape)
    for row, each in enumerate(truth):
        own = found[draw_instances([each.rock], shape) > 0]
        both = np.bincount(own, minlength=len(rocks) + 1)[1:]
        if not both.any():
            continue
        best = int(both.argmax())
        if both[best] > MATCH_IOU * (each.rock.area + rocks[best].area - both[best]):
            yield row, best


def camera_height(scene: Scene, camera: Camera) -> float:
    """Returns how high the camera is above the ground below it, m; NaN where there is none."""
    x, y, z = camera.position.tolist()
    below = Camera.aimed((x, y, z), 0.0, np.pi / 2, SEEN_FROM_ABOVE, (16, 16))
    rendering = scene.render(below)
    ground = rendering.depth[(rendering.instances == 0) & np.isfinite(rendering.depth)]
    return float(np.median(ground)) if len(ground) else np.nan


@dataclass
class Measurement:
    """What is found on all scenes.

    Attributes:
        errors: By what was given and whose masks.
        seen: For the abundance, by whose masks, of each scene; 'bodies' are the rocks themselves,
            hidden ones too.
        abundances: k of each scene.
    """

    errors: dict[tuple[str, str], list[Error]]
    seen: dict[str, list[Observation]]
    abundances: list[float]


def measure(
    scenes: Sequence[tuple[int, int, str]],
    size: tuple[int, int],
    stereo: StereoCamera,
    segmenter: Segmenter | None,
    images: Path | None = None,
) -> Measurement:
    """Measures every scene once.

    Args:
        scenes: Seed, number and look of each.
        size: Width and height of the images, px.
        stereo: That gives depth.
        segmenter: Gives masks beside the exact ones; None = only these.
        images: Folder for an image of each scene with what was measured drawn on; None = none.
    """
    told = Measurement(defaultdict(list), defaultdict(list), [])
    for image, (seed, number, kind) in enumerate(tqdm(scenes, unit='scene')):
        scene = make_scene(seed, number, kind, size, images=1)
        rendering = scene.render(scene.cameras[0])
        truth = truths(scene, rendering, RockSettings.min_area)
        masks = {'exact': [each.rock for each in truth]}
        if segmenter is not None:
            masks['network'] = find_rocks(segmenter.segment(rendering.image), RockSettings())
        rng = np.random.default_rng([seed, number, 2])
        told.abundances.append(scene.appearance.abundance)
        views = _views(scene, rendering, stereo, rng, masks['exact'])
        for whose, rocks in masks.items():
            pairs = list(_pairs(truth, rocks, size[::-1]))
            for given, view in views.items():
                places = locate(rocks, view)
                told.errors[given, whose] += [
                    error(image, truth[row], places[found])
                    for row, found in pairs
                    if truth[row].position[2] < stereo.farthest
                ]
            places = locate(rocks, views['depth'])
            shown = observe(rocks, places, size[::-1], views['depth'], NEAR, LABELLED)
            told.seen[whose].append(shown)
            if images:
                name = f'{kind}_{number:02}_{whose}.png'
                write_image(images / name, draw_places(rendering.image, rocks, places))
        told.seen['bodies'].append(
            replace(told.seen['exact'][-1], diameters=_bodies(scene, scene.cameras[0]))
        )
    return told


def _bodies(scene: Scene, camera: Camera) -> NDArray[np.float64]:
    """Returns the diameters of the rocks that are near and in the image, hidden or not."""
    places = np.array([rock.position for rock in scene.world.rocks]).reshape(-1, 3)
    diameters = np.array([rock.diameter for rock in scene.world.rocks])
    u, v, depth = camera.project(places).T
    width, height = camera.size
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 0)
    return diameters[inside & (np.linalg.norm(places - camera.position, axis=1) <= NEAR)]


def _views(
    scene: Scene,
    rendering: Rendering,
    stereo: StereoCamera,
    rng: Generator,
    rocks: Sequence[Rock],
) -> dict[str, View]:
    """Returns what may be known of an image beside its pixels."""
    height, width = rendering.depth.shape
    intrinsics = Intrinsics(rendering.intrinsics, np.zeros(0), size=(width, height))
    up = rendering.pose[2, :3]
    depth = stereo.sees(rendering.depth, rendering.intrinsics[0, 0], rng)
    level = Plane(up, camera_height(scene, scene.cameras[0]))
    near = np.where(rendering.depth < stereo.farthest, rendering.depth, np.float32(np.nan))
    return {
        'depth': View(intrinsics, depth),
        'level ground': View(intrinsics, ground=level),
        'fitted ground': View(intrinsics, ground=fit_ground(rocks, View(intrinsics, near))),
    }


def draw_places(
    image: NDArray[np.uint8], rocks: Sequence[Rock], places: Sequence[Place]
) -> NDArray[np.uint8]:
    """Draws each rock with its distance and diameter in m.

    Args:
        image: H×W×3 uint8 RGB.
        rocks: In it.
        places: Of these rocks.
    """
    mask = np.where(draw_instances(rocks, image.shape[:2]) > 0, np.uint8(255), np.uint8(0))
    drawn: Any = cv2.resize(draw_overlay(image, mask, [], 0.3), None, fx=2, fy=2)
    for rock, place in zip(rocks, places, strict=True):
        for line, text in enumerate((f'{place.distance:.2f}', f'd {place.diameter:.2f}')):
            at = int(2 * rock.centroid[0] - 16), int(2 * rock.centroid[1] + 12 * line)
            for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, thick)
    return drawn


def report(told: Measurement) -> dict[str, Any]:
    """Returns all figures as JSON can hold them."""
    cases = {
        f'{given}, {whose}': {
            'all': figures(errors),
            'near': figures([each for each in errors if each.range < NEAR]),
        }
        for (given, whose), errors in told.errors.items()
    }
    abundance = {}
    for whose, seen in told.seen.items():
        found = [compute_abundance(each).k for each in seen]
        ratios = [k / true for k, true in zip(found, told.abundances, strict=True)]
        abundance[whose] = {
            'ratio': _median(ratios),
            'scenes': int(np.isfinite(ratios).sum()),
            'together': compute_abundance(combine(seen)).to_dict(),
        }
    return {'scenes': len(told.abundances), 'cases': cases, 'abundance': abundance}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Yields the figures for people."""
    for name, case in told['cases'].items():
        for which, case_figures in case.items():
            yield f'{name}, {which}: ' + _line(case_figures)
    for whose, found in told['abundance'].items():
        yield (
            f"k over the scene's own, {whose}: {_told(found['ratio'], '')} "
            f'({found["scenes"]} scenes), covered {_told(found["together"]["abundance"], "")}'
        )


def _line(values: dict[str, Any]) -> str:
    parts = [f'{values["rocks"]} rocks', f'located {_told(values["located"], "")}']
    parts.append(f'diameter biased by {_told(values["diameter_bias"], "%")}')
    for name, unit in (('position', '%'), ('diameter', '%'), ('height', 'm')):
        between = values['intervals'][name]
        spread = f' ({between[0]:.3g} to {between[1]:.3g})' if between else ''
        parts.append(f'{name} {_told(values[name], unit)}{spread}')
    return ', '.join(parts)


def _told(value: float | None, unit: str) -> str:
    return '-' if value is None else f'{value:.3g} {unit}'.rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m training.evaluate_geometry', description=__doc__
    )
    parser.add_argument(
        '--kinds', '--looks', nargs='+', choices=SCENE_KINDS, default=['mars', 'quarry']
    )
    parser.add_argument('--scenes', type=int, default=10, help='of each kind')
    parser.add_argument('--seed', type=int, default=991, help='of the scenes')
    parser.add_argument('--size', type=int, nargs=2, default=(640, 480), help='px')
    parser.add_argument('--baseline', type=float, default=StereoCamera.baseline, help='m')
    parser.add_argument(
        '--noise', type=float, default=StereoCamera.noise, help='of the disparity, px'
    )
    parser.add_argument('--weights', default='', help='weights file (default: the embedded)')
    parser.add_argument('--exact-only', action='store_true', help='exact masks, no network')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--overlays', type=Path, help='folder for images with metres drawn on')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    scenes = [(given.seed, number, kind) for kind in given.kinds for number in range(given.scenes)]
    stereo = StereoCamera(given.baseline, given.noise)
    try:
        segmenter = (
            None
            if given.exact_only
            else Segmenter(load_weights(given.weights, given.device), given.device)
        )
        told = report(measure(scenes, tuple(given.size), stereo, segmenter, given.overlays))
    except (DeviceError, WeightsError, ValueError, OSError) as problem:
        print(f'training.evaluate_geometry: {all_lines(problem)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(told) if given.json else '\n'.join(lines(told)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
