# SPDX-License-Identifier: Apache-2.0
"""labelme's files: shapes become classes and rocks; every fault is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from training.sources import IGNORE, DataError, Labelled, Sample

Finder = Callable[..., list[Sample]]
Writer = Callable[..., Path]
SQUARE = (slice(1, 5), slice(2, 6))


def read(find: Finder, **settings: Any) -> Labelled:
    (sample,) = find('labelme', **settings)
    return sample.read()


def test_a_polygon_covers_the_pixels_within_it(find: Finder, write_labelme: Writer) -> None:
    write_labelme({})
    labelled = read(find)
    expected = np.zeros((10, 12), np.uint8)
    expected[SQUARE] = 1
    assert (labelled.classes == expected).all()
    assert labelled.instances is not None
    assert (labelled.instances == expected).all()


@pytest.mark.parametrize(
    'points', [[[6, 5], [2, 1]], [[2, 1], [6, 1], [6, 5], [2, 5]]], ids=['corners', 'four']
)
def test_a_rectangle_may_be_drawn_from_any_corner(
    find: Finder, write_labelme: Writer, points: list[list[int]]
) -> None:
    write_labelme({'shape_type': 'rectangle', 'points': points})
    classes = read(find).classes
    assert (classes.sum(), classes[SQUARE].sum()) == (16, 16)


def test_a_circle_is_a_centre_and_a_point_on_it(
    find: Finder, write_labelme: Writer, tmp_path: Path
) -> None:
    write_labelme(
        {'shape_type': 'circle', 'points': [[50, 40], [50, 70]]}, imageWidth=None, imageHeight=None
    )
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((80, 100, 3), np.uint8))
    rows, columns = np.nonzero(read(find).classes)
    assert len(rows) == pytest.approx(np.pi * 30**2, rel=0.01)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((50, 40), abs=0.2)


def test_files_of_old_versions_without_shape_type_are_polygons(
    find: Finder, write_labelme: Writer
) -> None:
    write_labelme({'shape_type': None})
    assert read(find).classes.sum() == 16


def test_shapes_of_one_group_are_one_rock(find: Finder, write_labelme: Writer) -> None:
    other = [[8, 6], [11, 6], [11, 9], [8, 9]]
    for group, expected in ((None, 2), (5, 1)):
        write_labelme({'group_id': group}, {'group_id': group, 'points': other})
        instances = read(find).instances
        assert instances is not None
        assert (instances[2, 3], instances[7, 9]) == (1, expected)


def test_an_ignored_label_is_ignored_and_numbered(find: Finder, write_labelme: Writer) -> None:
    write_labelme({'label': 'clod'})
    labelled = read(find, class_map={'clod': 'ignore'})
    assert labelled.instances is not None
    assert labelled.classes[2, 3] == IGNORE
    assert labelled.instances[2, 3] == 1


def test_pictures_may_lie_elsewhere_and_paths_be_of_windows(
    find: Finder, write_labelme: Writer, tmp_path: Path
) -> None:
    file = write_labelme({}, imagePath='..\\pictures\\a.png')
    for name, target in (('labels', file), ('pictures', tmp_path / 'a.png')):
        (tmp_path / name).mkdir()
        target.rename(tmp_path / name / target.name)
    (sample,) = find('labelme')
    assert sample.name == 'labels_a'
    assert sample.read().classes.sum() == 16
    assert find('labelme', path='labels')[0].name == 'a'


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ({'points': [[1, 1], [2, 2]]}, 'has a polygon of 2 points; 3 are the least'),
        ({'shape_type': 'line'}, 'is a line; legal is polygon, rectangle, circle'),
        ({'shape_type': 'circle'}, 'is a circle of 4 points; it has 2'),
        ({'shape_type': 'circle', 'points': [[1], [2]]}, 'needs a label and points of x and y'),
        ({'points': None}, 'has a polygon of'),
        ({'shape_type': 'rectangle', 'points': [[1, 1], [5, 1]]}, 'has no area'),
        ({'label': 'stone'}, "has the label 'stone'; the class map knows background, rock"),
        ({'points': [[30, 30], [40, 30], [40, 40]]}, 'lies outside its picture'),
    ],
)
def test_a_bad_shape_is_named_with_its_reason(
    find: Finder, write_labelme: Writer, shape: dict[str, Any], message: str
) -> None:
    write_labelme({}, shape)
    with pytest.raises(DataError, match=rf'a\.json: shape 2 {message}'):
        read(find)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'a.json: is no JSON'),
        ('[]', 'a.json: is no labelme file; it needs imagePath and shapes'),
        ('{"imagePath": "a.png"}', 'a.json: is no labelme file'),
        ('{"imagePath": "a.png", "shapes": [7]}', 'a.json: shape 1 needs a label'),
        ('{"imagePath": "b.png", "shapes": []}', 'b.png: no such file'),
    ],
)
def test_a_broken_file_is_named_and_the_others_are_found(
    find: Finder, write_labelme: Writer, tmp_path: Path, text: str, message: str
) -> None:
    whole = write_labelme({})
    whole.rename(tmp_path / 'whole.json')
    (tmp_path / 'a.json').write_text(text)
    broken, fine = find('labelme')
    assert fine.read().classes.sum() == 16
    with pytest.raises(DataError, match=message):
        broken.read()


def test_a_picture_of_another_size_than_told_is_named(find: Finder, write_labelme: Writer) -> None:
    write_labelme({}, imageWidth=10, imageHeight=12)
    with pytest.raises(DataError, match=r'a\.json: a is 10×12, its picture 12×10'):
        read(find)


def test_a_folder_without_files_is_named(find: Finder) -> None:
    with pytest.raises(DataError, match='no folder with JSON files'):
        find('labelme')
