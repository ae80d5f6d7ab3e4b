# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the measurements of rocks against exact ground truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.geometry.location import Location
from rock_seg_ros.perception.inference.segmentation import Segmentation
from training.evaluate_geometry import lines, main
from training.geometry_evaluation import (
    RockErrors,
    figures,
    ground_truth,
    measure,
    report,
    rock_errors,
)
from training.stereo_camera import StereoCamera
from training.synthetic.rendering import ROCK, Rendering

FOCAL = 300.0
SHAPE = (120, 160)
DEPTH = np.full(SHAPE, 4.0, np.float32)
MATRIX = np.array([[FOCAL, 0, 79.5], [0, FOCAL, 59.5], [0, 0, 1]])
# The camera points straight down from 4 m.
DOWN = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def rendering_of_a_box() -> Rendering:
    """Renders a box of 20×30 px from above, with its top at 3.9 m and the ground at 4 m."""
    instances = np.zeros(SHAPE, np.uint16)
    instances[40:70, 60:80] = 1
    box = instances > 0
    return Rendering(
        np.zeros((*SHAPE, 3), np.uint8),
        np.where(box, np.uint8(ROCK), np.uint8(0)),
        instances,
        np.where(box, np.float32(3.9), DEPTH),
        DOWN,
        MATRIX,
    )


def scene_of_a_rock(diameter: float) -> Any:
    return SimpleNamespace(world=SimpleNamespace(rocks=[SimpleNamespace(diameter=diameter)]))


@pytest.mark.parametrize('z', [2.0, 4.0])
def test_stereo_noise_grows_with_the_square_of_the_distance(z: float) -> None:
    camera = StereoCamera(baseline=0.1, noise=0.15, window=1, holes=0.0)
    seen = camera.simulate(np.full(SHAPE, z, np.float32), FOCAL, rng())
    expected = z**2 * 0.15 / (FOCAL * 0.1)
    assert np.nanstd(seen) == pytest.approx(expected, rel=0.1)
    assert np.nanmedian(seen) == pytest.approx(z, rel=0.01)


def test_stereo_depth_is_in_millimetres_and_has_the_given_share_of_holes() -> None:
    seen = StereoCamera(holes=0.2).simulate(DEPTH, FOCAL, rng())
    assert np.isnan(seen).mean() == pytest.approx(0.2, abs=0.03)
    millimetres = 1000 * seen[np.isfinite(seen)].astype(np.float64)
    assert millimetres == pytest.approx(np.rint(millimetres), abs=1e-3)


def test_stereo_depth_is_unknown_in_occlusions_far_away_and_without_surface() -> None:
    camera = StereoCamera(noise=0.0, window=1, holes=0.0, farthest=10)
    depth = DEPTH.copy()
    depth[:, 80:100] = 1.0  # a disparity of 30 px in front of 7.5 px
    depth[:10] = 12
    depth[10:20] = np.nan
    seen = camera.simulate(depth, FOCAL, rng())
    assert np.isnan(seen[:20]).all()
    assert np.isnan(seen[20:, 59:79]).all()
    assert np.isfinite(seen[20:, 20:57]).all()
    assert np.isfinite(seen[20:, 80:]).all()


def test_the_ground_truth_of_a_box_has_the_expected_values() -> None:
    (truth,) = ground_truth(scene_of_a_rock(0.35), rendering_of_a_box(), min_area=50)
    middle = (np.array([69.5, 54.5]) - MATRIX[:2, 2]) * 3.9 / FOCAL
    assert truth.position == pytest.approx((*middle, 3.9))
    assert truth.diameter == pytest.approx(2 * np.sqrt(20 * 30 * (3.9 / FOCAL) ** 2 / np.pi))
    assert truth.height == pytest.approx(0.1)
    assert truth.body == 0.35
    assert not ground_truth(scene_of_a_rock(0.35), rendering_of_a_box(), min_area=601)


def test_a_partly_visible_rock_has_no_true_diameter_of_the_whole_rock() -> None:
    complete = rendering_of_a_box()
    names = ('classes', 'instances')
    clipped = {name: np.roll(getattr(complete, name), 80, axis=1) for name in names}
    moved = replace(complete, depth=np.roll(complete.depth, 80, axis=1), **clipped)
    (truth,) = ground_truth(scene_of_a_rock(0.35), moved, min_area=50)
    assert np.isnan(truth.body)
    instances, depth = complete.instances.copy(), complete.depth.copy()
    instances[40:70, 80:90] = 2
    depth[40:70, 80:90] = 2.5
    (truth,) = ground_truth(
        scene_of_a_rock(0.35), replace(complete, instances=instances, depth=depth), 50
    )
    assert np.isnan(truth.body)


def test_errors_are_relative_to_range_and_true_size() -> None:
    (truth,) = ground_truth(scene_of_a_rock(0.5), rendering_of_a_box(), min_area=50)
    x, y, z = truth.position.tolist()
    location = Location((x, y, z + 0.03), (1, 1, 1), 1.1 * truth.diameter, 0.08, 4)
    found = rock_errors(7, truth, location)
    assert found.image == 7
    assert found.position == pytest.approx(0.03 / found.range)
    assert found.diameter == pytest.approx(0.1)
    assert found.height == pytest.approx(-0.02, abs=1e-6)
    assert found.body == pytest.approx(1.1 * truth.diameter / 0.5)


def test_metrics_are_medians_over_the_rocks_with_measurements() -> None:
    errors = [RockErrors(n % 4, 2.0, 0.01 * n, -0.02 * n, 0.1, 0.8) for n in range(1, 6)]
    unmeasured = RockErrors(0, 2.0, np.nan, np.nan, np.nan, np.nan)
    result = figures([*errors, unmeasured])
    assert result['rocks'] == 6
    assert result['located'] == pytest.approx(5 / 6)
    assert result['position'] == pytest.approx(3)
    assert result['diameter'] == pytest.approx(6)
    assert result['diameter_bias'] == pytest.approx(-6)
    low, high = result['intervals']['position']
    assert 1 <= low < 3 < high <= 5
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_metrics_without_measurements_are_none() -> None:
    for errors in ([], [RockErrors(0, 2.0, np.nan, np.nan, np.nan, np.nan)]):
        result = figures(errors)
        assert result['position'] is None
        assert result['intervals']['position'] is None
    blind: Any = SimpleNamespace(
        segment=lambda image: Segmentation(
            np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8), (1,)
        )
    )
    result = report(measure([(5, 0, 'mars')], SHAPE[::-1], StereoCamera(), blind))
    assert result['cases']['depth, network']['all']['rocks'] == 0
    assert all(lines(result))


def test_the_command_reports_small_errors_and_draws_overlays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--scenes', '1', '--looks', 'quarry', '--size', '160', '120', '--seed', '3']
    assert main([*options, '--exact-only', '--json', '--overlays', str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    found = result['cases']['depth, exact']['all']
    assert found['rocks'] > 0
    assert found['position'] < 1
    assert found['diameter'] < 3
    assert set(result['abundance']) == {'exact', 'bodies'}
    assert cv2.imread(str(tmp_path / 'quarry_00_exact.png')).shape == (240, 320, 3)


def test_missing_weights_are_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--weights', 'nowhere.safetensors']) == 1
    assert capsys.readouterr().err.startswith('training.evaluate_geometry: ')
