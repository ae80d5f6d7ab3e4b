# SPDX-License-Identifier: Apache-2.0
"""Mask folders: grey values become classes, and every broken file is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.datasets import IGNORE, DataError, DatasetConfig, Sample

Finder = Callable[..., list[Sample]]


def write_image(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), pixels)


def test_255_is_rock_and_0_background_without_a_map(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    (sample,) = find('masks')
    labelled = sample.read()
    assert labelled.classes[0].tolist() == [1] * 6 + [0] * 6
    assert labelled.image.shape == (10, 12, 3)
    assert labelled.instances is None


def test_the_class_map_renames_and_ignores_grey_values(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    classes = ('background', 'rock', 'boulder')
    (sample,) = find('masks', classes=classes, class_map={'0': 'ignore', '255': 'boulder'})
    assert sample.read().classes[0].tolist() == [2] * 6 + [IGNORE] * 6


def test_a_map_with_unquoted_numbers_is_as_good(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    (sample,) = find('masks', class_map={0: 'rock', 255: 'background'})
    assert sample.read().classes[0].tolist() == [0] * 6 + [1] * 6


def test_a_mask_of_16_bits_is_read_as_it_is(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    mask = np.zeros((10, 12), np.uint16)
    mask[:, :6] = 255
    write_image(tmp_path / 'masks/a.png', mask)
    assert find('masks')[0].read().classes[0].tolist() == [1] * 6 + [0] * 6
    mask[:, :6] = 65535
    write_image(tmp_path / 'masks/a.png', mask)
    with pytest.raises(DataError, match=r'a\.png: has the grey value 65535; legal is 0, 255'):
        find('masks')[0].read()
    (sample,) = find('masks', class_map={0: 'background', 65535: 'rock'})
    assert sample.read().classes[0].tolist() == [1] * 6 + [0] * 6


def test_of_a_palette_mask_the_indices_count(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    mask = np.zeros((10, 12), np.uint8)
    mask[:, :4], mask[:, 4:6] = 1, 2
    coded = Image.fromarray(mask, 'P')
    coded.putpalette([0, 0, 0, 128, 0, 0, 0, 65, 0])  # 1 and 2 have the same luma
    coded.save(tmp_path / 'masks/a.png')
    (sample,) = find('masks', class_map={0: 'background', 1: 'rock', 2: 'ignore'})
    assert sample.read().classes[0].tolist() == [1] * 4 + [IGNORE] * 2 + [0] * 6
    with pytest.raises(DataError, match=r'a\.png: has the grey value 1; legal is 0, 255'):
        find('masks')[0].read()


def test_a_map_of_small_numbers_maps_no_others(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    with pytest.raises(DataError, match=r'a\.png: has the grey value 255; legal is 0, 1'):
        find('masks', class_map={0: 'background', 1: 'rock'})[0].read()


def test_images_are_read_as_rgb(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    blue = np.zeros((10, 12, 3), np.uint8)
    blue[:, :, 0] = 200  # OpenCV writes BGR
    write_image(tmp_path / 'images/a.png', blue)
    assert find('masks')[0].read().image[0, 0].tolist() == [0, 0, 200]


def test_sixteen_bit_instance_numbers_are_kept_whole(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    numbers = np.zeros((10, 12), np.uint16)
    numbers[3, 4], numbers[4, 5] = 1, 60000
    write_image(tmp_path / 'instances/a.png', numbers)
    instances = find('masks')[0].read().instances
    assert instances is not None
    assert instances.dtype == np.int32
    assert (instances[3, 4], instances[4, 5], instances.sum()) == (1, 60000, 60001)


def test_images_without_a_mask_and_other_files_are_left_out(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    (tmp_path / 'masks/b.png').unlink()
    (tmp_path / 'images/notes.txt').write_text('hello')
    assert [sample.name for sample in find('masks')] == ['a']


def broken_image(folder: Path) -> None:
    (folder / 'images/a.png').write_bytes(b'no image')


def broken_mask(folder: Path) -> None:
    (folder / 'masks/a.png').write_bytes(b'')


def mask_of_another_size(folder: Path) -> None:
    write_image(folder / 'masks/a.png', np.zeros((10, 9), np.uint8))


def strange_grey(folder: Path) -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[3, 4] = 7
    write_image(folder / 'masks/a.png', mask)


def instances_of_another_size(folder: Path) -> None:
    write_image(folder / 'instances/a.png', np.zeros((9, 12), np.uint16))


def coloured_instances(folder: Path) -> None:
    write_image(folder / 'instances/a.png', np.zeros((10, 12, 3), np.uint8))


def mask_in_an_alpha_channel(folder: Path) -> None:
    pixels = np.full((10, 12, 4), 255, np.uint8)
    pixels[:, 6:, 3] = 0
    write_image(folder / 'masks/a.png', pixels)


def coloured_mask(folder: Path) -> None:
    write_image(folder / 'masks/a.png', np.zeros((10, 12, 3), np.uint8))


def broken_instances(folder: Path) -> None:
    (folder / 'instances').mkdir()
    (folder / 'instances/a.png').write_bytes(b'\x89PNG')


def no_image(folder: Path) -> None:
    (folder / 'images/a.png').unlink()


def two_images(folder: Path) -> None:
    write_image(folder / 'images/a.jpg', np.zeros((10, 12, 3), np.uint8))


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (broken_image, r'images/a\.png: does not decode as an image \(8 bytes\)'),
        (broken_mask, r'masks/a\.png: does not decode'),
        (mask_of_another_size, r'masks/a\.png: is 9×10, its image 12×10'),
        (strange_grey, r'masks/a\.png: has the grey value 7; legal is 0, 255'),
        (instances_of_another_size, r'instances/a\.png: is 12×9, its image 12×10'),
        (mask_in_an_alpha_channel, r'masks/a\.png: has 4 channels; labels are in one'),
        (coloured_mask, r'masks/a\.png: has 3 channels; labels are in one'),
        (coloured_instances, r'instances/a\.png: has 3 channels'),
        (broken_instances, r'instances/a\.png: does not decode'),
        (no_image, r'masks/a\.png: no image of that name in images/'),
        (two_images, r'masks/a\.png: two images, a\.jpg and a\.png'),
    ],
)
def test_a_broken_file_is_named_with_its_reason(
    find: Finder,
    write_masks: Callable[..., None],
    tmp_path: Path,
    harm: Callable[[Path], None],
    message: str,
) -> None:
    write_masks('a')
    harm(tmp_path)
    (sample,) = find('masks')
    with pytest.raises(DataError, match=message) as told:
        sample.read()
    assert '\n' not in str(told.value)


def test_an_image_that_goes_away_is_named(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    (sample,) = find('masks')
    (tmp_path / 'images/a.png').unlink()
    with pytest.raises(DataError, match=r'images/a\.png: no such file'):
        sample.read()


def test_a_folder_that_is_none_is_named(find: Finder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='nowhere: no folder with images/ and masks/'):
        find('masks', path='nowhere')
    (tmp_path / 'masks').mkdir()
    with pytest.raises(DataError, match='no folder with images/ and masks/'):
        find('masks')


def test_a_grey_value_that_cannot_be_is_refused_with_the_configuration() -> None:
    with pytest.raises(ValueError, match="grey value 'rock'; legal is 0 to 65535"):
        DatasetConfig('data', class_map={'rock': 'rock'})
    with pytest.raises(ValueError, match="grey value '65536'"):
        DatasetConfig('data', class_map={'65536': 'rock'})


def test_a_map_to_a_class_that_is_not_there_is_refused(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    with pytest.raises(
        DataError, match="'stone' is not among the classes; legal is background, rock"
    ):
        find('masks', class_map={'0': 'background', '255': 'stone'})


def test_jpeg_images_are_found_in_any_case(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    image = cv2.imread(str(tmp_path / 'images/a.png'))
    (tmp_path / 'images/a.png').unlink()
    write_image(tmp_path / 'images/a.JPG', image)
    assert find('masks')[0].read().image.shape == (10, 12, 3)


def test_instances_without_masks_are_rock_and_the_rest_is_what_unlabelled_says(
    find: Finder, tmp_path: Path
) -> None:
    numbers = np.zeros((10, 12), np.uint16)
    numbers[2:5, 3:7] = 300
    write_image(tmp_path / 'images/a.png', np.full((10, 12, 3), 80, np.uint8))
    write_image(tmp_path / 'instances/a.png', numbers)
    for unlabelled, outside in (('ignore', IGNORE), ('background', 0)):
        labelled = find('masks', unlabelled=unlabelled)[0].read()
        assert labelled.instances is not None
        assert labelled.classes[3, 4] == 1
        assert labelled.classes[0, 0] == outside
        assert (labelled.instances == numbers).all()


def test_masks_that_leave_rocks_out_teach_no_background(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    (sample,) = find('masks', unlabelled='ignore')
    assert sample.read().classes[0].tolist() == [1] * 6 + [IGNORE] * 6


@pytest.mark.parametrize('suffix', ['.PNG', '.tif', '.bmp', '.Png'])
def test_a_mask_is_found_whatever_its_suffix_and_case(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path, suffix: str
) -> None:
    write_masks('a')
    mask = cv2.imread(str(tmp_path / 'masks/a.png'), cv2.IMREAD_UNCHANGED)
    (tmp_path / 'masks/a.png').unlink()
    write_image(tmp_path / f'masks/a{suffix}', mask)
    write_image(tmp_path / f'instances/a{suffix}', (mask > 0).astype(np.uint16))
    (sample,) = find('masks')
    labelled = sample.read()
    assert (labelled.classes[0, 0], labelled.classes[0, -1]) == (1, 0)
    assert labelled.instances is not None
    assert labelled.instances.max() == 1


@pytest.mark.parametrize('suffix', ['.tif', '.webp', '.bmp', '.JPG'])
def test_an_image_is_found_whatever_its_suffix_and_case(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path, suffix: str
) -> None:
    write_masks('a')
    (tmp_path / 'images/a.png').unlink()
    write_image(tmp_path / f'images/a{suffix}', np.full((10, 12, 3), 80, np.uint8))
    (sample,) = find('masks')
    assert sample.image.name == f'a{suffix}'
    assert sample.read().image.shape == (10, 12, 3)


def test_a_jpeg_mask_is_named_as_one_that_has_lost_its_values(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    write_image(tmp_path / 'masks/a.jpg', np.zeros((10, 12), np.uint8))
    (tmp_path / 'masks/a.png').unlink()
    (sample,) = find('masks')
    with pytest.raises(DataError, match=r'masks/a\.jpg: JPG changes the values .* such as PNG'):
        sample.read()


def test_hidden_files_are_neither_masks_nor_images(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', '._a')
    assert [sample.name for sample in find('masks')] == ['a']


def test_a_jpeg_beside_a_mask_of_that_name_is_only_a_preview(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    write_image(tmp_path / 'masks/a.jpg', np.zeros((10, 12), np.uint8))
    (sample,) = find('masks')
    assert sample.read().classes.any()


def test_without_masks_the_instances_are_the_rocks(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    (tmp_path / 'masks/a.png').unlink()
    (tmp_path / 'masks').rmdir()
    numbers = np.zeros((10, 12), np.uint16)
    numbers[3, 4], numbers[4, 5] = 1, 7
    write_image(tmp_path / 'instances/a.png', numbers)
    (sample,) = find('masks', class_map={'0': 'ignore', '255': 'rock'})
    labelled = sample.read()
    assert np.array_equal(labelled.classes, np.where(numbers, 1, IGNORE))
    assert labelled.instances is not None
    assert labelled.instances[4, 5] == 7
    assert sample.label_files() == (tmp_path / 'instances/a.png',)


def test_an_image_that_was_read_before_is_not_read_again(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    (sample,) = find('masks')
    image = sample.read().image
    (tmp_path / 'images/a.png').unlink()
    assert sample.read(image).image is image
