# SPDX-License-Identifier: Apache-2.0
"""Mask folders: pixel values become classes, and invalid files are reported."""

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


def test_the_class_map_assigns_classes_to_pixel_values(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    classes = ('background', 'rock', 'boulder')
    (sample,) = find('masks', classes=classes, class_map={'0': 'ignore', '255': 'boulder'})
    assert sample.read().classes[0].tolist() == [2] * 6 + [IGNORE] * 6


def test_a_class_map_may_have_unquoted_numbers(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    (sample,) = find('masks', class_map={0: 'rock', 255: 'background'})
    assert sample.read().classes[0].tolist() == [0] * 6 + [1] * 6


def test_the_values_of_a_16_bit_mask_are_not_scaled(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    mask = np.zeros((10, 12), np.uint16)
    mask[:, :6] = 255
    write_image(tmp_path / 'masks/a.png', mask)
    assert find('masks')[0].read().classes[0].tolist() == [1] * 6 + [0] * 6
    mask[:, :6] = 65535
    write_image(tmp_path / 'masks/a.png', mask)
    with pytest.raises(DataError, match=r'a\.png: has the pixel value 65535; expected: 0, 255'):
        find('masks')[0].read()
    (sample,) = find('masks', class_map={0: 'background', 65535: 'rock'})
    assert sample.read().classes[0].tolist() == [1] * 6 + [0] * 6


def test_the_values_of_a_palette_mask_are_its_indices(
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
    with pytest.raises(DataError, match=r'a\.png: has the pixel value 1; expected: 0, 255'):
        find('masks')[0].read()


def test_a_pixel_value_without_an_entry_in_the_class_map_is_an_error(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    with pytest.raises(DataError, match=r'a\.png: has the pixel value 255; expected: 0, 1'):
        find('masks', class_map={0: 'background', 1: 'rock'})[0].read()


def test_images_are_read_as_rgb(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    blue = np.zeros((10, 12, 3), np.uint8)
    blue[:, :, 0] = 200  # OpenCV writes BGR
    write_image(tmp_path / 'images/a.png', blue)
    assert find('masks')[0].read().image[0, 0].tolist() == [0, 0, 200]


def test_16_bit_instance_ids_are_read_exactly(
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


def test_images_without_a_mask_and_other_files_are_skipped(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    (tmp_path / 'masks/b.png').unlink()
    (tmp_path / 'images/notes.txt').write_text('hello')
    assert [sample.name for sample in find('masks')] == ['a']


def invalid_image(folder: Path) -> None:
    (folder / 'images/a.png').write_bytes(b'no image')


def invalid_mask(folder: Path) -> None:
    (folder / 'masks/a.png').write_bytes(b'')


def mask_of_different_size(folder: Path) -> None:
    write_image(folder / 'masks/a.png', np.zeros((10, 9), np.uint8))


def unknown_pixel_value(folder: Path) -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[3, 4] = 7
    write_image(folder / 'masks/a.png', mask)


def instances_of_different_size(folder: Path) -> None:
    write_image(folder / 'instances/a.png', np.zeros((9, 12), np.uint16))


def coloured_instances(folder: Path) -> None:
    write_image(folder / 'instances/a.png', np.zeros((10, 12, 3), np.uint8))


def mask_in_an_alpha_channel(folder: Path) -> None:
    pixels = np.full((10, 12, 4), 255, np.uint8)
    pixels[:, 6:, 3] = 0
    write_image(folder / 'masks/a.png', pixels)


def coloured_mask(folder: Path) -> None:
    write_image(folder / 'masks/a.png', np.zeros((10, 12, 3), np.uint8))


def invalid_instances(folder: Path) -> None:
    (folder / 'instances').mkdir()
    (folder / 'instances/a.png').write_bytes(b'\x89PNG')


def no_image(folder: Path) -> None:
    (folder / 'images/a.png').unlink()


def two_images(folder: Path) -> None:
    write_image(folder / 'images/a.jpg', np.zeros((10, 12, 3), np.uint8))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (invalid_image, r'images/a\.png: does not decode as an image \(8 bytes\)'),
        (invalid_mask, r'masks/a\.png: does not decode'),
        (mask_of_different_size, r'masks/a\.png: has the size 9×10, but its image 12×10'),
        (unknown_pixel_value, r'masks/a\.png: has the pixel value 7; expected: 0, 255'),
        (instances_of_different_size, r'instances/a\.png: has the size 12×9, but its image 12×10'),
        (mask_in_an_alpha_channel, r'masks/a\.png: a label image must have 1 channel, not 4'),
        (coloured_mask, r'masks/a\.png: a label image must have 1 channel, not 3'),
        (coloured_instances, r'instances/a\.png: a label image must have 1 channel, not 3'),
        (invalid_instances, r'instances/a\.png: does not decode'),
        (no_image, r'masks/a\.png: has no image of this name in images/'),
        (two_images, r'masks/a\.png: has two images, a\.jpg and a\.png'),
    ],
)
def test_an_invalid_file_is_reported_with_the_reason(
    find: Finder,
    write_masks: Callable[..., None],
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    write_masks('a')
    damage(tmp_path)
    (sample,) = find('masks')
    with pytest.raises(DataError, match=message) as raised:
        sample.read()
    assert '\n' not in str(raised.value)


def test_an_image_that_was_deleted_is_reported(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    (sample,) = find('masks')
    (tmp_path / 'images/a.png').unlink()
    with pytest.raises(DataError, match=r'images/a\.png: no such file'):
        sample.read()


def test_a_missing_folder_is_reported(find: Finder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='nowhere: must be a folder with images/, and masks/'):
        find('masks', path='nowhere')
    (tmp_path / 'masks').mkdir()
    with pytest.raises(DataError, match='must be a folder with images/, and masks/'):
        find('masks')


def test_an_impossible_pixel_value_in_the_class_map_is_rejected() -> None:
    with pytest.raises(ValueError, match="pixel value 'rock'; it must be 0 to 65535"):
        DatasetConfig('data', class_map={'rock': 'rock'})
    with pytest.raises(ValueError, match="pixel value '65536'"):
        DatasetConfig('data', class_map={'65536': 'rock'})


def test_an_unknown_class_in_the_class_map_is_rejected(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    with pytest.raises(DataError, match="class 'stone' is unknown; expected: background, rock"):
        find('masks', class_map={'0': 'background', '255': 'stone'})


def test_suffixes_of_jpeg_images_may_be_upper_case(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    image = cv2.imread(str(tmp_path / 'images/a.png'))
    (tmp_path / 'images/a.png').unlink()
    write_image(tmp_path / 'images/a.JPG', image)
    assert find('masks')[0].read().image.shape == (10, 12, 3)


def test_without_masks_other_pixels_have_the_class_unlabelled(find: Finder, tmp_path: Path) -> None:
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


def test_the_background_of_incomplete_masks_can_be_ignored(
    find: Finder, write_masks: Callable[..., None]
) -> None:
    write_masks('a')
    (sample,) = find('masks', unlabelled='ignore')
    assert sample.read().classes[0].tolist() == [1] * 6 + [IGNORE] * 6


@pytest.mark.parametrize('suffix', ['.PNG', '.tif', '.bmp', '.Png'])
def test_masks_are_found_with_any_lossless_suffix_and_case(
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
def test_images_are_found_with_any_suffix_and_case(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path, suffix: str
) -> None:
    write_masks('a')
    (tmp_path / 'images/a.png').unlink()
    write_image(tmp_path / f'images/a{suffix}', np.full((10, 12, 3), 80, np.uint8))
    (sample,) = find('masks')
    assert sample.image.name == f'a{suffix}'
    assert sample.read().image.shape == (10, 12, 3)


def test_a_jpeg_mask_is_reported_as_lossy(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    write_image(tmp_path / 'masks/a.jpg', np.zeros((10, 12), np.uint8))
    (tmp_path / 'masks/a.png').unlink()
    (sample,) = find('masks')
    with pytest.raises(DataError, match=r'masks/a\.jpg: JPG is lossy; .* such as PNG'):
        sample.read()


def test_hidden_files_are_skipped(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', '._a')
    assert [sample.name for sample in find('masks')] == ['a']


def test_a_lossless_mask_is_preferred_to_a_jpeg_of_that_name(
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
    with pytest.raises(DataError, match=r'has no masks/, so class_map must have 0 .* and 255'):
        find('masks', class_map={'0': 'background', '1': 'rock'})


def test_a_given_image_is_not_read_again(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    (sample,) = find('masks')
    image = sample.read().image
    (tmp_path / 'images/a.png').unlink()
    assert sample.read(image).image is image
