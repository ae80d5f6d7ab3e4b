# SPDX-License-Identifier: Apache-2.0
"""COCO files: outlines and run lengths become classes and rocks; every fault is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from training.sources import IGNORE, DataError, Labelled, Sample

Finder = Callable[..., list[Sample]]
Writer = Callable[..., Path]
MAP = {'rock': 'rock', 'clod': 'ignore', 'belt': 'background'}
WHOLE = [0, 0, 12, 0, 12, 10, 0, 10]
SQUARE = (slice(1, 5), slice(2, 6))


def read(find: Finder, **settings: Any) -> Labelled:
    (sample,) = find('coco', **{'class_map': MAP, **settings})
    return sample.read()


def test_an_outline_covers_the_pixels_within_it_and_no_more(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({})
    labelled = read(find)
    expected = np.zeros((10, 12), np.uint8)
    expected[SQUARE] = 1
    assert (labelled.classes == expected).all()
    assert labelled.instances is not None
    assert (labelled.instances == expected).all()


def test_small_lies_on_large_in_any_order(find: Finder, write_coco: Writer) -> None:
    belt = {'category_id': 3, 'segmentation': [WHOLE]}
    for order in ([{}, belt], [belt, {}]):
        write_coco(*order)
        assert (read(find).classes[SQUARE] == 1).all()


def test_of_two_outlines_of_one_size_the_later_lies_on_the_earlier(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({}, {'segmentation': [[4, 1, 8, 1, 8, 5, 4, 5]]})
    instances = read(find).instances
    assert instances is not None
    assert instances[2].tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]


def test_an_ignored_thing_has_a_number_and_background_has_none(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({'category_id': 3, 'segmentation': [WHOLE]}, {'category_id': 2})
    labelled = read(find)
    assert labelled.instances is not None
    assert (labelled.classes[SQUARE] == IGNORE).all()
    assert (labelled.instances[SQUARE] == 2).all()
    assert labelled.instances[9, 9] == 0


def test_what_no_outline_covers_is_what_the_source_says(find: Finder, write_coco: Writer) -> None:
    write_coco({})
    assert read(find).classes[9, 9] == 0
    assert read(find, unlabelled='ignore').classes[9, 9] == IGNORE
    with pytest.raises(DataError, match="'sand' is not among the classes"):
        read(find, unlabelled='sand')


def test_a_picture_without_annotations_is_all_unlabelled(find: Finder, write_coco: Writer) -> None:
    write_coco()
    assert (read(find).classes == 0).all()


def test_several_parts_are_one_rock(find: Finder, write_coco: Writer) -> None:
    write_coco({'segmentation': [[0, 0, 3, 0, 3, 3, 0, 3], [8, 6, 11, 6, 11, 9, 8, 9]]})
    instances = read(find).instances
    assert instances is not None
    assert (instances[1, 1], instances[7, 9], (instances == 1).sum()) == (1, 1, 18)


def test_an_outline_that_leaves_the_picture_is_cut(find: Finder, write_coco: Writer) -> None:
    write_coco({'segmentation': [[-5, -5, 3, -5, 3, 40, -5, 40]]})
    assert read(find).classes.sum() == 30


@pytest.mark.parametrize('compressed', [True, False])
def test_run_lengths_are_what_pycocotools_makes_of_them(
    find: Finder, write_coco: Writer, compressed: bool
) -> None:
    truth = np.zeros((10, 12), np.uint8)
    cv2.circle(truth, (6, 5), 4, 1, -1)
    truth[5, 6] = 0
    if compressed:
        coded = coco_mask.encode(np.asfortranarray(truth))
        runs: Any = {'size': [10, 12], 'counts': coded['counts'].decode()}
    else:
        column = truth.ravel(order='F')
        ends = np.flatnonzero(np.diff(column)) + 1
        runs = {'size': [10, 12], 'counts': np.diff([0, *ends, 120]).tolist()}
    write_coco({'segmentation': runs})
    assert (read(find).classes == truth).all()


def test_long_compressed_runs_are_read_as_they_were_written(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    truth = (np.random.default_rng(0).random((300, 400)) < 0.2).astype(np.uint8)
    truth[:, 100:300] = 1
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((300, 400, 3), np.uint8))
    counts = coco_mask.encode(np.asfortranarray(truth))['counts'].decode()
    write_coco(
        {'segmentation': {'size': [300, 400], 'counts': counts}},
        images=[{'id': 1, 'file_name': 'b.png'}],
    )
    assert (read(find).classes == truth).all()


def test_a_crowd_is_ignored_but_a_rock_that_lies_on_it(find: Finder, write_coco: Writer) -> None:
    crowd = {'segmentation': {'size': [10, 12], 'counts': [0, 60, 60]}, 'iscrowd': 1}
    write_coco(crowd, {})
    labelled = read(find)
    assert labelled.instances is not None
    crowded = np.zeros((10, 12), bool)
    crowded[:, :5] = True
    crowded[SQUARE] = False
    assert (labelled.classes[crowded] == IGNORE).all()
    assert (labelled.instances[crowded] == 0).all()
    assert (labelled.classes[SQUARE] == 1).all()
    assert (labelled.instances[SQUARE] == 2).all()
    assert (labelled.classes[:, 6:] == 0).all()


def test_a_crowd_of_background_is_background(find: Finder, write_coco: Writer) -> None:
    write_coco({'category_id': 3, 'segmentation': [WHOLE], 'iscrowd': 1})
    assert (read(find, unlabelled='ignore').classes == 0).all()


def test_labels_are_class_names_without_a_map(find: Finder, write_coco: Writer) -> None:
    write_coco({'category_id': 3})
    classes = ('background', 'rock', 'belt')
    assert read(find, class_map={}, classes=classes).classes[2, 3] == 2


@pytest.mark.parametrize(
    ('annotation', 'message'),
    [
        ({'segmentation': []}, 'has an empty segmentation'),
        ({'segmentation': [[1, 1, 5, 5]]}, 'has a polygon of 2 points; 3 are the least'),
        ({'segmentation': [[]]}, 'has a polygon of 0 points; 3 are the least'),
        ({'segmentation': [[1, 1, 5, 5, 3]]}, 'has a polygon of 5 numbers; x and y come in pairs'),
        ({'segmentation': [['a'] * 6]}, 'has a polygon of something that is no number'),
        ({'segmentation': [[1, 1, 5, 5, 3, float('nan')]]}, 'number that is not finite'),
        ({'segmentation': [[20, 20, 30, 20, 30, 30]]}, 'lies outside its picture, which is 12×10'),
        ({'segmentation': [[0, 0, 1e9, 0, 0, 9]]}, r'reaches 1e\+09 px; its picture is 12×10'),
        ({'segmentation': [[3, 1, 3, 4, 3, 9]]}, 'has no area'),
        ({'segmentation': [[12, 0, 15, 0, 15, 9]]}, 'lies outside its picture'),
        ({'segmentation': {'size': [float('inf'), 1], 'counts': []}}, 'neither polygons nor run'),
        ({'segmentation': 'x'}, 'has a segmentation that is neither polygons nor run lengths'),
        ({'segmentation': {'counts': [120]}}, 'is neither polygons nor run lengths'),
        ({'segmentation': {'size': [10], 'counts': [9]}}, 'is neither polygons nor run lengths'),
        ({'segmentation': {'size': [10, 12], 'counts': [3, 2]}}, 'do not add up to 12×10 px'),
        ({'segmentation': {'size': [10, 12], 'counts': [130, -10]}}, 'do not add up to 12×10 px'),
        ({'segmentation': {'size': [10, 12], 'counts': 'zzz'}}, 'do not add up to 12×10 px'),
        ({'segmentation': {'size': [5, 5], 'counts': [25]}}, 'is 5×5, its picture 12×10'),
        ({'category_id': 9}, r'names category 9; legal is \[1, 2, 3\]'),
        ({'category_id': 2}, "has the label 'clod'; the class map knows rock"),
    ],
)
def test_a_bad_annotation_is_named_with_its_reason(
    find: Finder, write_coco: Writer, annotation: dict[str, Any], message: str
) -> None:
    write_coco({}, {'id': 41, **annotation})
    with pytest.raises(DataError, match=rf'annotations\.coco\.json: annotation 41 .*{message}'):
        read(find, class_map={'rock': 'rock'})


def test_all_bad_annotations_of_a_picture_are_named_at_once(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({'segmentation': []}, {}, {'segmentation': [[0, 0]]})
    with pytest.raises(DataError, match=r'annotation 1 .*annotation 3 '):
        read(find)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': None}, 'needs the lists images, annotations, categories'),
        ({'images': [{'id': 1}]}, "an entry lacks 'file_name'"),
        ({'annotations': [{'id': 1}]}, "an entry lacks 'image_id'"),
        ({'annotations': ['rock']}, 'is not COCO'),
        ({'images': [{'id': 1, 'file_name': 3}]}, 'is not COCO'),
        ({'images': []}, 'annotation 1 names image 1: not in its list of images'),
    ],
)
def test_a_file_that_is_not_coco_is_named(
    find: Finder, write_coco: Writer, changes: dict[str, Any], message: str
) -> None:
    write_coco({}, **changes)
    with pytest.raises(DataError, match=rf'annotations\.coco\.json: .*{message}'):
        find('coco', class_map=MAP)


def test_text_that_is_no_json_is_named(find: Finder, write_coco: Writer) -> None:
    write_coco({}).write_text('{"images": [')
    with pytest.raises(DataError, match=r'annotations\.coco\.json: is no JSON'):
        find('coco')


def test_a_missing_picture_is_named_when_it_is_read(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    (tmp_path / 'images/a.png').unlink()
    with pytest.raises(DataError, match=r'images/a\.png: no such file'):
        read(find)


def test_a_picture_of_another_size_than_told_is_named(find: Finder, write_coco: Writer) -> None:
    write_coco({}, images=[{'id': 1, 'file_name': 'a.png', 'width': 10, 'height': 12}])
    with pytest.raises(DataError, match=r'coco\.json: a is 10×12, its picture 12×10'):
        read(find)


def test_the_file_is_found_by_name_or_if_it_is_the_only_one(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    file = write_coco({})
    (tmp_path / 'notes.json').write_text('{}')
    assert len(find('coco', class_map=MAP)) == 1
    assert len(find('coco', path=file.name, class_map=MAP)) == 1
    file.rename(tmp_path / 'labels.json')
    with pytest.raises(DataError, match='has 2 JSON files and no annotations'):
        find('coco')
    (tmp_path / 'notes.json').unlink()
    assert len(find('coco', class_map=MAP)) == 1


def test_pictures_lie_beside_the_file_or_beside_its_folder(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    file = write_coco({})
    (tmp_path / 'annotations').mkdir()
    file.rename(tmp_path / 'annotations' / 'x.json')
    (sample,) = find('coco', path='annotations/x.json', class_map=MAP)
    assert sample.read().classes.sum() == 16


def test_pictures_in_folders_have_names_fit_for_files(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({}, images=[{'id': 1, 'file_name': 'north/a.png'}])
    (tmp_path / 'images' / 'north').mkdir()
    (tmp_path / 'images/a.png').rename(tmp_path / 'images/north/a.png')
    (sample,) = find('coco', class_map=MAP)
    assert sample.name == 'north_a'
    assert sample.read().classes.sum() == 16


def test_two_pictures_of_one_name_are_refused(find: Finder, write_coco: Writer) -> None:
    images = [{'id': number, 'file_name': 'a.png'} for number in (1, 2)]
    write_coco({}, images=images)
    with pytest.raises(DataError, match="two pictures of the name 'a'"):
        find('coco', class_map=MAP)


def test_a_large_file_is_not_needed_to_read_its_pictures(find: Finder, write_coco: Writer) -> None:
    file = write_coco({})
    (sample,) = find('coco', class_map=MAP)
    file.write_text(json.dumps({}))
    assert sample.read().classes.sum() == 16
