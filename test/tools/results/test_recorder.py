# SPDX-License-Identifier: Apache-2.0
"""The record of an image: settings and sizes in mm."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.geometry.scale import tag_families
from rock_seg_ros.perception.inference.weights_file import embedded_path

TAG = 'apriltag_36h11:30'


def record(tmp_path, name='a'):
    return json.loads((tmp_path / f'out/{name}.json').read_text())


def write_tagged(path, scene, *numbers):
    """Writes the scene, enlarged, with tags of 60 px below it."""
    image = cv2.copyMakeBorder(scene, 0, 120, 0, 200, cv2.BORDER_CONSTANT, value=(100,) * 3)
    dictionary = cv2.aruco.getPredefinedDictionary(tag_families()['apriltag_36h11'])
    for place, number in enumerate(numbers):
        tag = cv2.aruco.generateImageMarker(dictionary, number, 60)
        image[80:140, 40 + 100 * place : 100 + 100 * place] = np.dstack([tag] * 3) // 2 + 100
        image[80:140, 40 + 100 * place : 100 + 100 * place][tag == 0] = 0
    cv2.imwrite(str(path), image)


def test_a_record_has_weights_with_hash_version_and_settings(find_rocks, tmp_path):
    assert find_rocks('--weights', 'light', '--min-area', 60) == 0
    made_by = record(tmp_path)['made_by']
    digest = hashlib.sha256(embedded_path('light').read_bytes()).hexdigest()
    assert (made_by['weights'], made_by['weights_sha256']) == ('light.safetensors', digest)
    assert made_by['version']
    settings = made_by['settings']
    assert (settings['min_area'], settings['threshold']) == (60, 0.5)
    assert (settings['device'], settings['backend']) == ('cpu', 'torch')
    assert record(tmp_path, 'b')['made_by'] == made_by


def test_mm_per_px_gives_sizes_in_mm(find_rocks, tmp_path):
    assert find_rocks('--mm-per-px', 0.25) == 0
    found = record(tmp_path)
    assert found['scale'] == {'mm_per_px': 0.25, 'source': 'given'}
    rock = found['rocks'][0]
    for name in ('diameter', 'long_axis', 'short_axis'):
        assert rock[f'{name}_mm'] == pytest.approx(rock[name] / 4, rel=1e-3)


def test_two_points_give_sizes_in_mm(find_rocks, tmp_path):
    assert find_rocks('--scale-points', 10, 5, 40, 45, 100) == 0
    assert record(tmp_path)['scale']['mm_per_px'] == 2


def test_an_image_that_does_not_contain_the_points_of_the_scale_is_reported(
    find_rocks, tmp_path, messages
):
    assert find_rocks('--scale-points', 10, 10, 4000, 50, 100) == 1
    assert record(tmp_path)['scale']['mm_per_px'] is None
    assert any('the point 4000, 50 is outside of the image' in line for line in messages())


def test_each_image_has_the_scale_of_its_tag_and_images_without_a_tag_are_reported(
    find_rocks, folder, tmp_path, scene, messages
):
    write_tagged(folder / 'a.png', scene, 7)
    write_tagged(folder / 'b.png', scene, 7, 8)
    assert find_rocks('--scale-tag', TAG, '--table', tmp_path / 'rocks.csv') == 1
    assert record(tmp_path)['scale'] == {
        'mm_per_px': pytest.approx(0.5, rel=0.02),
        'source': 'tag 7 of apriltag_36h11, 30 mm',
    }
    problems = [
        '2 tags found (ids 7, 8); exactly one must be in view',
        'no tag of the family apriltag_36h11 found; sizes are in px only',
    ]
    assert messages() == [
        f'{folder}/{name}: {problem}'
        for name, problem in zip(('b.png', 'empty.png'), problems, strict=True)
    ]
    assert record(tmp_path, 'b')['scale'] == {'mm_per_px': None, 'problem': problems[0]}
    assert record(tmp_path, 'b')['rocks'][0]['diameter_mm'] is None
    rows = (tmp_path / 'rocks.csv').read_text()
    assert 'b.png' in rows, 'an image without a scale has its sizes in px'


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        (['--mm-per-px', 0], 'must be above 0, not 0'),
        (['--mm-per-px', 'inf'], 'must be above 0, not inf'),
        (['--scale-tag', 'tag36:50'], 'must be FAMILY:SIDE_MM, such as apriltag_36h11:50'),
        (['--scale-tag', 'apriltag_36h11'], 'must be FAMILY:SIDE_MM'),
        (['--scale-tag', '4x4_50:x'], 'the side must be a number of mm, not x'),
        (['--scale-tag', '4x4_50:-1'], 'must be above 0, not -1'),
        (['--scale-points', 1, 2, 1, 2, 50], '--scale-points: the two points are the same: 1, 2'),
        (['--scale-points', 1, 2, 3, 4, 0], '--scale-points: MM must be above 0'),
        (['--mm-per-px', 1, '--scale-tag', TAG], 'not allowed with argument --mm-per-px'),
    ],
)
def test_an_invalid_scale_is_rejected_before_any_image_is_processed(
    find_rocks, tmp_path, capsys, given, line
):
    assert find_rocks(*given) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_run_with_another_scale_is_not_resumed(find_rocks, messages):
    assert find_rocks('--mm-per-px', 1) == 0
    assert find_rocks('--mm-per-px', 2, '--resume') != 0
    assert any('mm_per_px' in line for line in messages())


def test_a_run_with_another_ignore_mask_of_the_same_name_is_not_resumed(
    find_rocks, messages, scene, tmp_path
):
    mask = tmp_path / 'mask.png'
    cv2.imwrite(str(mask), np.full(scene.shape[:2], 255, np.uint8))
    assert find_rocks('--resume', '--ignore-mask', mask) == 0
    assert find_rocks('--resume', '--ignore-mask', mask) == 0
    cv2.imwrite(str(mask), np.zeros(scene.shape[:2], np.uint8))
    messages()
    assert find_rocks('--resume', '--ignore-mask', mask) == 2
    assert 'ignore_mask_sha256' in messages()[-1]
