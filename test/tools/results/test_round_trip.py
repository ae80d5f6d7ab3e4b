# SPDX-License-Identifier: Apache-2.0
"""The data sets of the training read the exported rocks without a difference."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from rock_seg_ros.tools.results.outlines import outline
from training.datasets import DatasetConfig, find_samples


def check_rocks(samples, scene):
    """Checks that the samples are a, b and empty, with the rocks of the scene."""
    named = {sample.image.stem: sample for sample in samples}
    assert sorted(named) == ['a', 'b', 'empty']
    assert [sample.faults for sample in samples] == [()] * 3
    expected = (scene[..., 0] > 127).astype(np.uint8)
    for name in ('a', 'b'):
        labelled = named[name].read()
        np.testing.assert_array_equal(labelled.image[..., 0], scene[..., 0])
        np.testing.assert_array_equal(labelled.classes, expected)
        assert len(np.unique(labelled.instances)) == 3, 'background and two rocks'
    assert not named['empty'].read().classes.any()


def find(path, kind, **settings):
    return find_samples(DatasetConfig(str(path), kind, **settings), 'all', ('background', 'rock'))


def test_an_exported_coco_file_is_read_for_training_pixel_for_pixel(
    find_rocks, folder, tmp_path, scene
):
    assert find_rocks('--coco', tmp_path / 'rocks.json') == 0
    check_rocks(find(tmp_path / 'rocks.json', 'coco'), scene)


def test_a_coco_file_in_another_folder_is_read_with_the_setting_images(
    find_rocks, folder, tmp_path, scene
):
    assert find_rocks('--coco', tmp_path / 'apart/rocks.json') == 0
    check_rocks(find(tmp_path / 'apart/rocks.json', 'coco', images=str(folder)), scene)


def test_exported_labelme_files_are_read_for_training_pixel_for_pixel(find_rocks, folder, scene):
    assert find_rocks('--labelme', folder) == 0
    check_rocks(find(folder, 'labelme'), scene)


def test_labelme_files_in_another_folder_are_read_with_the_setting_images(
    find_rocks, folder, tmp_path, scene
):
    assert find_rocks('--labelme', tmp_path / 'labels') == 0
    data = json.loads((tmp_path / 'labels/a.json').read_text())
    assert data['imagePath'] == '../in/a.png', 'which labelme itself follows'
    check_rocks(find(tmp_path / 'labels', 'labelme', images=str(folder)), scene)


def test_labelme_files_in_a_linked_folder_name_images_that_exist(find_rocks, tmp_path):
    (tmp_path / 'disk/deep').mkdir(parents=True)
    (tmp_path / 'labels').symlink_to(tmp_path / 'disk/deep')
    assert find_rocks('--labelme', tmp_path / 'labels') == 0
    data = json.loads((tmp_path / 'labels/a.json').read_text())
    assert (tmp_path / 'labels' / data['imagePath']).exists()


def test_a_corrected_label_is_read_as_it_was_corrected(find_rocks, folder, tmp_path):
    assert find_rocks('--labelme', folder) == 0
    data = json.loads((folder / 'a.json').read_text())
    del data['shapes'][1]  # a false positive
    data['shapes'][0]['points'] = [[2, 2], [12, 2], [12, 12], [2, 12]]
    (folder / 'a.json').write_text(json.dumps(data))
    (sample,) = (sample for sample in find(folder, 'labelme') if sample.name == 'a')
    expected = np.zeros((48, 64), np.uint8)
    expected[2:12, 2:12] = 1
    np.testing.assert_array_equal(sample.read().classes, expected)


def test_a_coco_annotation_has_bbox_area_score_and_sizes(find_rocks, tmp_path):
    assert find_rocks('--coco', tmp_path / 'rocks.json', '--mm-per-px', 2) == 0
    data = json.loads((tmp_path / 'rocks.json').read_text())
    assert data['categories'] == [{'id': 1, 'name': 'rock'}]
    assert [image['file_name'] for image in data['images']] == [
        'in/a.png', 'in/b.png', 'in/empty.png',
    ]  # fmt: skip
    assert [entry['id'] for entry in data['annotations']] == [1, 2, 3, 4]
    first = data['annotations'][0]
    assert (first['image_id'], first['category_id'], first['iscrowd']) == (1, 1, 0)
    assert (first['bbox'], first['area']) == ([8, 4, 20, 10], 200)
    assert first['attributes']['diameter_mm'] == pytest.approx(31.9, abs=0.1)


@pytest.mark.parametrize('tolerance', [0.0, 1.0])
def test_the_outline_of_a_round_rock_covers_its_pixels(tolerance):
    mask = np.zeros((80, 80), np.uint8)
    cv2.ellipse(mask, (40, 40), (30, 18), 25, 0, 360, 1, -1)
    contour = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
    polygon = cv2.approxPolyDP(contour, tolerance, True)[:, 0]
    if cv2.contourArea(polygon, True) < 0:
        polygon = polygon[::-1]
    grown = np.array(outline(polygon))
    covered = cv2.contourArea(grown.astype(np.float32))
    assert covered == pytest.approx(mask.sum(), rel=0.03)


def test_a_sharp_corner_of_a_polygon_is_not_extended_far():
    points = outline([[0, 0], [40, 0.5], [0, 1]])
    assert max(x for x, _ in points) < 43
