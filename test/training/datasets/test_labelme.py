# SPDX-License-Identifier: Apache-2.0
"""labelme files: shapes become classes and instances, and errors are reported."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from training.datasets import IGNORE, DataError, Labelled, Sample, fingerprint

Finder = Callable[..., list[Sample]]
Writer = Callable[..., Path]
SQUARE = (slice(1, 5), slice(2, 6))


def read(find: Finder, **settings: Any) -> Labelled:
    (sample,) = find('labelme', **settings)
    return sample.read()


def test_a_polygon_covers_only_the_pixels_inside_it(find: Finder, write_labelme: Writer) -> None:
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


def test_shapes_without_shape_type_are_polygons(find: Finder, write_labelme: Writer) -> None:
    write_labelme({'shape_type': None})
    assert read(find).classes.sum() == 16


def test_shapes_with_one_group_id_are_one_instance(find: Finder, write_labelme: Writer) -> None:
    other = [[8, 6], [11, 6], [11, 9], [8, 9]]
    for group, expected in ((None, 2), (5, 1)):
        write_labelme({'group_id': group}, {'group_id': group, 'points': other})
        instances = read(find).instances
        assert instances is not None
        assert (instances[2, 3], instances[7, 9]) == (1, expected)


def test_a_region_with_an_ignored_label_is_an_instance(find: Finder, write_labelme: Writer) -> None:
    write_labelme({'label': 'clod'})
    labelled = read(find, class_map={'clod': 'ignore'})
    assert labelled.instances is not None
    assert labelled.classes[2, 3] == IGNORE
    assert labelled.instances[2, 3] == 1


def test_images_may_be_in_another_folder_and_paths_may_have_backslashes(
    find: Finder, write_labelme: Writer, tmp_path: Path
) -> None:
    file = write_labelme({}, imagePath='..\\images\\a.png')
    for name, target in (('labels', file), ('images', tmp_path / 'a.png')):
        (tmp_path / name).mkdir()
        target.rename(tmp_path / name / target.name)
    (sample,) = find('labelme')
    assert sample.name == 'labels_a'
    assert sample.read().classes.sum() == 16
    assert find('labelme', path='labels')[0].name == 'a'


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ({'points': [[1, 1], [2, 2]]}, 'has a polygon of 2 points; the minimum is 3'),
        ({'shape_type': 'line'}, 'is a line; expected: polygon, rectangle, circle, mask'),
        ({'shape_type': 'circle'}, 'is a circle of 4 points; it must have 2'),
        ({'shape_type': 'circle', 'points': [[1], [2]]}, 'must have a label and points of x and y'),
        ({'points': None}, 'has a polygon of'),
        ({'points': [[1, 1, 0], [5, 1, 0]]}, 'has a polygon with a point that is not a pair'),
        ({'shape_type': 'rectangle', 'points': [[1, 1], [5, 1]]}, 'has no area'),
        ({'label': 'stone'}, "has the label 'stone'; expected: background, rock"),
        ({'points': [[30, 30], [40, 30], [40, 40]]}, 'is outside its image'),
    ],
)
def test_an_invalid_shape_is_reported_with_the_reason(
    find: Finder, write_labelme: Writer, shape: dict[str, Any], message: str
) -> None:
    write_labelme({}, shape)
    with pytest.raises(DataError, match=rf'a\.json: shape 2 {message}'):
        read(find)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'a.json: is not JSON'),
        ('[]', 'a.json: is not a labelme file; it must have imagePath and shapes'),
        ('{"imagePath": "a.png"}', 'a.json: is not a labelme file'),
        ('{"imagePath": "a.png", "shapes": [7]}', 'a.json: shape 1 must have a label'),
        ('{"imagePath": "b.png", "shapes": []}', 'b.png: no such file'),
    ],
)
def test_an_invalid_file_is_reported_and_the_others_are_read(
    find: Finder, write_labelme: Writer, tmp_path: Path, text: str, message: str
) -> None:
    valid = write_labelme({})
    valid.rename(tmp_path / 'valid.json')
    (tmp_path / 'a.json').write_text(text)
    invalid, fine = find('labelme')
    assert fine.read().classes.sum() == 16
    with pytest.raises(DataError, match=message):
        invalid.read()


def test_a_different_image_size_in_the_file_is_reported(
    find: Finder, write_labelme: Writer
) -> None:
    write_labelme({}, imageWidth=10, imageHeight=12)
    with pytest.raises(DataError, match=r'a\.json: a has the size 10×12, but its image 12×10'):
        read(find)


def test_a_folder_without_json_files_is_reported(find: Finder) -> None:
    with pytest.raises(DataError, match='must be a folder with JSON files'):
        find('labelme')


def coded(pixels: np.ndarray, suffix: str = '.png') -> str:
    return b64encode(cv2.imencode(suffix, pixels)[1].tobytes()).decode()


def mask_shape(*corners: list[float], **changes: Any) -> dict[str, Any]:
    """Returns a shape of labelme's AI mask tool: 3×2 px without the bottom right one."""
    mask = np.array([[255, 255, 255], [255, 255, 0]], np.uint8)
    return {'shape_type': 'mask', 'points': corners, 'mask': coded(mask), **changes}


def test_a_mask_shape_starts_at_the_corner_of_its_box(find: Finder, write_labelme: Writer) -> None:
    write_labelme({}, mask_shape([7.9, 6.2], [9, 7]))
    labelled = read(find)
    assert labelled.instances is not None
    assert labelled.instances[6:8, 6:11].tolist() == [[0, 2, 2, 2, 0], [0, 2, 2, 0, 0]]
    assert (labelled.instances == 2).sum() == 5
    assert (labelled.classes == 1).sum() == 16 + 5


def test_a_mask_with_one_bit_per_pixel_is_read(find: Finder, write_labelme: Writer) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[True, True, True], [True, True, False]])).save(file, 'PNG')
    write_labelme(mask_shape([7, 6], [9, 7], mask=b64encode(file.getvalue()).decode()))
    assert read(find).classes.sum() == 5


def test_a_mask_shape_is_clipped_to_the_image(find: Finder, write_labelme: Writer) -> None:
    write_labelme(mask_shape([10, 9], [12, 10]), mask_shape([-1, -1], [1, 0]))
    instances = read(find).instances
    assert instances is not None
    assert instances[9].tolist() == [0] * 10 + [1, 1]
    assert instances[0].tolist() == [2] + [0] * 11
    assert np.count_nonzero(instances) == 3


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        (mask_shape([7, 6], [10, 7]), 'has a mask of 3×2 px in a box of 4×2'),
        (mask_shape([7, 6], [9, 7], mask=None), 'has a mask that cannot be read: does not decode'),
        (mask_shape([7, 6], [9, 7], mask='AAAA'), 'has a mask that cannot be read: does not dec'),
        (
            mask_shape([7, 6], [9, 7], mask='A'),
            "has a mask that cannot be read: must be base64, not 'A'",
        ),
        (
            mask_shape([7, 6], [9, 7], mask=7),
            'has a mask that cannot be read: must be base64, not 7',
        ),
        (mask_shape([7, 6]), 'must have a label and points of x and y'),
        (mask_shape([7, float('nan')], [9, 7]), 'must have a label and points of x and y'),
        (mask_shape([7, float('inf')], [9, 7]), 'must have a label and points of x and y'),
        (mask_shape([70, 6], [72, 7]), 'is outside its image, which is 12×10'),
        (
            mask_shape([7, 6], [9, 7], mask=coded(np.zeros((2, 3), np.uint8))),
            'has no area',
        ),
        (
            mask_shape([7, 6], [9, 7], mask=coded(np.zeros((2, 3, 3), np.uint8))),
            'has a mask that cannot be read: a label image must have 1 channel, not 3',
        ),
    ],
)
def test_an_invalid_mask_is_reported_with_the_reason(
    find: Finder, write_labelme: Writer, shape: dict[str, Any], message: str
) -> None:
    write_labelme({}, shape)
    with pytest.raises(DataError, match=rf'a\.json: shape 2 {message}'):
        read(find)


@pytest.mark.parametrize('kind', ['point', 'points', 'line', 'linestrip'])
def test_a_line_is_skipped_if_its_label_is_ignored_and_else_an_error(
    find: Finder, write_labelme: Writer, kind: str
) -> None:
    line = {'shape_type': kind, 'label': 'horizon', 'points': [[1, 1], [9, 1]]}
    write_labelme(line, {})
    labelled = read(find, class_map={'rock': 'rock', 'horizon': 'ignore'})
    assert labelled.instances is not None
    assert (labelled.instances.max(), labelled.classes.sum()) == (1, 16)
    for meaning in ({'horizon': 'background'}, {'horizon': 'rock'}):
        with pytest.raises(DataError, match=rf'shape 1 is a {kind}; expected: polygon'):
            read(find, class_map={'rock': 'rock', **meaning})
    with pytest.raises(DataError, match="shape 1 has the label 'horizon'; expected:"):
        read(find)


@pytest.mark.parametrize(
    ('kind', 'points'),
    [
        ('polygon', []),
        ('polygon', [[1, 1], [2, 2]]),
        ('polygon', [[1, 1], [1, 3], [1, 5]]),
        ('rectangle', [[1, 1]]),
        ('rectangle', [[1, 1], [1, 1]]),
        ('circle', [[1, 1], [1, 1]]),
    ],
)
def test_a_shape_without_area_is_skipped_if_its_label_is_ignored_and_else_an_error(
    find: Finder, write_labelme: Writer, kind: str, points: list[list[int]]
) -> None:
    write_labelme({}, {'label': 'slip', 'shape_type': kind, 'points': points})
    classes = read(find, class_map={'rock': 'rock', 'slip': 'ignore'}).classes
    assert ((classes == 1).sum(), (classes == IGNORE).sum()) == (16, 0)
    with pytest.raises(DataError, match='shape 2'):
        read(find, class_map={'rock': 'rock', 'slip': 'rock'})


@pytest.mark.parametrize('kind', ['oriented_rectangle', 'rotation'])
def test_a_rotated_rectangle_is_the_polygon_of_its_corners(
    find: Finder, write_labelme: Writer, kind: str
) -> None:
    write_labelme({'shape_type': kind})
    assert read(find).classes.sum() == 16


@pytest.mark.parametrize('name', [None, '', 'a.png', '../../a.png', 'C:\\photos\\a.png'])
def test_an_embedded_image_is_used_if_there_is_no_image_file(
    find: Finder, write_labelme: Writer, tmp_path: Path, name: str
) -> None:
    image = np.zeros((10, 12, 3), np.uint8)
    image[..., 0] = 200  # OpenCV writes BGR
    file = write_labelme({}, imageData=coded(image), imagePath=name)
    (tmp_path / 'a.png').unlink()
    (sample,) = find('labelme')
    labelled = sample.read()
    assert labelled.image[0, 0].tolist() == [0, 0, 200]
    assert labelled.classes.sum() == 16
    assert fingerprint([sample])
    assert [sample.image, *sample.label_files()] == [file, file]


def test_the_image_file_is_preferred_to_the_embedded_image(
    find: Finder, write_labelme: Writer
) -> None:
    write_labelme({}, imageData=coded(np.zeros((10, 12, 3), np.uint8)))
    assert read(find).image[0, 0].tolist() == [80, 80, 80]


@pytest.mark.parametrize('start', ['data:image/png;base64,', 'data:;base64,', '\n'])
def test_an_embedded_image_and_a_mask_may_be_data_uris_and_may_have_whitespace(
    find: Finder, write_labelme: Writer, tmp_path: Path, start: str
) -> None:
    image = np.zeros((10, 12, 3), np.uint8)
    image[..., 0] = 200  # OpenCV writes BGR
    mask = start + coded(np.full((2, 3), 255, np.uint8))
    write_labelme(mask_shape([7, 6], [9, 7], mask=mask), imageData=start + coded(image))
    (tmp_path / 'a.png').unlink()
    labelled = read(find)
    assert labelled.image[0, 0].tolist() == [0, 0, 200]
    assert labelled.classes.sum() == 6


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ('noimage+', r'a\.json: imageData: does not decode'),
        ('A', r"a\.json: imageData: must be base64, not 'A'"),
        ('https://a.b/c.png', r"a\.json: imageData: must be base64, not 'https://a\.b/c\.png'"),
        ('data:image/svg+xml,<svg/>', r"a\.json: imageData: must be base64, not 'data:image/svg"),
        (7, r'a\.json: imageData: '),
        ('', r'a\.json: imagePath: .*a\.png: no such file; set the folder of the images'),
        (None, r'a\.json: imagePath: .*a\.png: no such file; set the folder of the images'),
    ],
)
def test_an_invalid_embedded_image_is_reported(
    find: Finder, write_labelme: Writer, tmp_path: Path, data: Any, message: str
) -> None:
    write_labelme({}, imageData=data)
    (tmp_path / 'a.png').unlink()
    (sample,) = find('labelme')
    with pytest.raises(DataError, match=message):
        sample.read()


@pytest.mark.parametrize('name', ['../a.png', '..\\a.png', '{}/a.png', 'x/../../a.png'])
def test_images_outside_the_data_set_are_read_only_with_the_setting_images(
    find: Finder, write_labelme: Writer, tmp_path: Path, name: str
) -> None:
    file = write_labelme({}, imagePath=name.format(tmp_path), imageData=None)
    (tmp_path / 'set').mkdir()
    file.rename(tmp_path / 'set/a.json')
    (sample,) = find('labelme', path='set')
    with pytest.raises(
        DataError, match=r'a\.json: imagePath: .*a\.png. is outside .*set; .*images'
    ):
        sample.read()
    (sample,) = find('labelme', path='set', images=str(tmp_path))
    assert sample.read().classes.sum() == 16


def test_hidden_files_are_skipped_and_irregular_files_are_reported(
    find: Finder, write_labelme: Writer, tmp_path: Path
) -> None:
    write_labelme({})
    (tmp_path / '._a.json').write_bytes(b'\0\5\x16\7')
    os.mkfifo(tmp_path / 'b.json')
    fine, pipe = find('labelme')
    assert fine.read().classes.sum() == 16
    with pytest.raises(DataError, match=r'b\.json: is not a regular file'):
        pipe.read()


def test_a_size_that_is_text_is_reported(find: Finder, write_labelme: Writer) -> None:
    write_labelme({}, imageWidth='12', imageHeight='10')
    with pytest.raises(DataError, match=r"a\.json: has the width '12' and the height '10'; both"):
        read(find)
