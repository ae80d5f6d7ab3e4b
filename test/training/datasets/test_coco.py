# SPDX-License-Identifier: Apache-2.0
"""COCO files: polygons and run lengths become classes and instances, and errors are reported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from training.datasets import IGNORE, DataError, Labelled, Sample, guess_format

Finder = Callable[..., list[Sample]]
Writer = Callable[..., Path]


def write_image(path: Path, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint8) if pixels is None else pixels)


MAP = {'rock': 'rock', 'clod': 'ignore', 'belt': 'background'}
WHOLE = [0, 0, 12, 0, 12, 10, 0, 10]
SQUARE = (slice(1, 5), slice(2, 6))


def read(find: Finder, **settings: Any) -> Labelled:
    (sample,) = find('coco', **{'class_map': MAP, **settings})
    return sample.read()


def test_a_polygon_covers_only_the_pixels_inside_it(find: Finder, write_coco: Writer) -> None:
    write_coco({})
    labelled = read(find)
    expected = np.zeros((10, 12), np.uint8)
    expected[SQUARE] = 1
    assert (labelled.classes == expected).all()
    assert labelled.instances is not None
    assert (labelled.instances == expected).all()


def test_smaller_regions_cover_larger_ones_in_any_order(find: Finder, write_coco: Writer) -> None:
    belt = {'category_id': 3, 'segmentation': [WHOLE]}
    for order in ([{}, belt], [belt, {}]):
        write_coco(*order)
        assert (read(find).classes[SQUARE] == 1).all()


def test_of_two_regions_of_equal_size_the_later_covers_the_earlier(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({}, {'segmentation': [[4, 1, 8, 1, 8, 5, 4, 5]]})
    instances = read(find).instances
    assert instances is not None
    assert instances[2].tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]


def test_an_ignored_region_is_an_instance_and_background_is_not(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({'category_id': 3, 'segmentation': [WHOLE]}, {'category_id': 2})
    labelled = read(find)
    assert labelled.instances is not None
    assert (labelled.classes[SQUARE] == IGNORE).all()
    assert (labelled.instances[SQUARE] == 2).all()
    assert labelled.instances[9, 9] == 0


def test_pixels_without_a_region_have_the_class_unlabelled(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({})
    assert read(find).classes[9, 9] == 0
    assert read(find, unlabelled='ignore').classes[9, 9] == IGNORE
    with pytest.raises(DataError, match="class 'sand' is unknown"):
        read(find, unlabelled='sand')


def test_an_image_without_annotations_is_unlabelled(find: Finder, write_coco: Writer) -> None:
    write_coco()
    assert (read(find).classes == 0).all()


def test_several_polygons_of_an_annotation_are_one_instance(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({'segmentation': [[0, 0, 3, 0, 3, 3, 0, 3], [8, 6, 11, 6, 11, 9, 8, 9]]})
    instances = read(find).instances
    assert instances is not None
    assert (instances[1, 1], instances[7, 9], (instances == 1).sum()) == (1, 1, 18)


def test_one_polygon_may_be_a_flat_list_of_numbers(find: Finder, write_coco: Writer) -> None:
    write_coco({'segmentation': [2, 1, 6, 1, 6, 5, 2, 5]})
    classes = read(find).classes
    assert (classes[SQUARE] == 1).all()
    assert (classes == 1).sum() == 16


def test_a_polygon_is_clipped_to_the_image(find: Finder, write_coco: Writer) -> None:
    write_coco({'segmentation': [[-5, -5, 3, -5, 3, 40, -5, 40]]})
    assert read(find).classes.sum() == 30


@pytest.mark.parametrize('compressed', [True, False])
def test_run_lengths_are_decoded_as_by_pycocotools(
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


def test_long_compressed_runs_are_decoded_exactly(
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


def test_a_crowd_is_ignored_except_where_a_rock_covers_it(find: Finder, write_coco: Writer) -> None:
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
        ({'segmentation': [[1, 1, 5, 5]]}, 'has a polygon of 2 points; the minimum is 3'),
        ({'segmentation': [[]]}, 'has a polygon of 0 points; the minimum is 3'),
        ({'segmentation': [[1, 1, 5, 5, 3]]}, 'has a polygon of 5 numbers; it must be pairs of x'),
        ({'segmentation': [[10**400, 1, 5, 5, 3, 3]]}, 'a coordinate that is not a number'),
        ({'iscrowd': '0'}, "has the iscrowd '0'; it must be 0 or 1"),
        ({'segmentation': [['a'] * 6]}, 'has a polygon with a coordinate that is not a number'),
        ({'segmentation': [[1, 1, 5, 5, 3, float('nan')]]}, 'number that is not finite'),
        ({'segmentation': [[20, 20, 30, 20, 30, 30]]}, 'is outside its image, which is 12×10'),
        ({'segmentation': [[0, 0, 1e9, 0, 0, 9]]}, r'extends to 1e\+09 px; its image is 12×10'),
        ({'segmentation': [[3, 1, 3, 4, 3, 9]]}, 'has no area'),
        ({'segmentation': {'size': [10, 12], 'counts': [120]}}, 'has no area'),
        ({'segmentation': {'size': [10, 12], 'counts': [60, 0, 60]}}, 'has no area'),
        ({'segmentation': [[12, 0, 15, 0, 15, 9]]}, 'is outside its image'),
        ({'segmentation': {'size': [float('inf'), 1], 'counts': []}}, 'neither polygons nor run'),
        ({'segmentation': 'x'}, 'has a segmentation that is neither polygons nor run lengths'),
        ({'segmentation': {'counts': [120]}}, 'is neither polygons nor run lengths'),
        ({'segmentation': {'size': [10], 'counts': [9]}}, 'is neither polygons nor run lengths'),
        (
            {'segmentation': {'size': [10, 12], 'counts': [3, 2]}},
            'run lengths whose sum is not 12×10 px',
        ),
        (
            {'segmentation': {'size': [10, 12], 'counts': [130, -10]}},
            'run lengths whose sum is not 12×10 px',
        ),
        (
            {'segmentation': {'size': [10, 12], 'counts': 'zzz'}},
            'run lengths whose sum is not 12×10 px',
        ),
        (
            {'segmentation': {'size': [5, 5], 'counts': [25]}},
            'has the size 5×5, but its image 12×10',
        ),
        ({'category_id': 9}, r'has the category 9; expected: \[1, 2, 3\]'),
        ({'category_id': 2}, "has the label 'clod'; expected: rock"),
    ],
)
def test_an_invalid_annotation_is_reported_with_the_reason(
    find: Finder, write_coco: Writer, annotation: dict[str, Any], message: str
) -> None:
    write_coco({}, {'id': 41, **annotation})
    with pytest.raises(DataError, match=rf'annotations\.coco\.json: annotation 41 .*{message}'):
        read(find, class_map={'rock': 'rock'})


def test_all_invalid_annotations_of_an_image_are_reported_at_once(
    find: Finder, write_coco: Writer
) -> None:
    write_coco({'segmentation': []}, {}, {'segmentation': [[0, 0]]})
    with pytest.raises(DataError, match=r'annotation 1 .*annotation 3 '):
        read(find)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': None}, 'must have the lists images, annotations, categories'),
        ({'images': [{'id': 1}]}, "the key 'file_name' is missing"),
        ({'annotations': [{'id': 1}]}, "the key 'image_id' is missing"),
        ({'annotations': ['rock']}, 'is not COCO'),
        (
            {'annotations': [{'image_id': 1, 'file_name': 'a.png', 'segments_info': []}]},
            'is a COCO panoptic file, whose labels are PNG images; give a file of instances',
        ),
        ({'images': [{'id': 1, 'file_name': 3}]}, 'is not COCO'),
        ({'images': []}, 'annotation 1 has the image 1, which is not in its list of images'),
    ],
)
def test_a_file_that_is_not_coco_is_reported(
    find: Finder, write_coco: Writer, changes: dict[str, Any], message: str
) -> None:
    write_coco({}, **changes)
    with pytest.raises(DataError, match=rf'annotations\.coco\.json: .*{message}'):
        find('coco', class_map=MAP)


def test_a_file_that_is_not_json_is_reported(find: Finder, write_coco: Writer) -> None:
    write_coco({}).write_text('{"images": [')
    with pytest.raises(DataError, match=r'annotations\.coco\.json: is not JSON'):
        find('coco')


def test_a_missing_image_is_reported_when_it_is_read(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    (tmp_path / 'images/a.png').unlink()
    with pytest.raises(DataError, match=r'images/a\.png: no such file'):
        read(find)


def test_a_different_image_size_in_the_file_is_reported(find: Finder, write_coco: Writer) -> None:
    write_coco({}, images=[{'id': 1, 'file_name': 'a.png', 'width': 10, 'height': 12}])
    with pytest.raises(DataError, match=r'coco\.json: a has the size 10×12, but its image 12×10'):
        read(find)


def test_the_coco_file_is_found_by_its_name_or_as_the_only_one(
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


def test_images_are_found_next_to_the_file_or_next_to_its_folder(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    file = write_coco({})
    (tmp_path / 'annotations').mkdir()
    file.rename(tmp_path / 'annotations' / 'x.json')
    (sample,) = find('coco', path='annotations/x.json', class_map=MAP)
    assert sample.read().classes.sum() == 16


def test_names_of_images_in_folders_can_be_used_as_file_names(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({}, images=[{'id': 1, 'file_name': 'north/a.png'}])
    (tmp_path / 'images' / 'north').mkdir()
    (tmp_path / 'images/a.png').rename(tmp_path / 'images/north/a.png')
    (sample,) = find('coco', class_map=MAP)
    assert sample.name == 'north_a'
    assert sample.read().classes.sum() == 16


def test_two_images_with_one_name_are_an_error(find: Finder, write_coco: Writer) -> None:
    images = [{'id': number, 'file_name': 'a.png'} for number in (1, 2)]
    write_coco({}, images=images)
    with pytest.raises(DataError, match="two images with the name 'a'"):
        find('coco', class_map=MAP)


def test_reading_an_image_does_not_read_the_coco_file(find: Finder, write_coco: Writer) -> None:
    file = write_coco({})
    (sample,) = find('coco', class_map=MAP)
    file.write_text(json.dumps({}))
    assert sample.read().classes.sum() == 16


def move(folder: Path, file: str, image: str) -> None:
    """Moves the files of write_coco to other paths."""
    for old, new in (('annotations.coco.json', file), ('images/a.png', image)):
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)


LAYOUTS = {
    'COCO': ('annotations/instances_val2017.json', 'val2017/a.png'),
    'CVAT': ('annotations/instances_default.json', 'images/a.png'),
    'CVAT with subsets': ('annotations/instances_default.json', 'images/default/a.png'),
    'CVAT with another subset': ('annotations/instances_default.json', 'images/Train/a.png'),
    'CVAT with inner folders': ('annotations/instances_Train.json', 'images/Train/Data/a.png'),
    'CVAT with others': ('annotations/instances_default.json', 'images/Train/Data/a.png'),
    'Roboflow': ('train/_annotations.coco.json', 'train/a.png'),
    'another name': ('labels/labels.json', 'images/a.png'),
    'images/ below': ('labels.json', 'images/a.png'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_layout_of_an_export_is_recognized_and_its_images_are_found(
    find: Finder, write_coco: Writer, tmp_path: Path, layout: str
) -> None:
    write_coco({})
    file, image = LAYOUTS[layout]
    move(tmp_path, file, image)
    paths = [file] if layout == 'another name' else [file, '.']
    for path in paths:
        assert guess_format(tmp_path / path) == 'coco'
        (sample,) = find('coco', path=path, class_map=MAP)
        assert sample.name == 'a'
        assert sample.read().classes.sum() == 16


def grey(sample: Sample) -> int:
    return int(sample.read().image[0, 0, 0])


def write_twice(write_coco: Writer, folder: Path, files: dict[str, str]) -> None:
    """Writes a COCO file per entry, and an a.png whose grey value is 10 × its number."""
    for number, (file, image) in enumerate(files.items(), start=1):
        write_coco(*[{}] * number)
        move(folder, file, image)
        cv2.imwrite(str(folder / image), np.full((10, 12, 3), 10 * number, np.uint8))


@pytest.mark.parametrize(
    ('train_folder', 'val_folder'),
    [
        ('train2017', 'val2017'),
        ('images/train2017', 'images/val2017'),
        ('images/train2017/Data', 'images/val2017/Data'),
    ],
)
def test_files_of_train_and_val_have_separate_images_and_their_splits(
    find: Finder, write_coco: Writer, tmp_path: Path, train_folder: str, val_folder: str
) -> None:
    files = {
        'annotations/instances_train2017.json': f'{train_folder}/a.png',
        'annotations/instances_val2017.json': f'{val_folder}/a.png',
    }
    write_twice(write_coco, tmp_path, files)
    (tmp_path / 'annotations' / 'captions_val2017.json').write_text('{}')
    train, val = find('coco', class_map=MAP)
    assert (train.name, train.split, grey(train)) == ('train2017_a', 'train', 10)
    assert (val.name, val.split, grey(val)) == ('val2017_a', 'val', 20)
    assert find('coco', 'val', class_map=MAP) == [val]
    assert val.read().instances.max() == 2


def test_the_root_of_a_roboflow_export_has_its_splits(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    folders = ('test', 'train', 'valid')
    files = {f'{name}/_annotations.coco.json': f'{name}/a.png' for name in folders}
    write_twice(write_coco, tmp_path, files)
    assert guess_format(tmp_path) == 'coco'
    found = find('coco', class_map=MAP)
    assert [sample.name for sample in found] == ['test_a', 'train_a', 'valid_a']
    assert [sample.split for sample in found] == ['test', 'train', 'val']
    assert [grey(sample) for sample in found] == [10, 20, 30]


def test_an_export_without_val_is_divided_at_random_and_its_split_test_is_unchanged(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    files = {f'{n}/_annotations.coco.json': f'{n}/a.png' for n in ('test', 'train', 'train_b')}
    write_twice(write_coco, tmp_path, files)
    splits = {sample.name: sample.split for sample in find('coco', class_map=MAP)}
    assert splits.pop('test_a') == 'test'
    assert sorted(splits.values()) == ['train', 'val']


def test_a_scene_in_train_and_in_val_of_an_export_is_an_error(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    files = {f'{n}/_annotations.coco.json': f'{n}/a.png' for n in ('train', 'valid')}
    write_twice(write_coco, tmp_path, files)
    with pytest.raises(DataError, match='has a in train and in val'):
        find('coco', class_map=MAP, group='_(a)$')


def test_several_files_with_other_names_are_an_error(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    move(tmp_path, 'annotations/x.json', 'images/a.png')
    (tmp_path / 'annotations/y.json').write_text('{}')
    with pytest.raises(DataError, match=r'annotations: has 2 JSON files and no annotations\.coco'):
        find('coco')
    with pytest.raises(DataError, match='images: has no JSON file'):
        find('coco', path='images')


def test_hidden_files_are_skipped(find: Finder, write_coco: Writer, tmp_path: Path) -> None:
    write_coco({})
    move(tmp_path, 'annotations/x.JSON', 'images/a.png')
    (tmp_path / 'annotations/._x.JSON').write_bytes(b'\0\5\x16\7')
    assert len(find('coco', class_map=MAP)) == 1


def test_an_image_in_two_folders_is_an_error_unless_the_setting_images_selects_one(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    move(tmp_path, 'annotations/x.json', 'images/north/a.png')
    write_image(tmp_path / 'images/south/a.png', np.full((10, 12, 3), 9, np.uint8))
    (sample,) = find('coco', class_map=MAP)
    with pytest.raises(
        DataError, match=r"x\.json: image 1: 'a\.png' is ambiguous: .*north.*south.*images"
    ):
        sample.read()
    (sample,) = find('coco', class_map=MAP, images=str(tmp_path / 'images/south'))
    assert grey(sample) == 9


def test_the_setting_images_may_name_a_folder_outside_the_data_set(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    move(tmp_path, 'set/annotations/x.json', 'other/a.png')
    (sample,) = find('coco', path='set', class_map=MAP)
    with pytest.raises(DataError, match=r'a\.png: no such file; set the folder of the images'):
        sample.read()
    (sample,) = find('coco', path='set', class_map=MAP, images=str(tmp_path / 'other'))
    assert sample.read().classes.sum() == 16


def test_a_symbolic_link_to_a_folder_of_images_is_followed(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    move(tmp_path, 'set/labels.json', 'disk/a.png')
    (tmp_path / 'set/images').symlink_to(tmp_path / 'disk')
    (sample,) = find('coco', path='set', class_map=MAP)
    assert sample.read().classes.sum() == 16


@pytest.mark.parametrize('setting', ['', 'set/images'])
@pytest.mark.parametrize('name', ['../../a.png', '..\\..\\a.png', 'x/../../../a.png', '{}/a.png'])
def test_images_outside_the_data_set_are_not_read(
    find: Finder, write_coco: Writer, tmp_path: Path, name: str, setting: str
) -> None:
    name = name.format(tmp_path)
    file = write_coco({}, images=[{'id': 7, 'file_name': name}], annotations=[])
    move(tmp_path, 'set/labels.json', 'a.png')
    write_image(tmp_path / 'set/images/b.png')
    settings = {'images': str(tmp_path / setting)} if setting else {}
    (sample,) = find('coco', path='set', class_map=MAP, **settings)
    with pytest.raises(DataError, match=r'labels\.json: image 7: .*a\.png. is outside .*set'):
        sample.read()
    assert sample.image != tmp_path / 'a.png'
    assert file != sample.image


def test_a_path_inside_the_data_set_may_be_absolute_or_contain_dots(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    for name in (str(tmp_path / 'images/a.png'), '../images/a.png'):
        write_coco({}, images=[{'id': 1, 'file_name': name}])
        move(tmp_path, 'annotations/x.json', 'images/a.png')
        (sample,) = find('coco', class_map=MAP)
        assert sample.read().classes.sum() == 16


@pytest.mark.parametrize(
    'name',
    ['a\0.png', f'{"a" * 300}.png', '', f'{"a/" * 3000}b.png'],
    ids=['null', 'long', 'empty', 'deep'],
)
def test_an_invalid_file_name_is_reported_as_a_missing_file(
    find: Finder, write_coco: Writer, name: str
) -> None:
    write_coco({}, images=[{'id': 1, 'file_name': name}])
    (sample,) = find('coco', class_map=MAP)
    with pytest.raises(DataError, match='no such file'):
        sample.read()


@pytest.mark.parametrize(
    ('changes', 'annotation', 'message'),
    [
        (
            {},
            {'image_id': '1'},
            "1 has the image '1', .* list of images; the ids there are numbers, n",
        ),
        (
            {},
            {'category_id': '1'},
            r"category '1'; expected: \[1, 2, 3\]; the ids there are numbers",
        ),
        (
            {'images': [{'id': '1', 'file_name': 'a.png'}]},
            {},
            'has the image 1, .* list of images; the ids there are text, not numbers',
        ),
        (
            {'categories': [{'id': '1', 'name': 'rock'}]},
            {},
            r'has the category 1; expected: \[1\]; the ids there are text, not numbers',
        ),
        (
            {'images': [{'id': 1, 'file_name': 'a.png', 'width': '12', 'height': '10'}]},
            {},
            "image 1: has the width '12' and the height '10'; both must be numbers",
        ),
        (
            {'images': [{'id': 1, 'file_name': 'a.png'}] * 2},
            {},
            '2 images have only 1 ids',
        ),
        (
            {'categories': [{'id': 1, 'name': 'rock'}, {'id': 1, 'name': 'clod'}]},
            {},
            '2 categories have only 1 ids',
        ),
    ],
)
def test_ids_of_the_wrong_type_and_duplicate_ids_are_reported(
    find: Finder,
    write_coco: Writer,
    changes: dict[str, Any],
    annotation: dict[str, Any],
    message: str,
) -> None:
    write_coco(annotation, **changes)
    with pytest.raises(DataError, match=message):
        read(find)


def test_of_many_errors_the_first_three_are_listed(find: Finder, write_coco: Writer) -> None:
    write_coco(*[{'image_id': 5}] * 40)
    with pytest.raises(DataError) as raised:
        find('coco', class_map=MAP)
    assert 'annotation 3 has the image 5; and 37 more, which is not in' in str(raised.value)
    for bad in ({'segmentation': []}, {'segmentation': [[3, 1, 3, 4, 3, 9]]}):
        write_coco(*[bad] * 40)
        with pytest.raises(DataError) as raised:
            read(find)
        assert str(raised.value).endswith('and 37 more')
        assert 'annotation 3 ' in str(raised.value)
        assert 'annotation 4 ' not in str(raised.value)
    write_coco({'category_id': 0}, categories=[{'id': n, 'name': 'x'} for n in range(1, 81)])
    with pytest.raises(DataError, match=r'expected: \[1, 2, .*, 10, and 70 more\]'):
        read(find)


@pytest.mark.parametrize('kind', ['fifo', 'device', 'folder', 'large'])
def test_annotations_that_are_not_a_regular_file_are_not_opened(
    find: Finder, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / 'annotations.coco.json'
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    elif kind == 'folder':
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 2**29 + 1)
    raised = 'has 536870913 bytes' if kind == 'large' else 'is not a regular file'
    for given in ('.', path.name)[: 1 if kind == 'folder' else 2]:
        with pytest.raises(DataError, match=rf'coco\.json: {raised}'):
            find('coco', path=given)


def test_an_image_that_is_a_pipe_is_no_such_file(
    find: Finder, write_coco: Writer, tmp_path: Path
) -> None:
    write_coco({})
    (tmp_path / 'images/a.png').unlink()
    os.mkfifo(tmp_path / 'images/a.png')
    with pytest.raises(DataError, match=r'a\.png: no such file'):
        read(find)
