# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rock_seg_ros.perception.decoding import PictureError, decode_rgb, read_grey, read_rgb


def test_a_png_is_read_as_rgb(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


def test_a_picture_is_turned_upright_as_its_exif_data_say(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(colours).save(tmp_path / 'a.jpg', exif=exif, quality=95, subsampling=0)
    upright = read_rgb(tmp_path / 'a.jpg')
    assert upright.shape == (48, 32, 3)
    np.testing.assert_allclose(upright, np.rot90(colours, -1), atol=12)
    unturned = decode_rgb((tmp_path / 'a.jpg').read_bytes(), upright=False)
    np.testing.assert_allclose(unturned, colours, atol=12)


def test_a_grey_picture_has_three_equal_channels(tmp_path, colours):
    cv2.imwrite(str(tmp_path / 'a.png'), colours[..., 0])
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours[..., [0, 0, 0]])


def test_16_bits_become_8(tmp_path, colours):
    cv2.imwrite(str(tmp_path / 'a.png'), colours[..., ::-1].astype(np.uint16) * 256)
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


def test_alpha_is_left_out(tmp_path, colours):
    Image.fromarray(np.dstack([colours, colours[..., 0]])).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


@pytest.mark.parametrize('content', [b'', b'\xff\xd8garbage', b'\x89PNG\r\n\x1a\n'])
def test_a_file_that_does_not_decode_is_refused_by_name(tmp_path, content):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(PictureError, match=r'a\.png: does not decode'):
        read_rgb(tmp_path / 'a.png')
    with pytest.raises(PictureError, match=r'a\.png: does not decode'):
        read_grey(tmp_path / 'a.png')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_label_file_is_read_as_it_is(tmp_path, dtype):
    mask = np.array([[0, 255, 7], [1, 2, np.iinfo(dtype).max]], dtype)
    cv2.imwrite(str(tmp_path / 'a.png'), mask)
    read = read_grey(tmp_path / 'a.png')
    np.testing.assert_array_equal(read, mask)
    assert read.dtype == dtype
    assert read.dtype.isnative


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'gif', 'tif'])
def test_of_a_palette_the_indices_are_read(tmp_path, suffix):
    mask = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    coded = Image.fromarray(mask, 'P')
    coded.putpalette([0, 0, 0, 128, 0, 0, 0, 65, 0])  # 1 and 2 have the same luma
    coded.save(tmp_path / f'a.{suffix}')
    np.testing.assert_array_equal(read_grey(tmp_path / f'a.{suffix}'), mask)


def test_white_of_one_bit_is_255_as_in_any_grey_file(tmp_path):
    mask = np.array([[True, False], [False, True]])
    Image.fromarray(mask).save(tmp_path / 'a.png', bits=1)
    assert Image.open(tmp_path / 'a.png').mode == '1'
    np.testing.assert_array_equal(read_grey(tmp_path / 'a.png'), mask * np.uint8(255))


@pytest.mark.parametrize(
    ('mode', 'told'),
    [('RGB', '3 channels'), ('RGBA', '4 channels'), ('LA', '2 channels'), ('F', 'fractions')],
)
def test_a_label_file_of_anything_but_whole_numbers_in_one_channel_is_refused(tmp_path, mode, told):
    name = 'a.tif' if mode == 'F' else 'a.png'
    Image.new(mode, (3, 2)).save(tmp_path / name)
    with pytest.raises(PictureError, match=rf'{name}: has {told}; labels are'):
        read_grey(tmp_path / name)


def test_a_label_file_with_numbers_beyond_16_bits_is_refused(tmp_path):
    numbers = np.array([[0, 70000]], np.int32)
    Image.fromarray(numbers).save(tmp_path / 'a.tif')
    with pytest.raises(PictureError, match=r'a\.tif: has values of 0 to 70000; labels are'):
        read_grey(tmp_path / 'a.tif')
    Image.fromarray(numbers % 60000).save(tmp_path / 'a.tif')
    np.testing.assert_array_equal(read_grey(tmp_path / 'a.tif'), [[0, 10000]])


def test_a_label_file_is_turned_as_its_exif_data_say(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours[..., 0]).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(read_grey(tmp_path / 'a.png'), np.rot90(colours[..., 0], -1))


def test_a_label_file_that_is_cut_off_is_refused(tmp_path, colours):
    Image.fromarray(colours[..., 0]).save(tmp_path / 'a.png')
    whole = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PictureError, match=r'a\.png: does not decode'):
        read_grey(tmp_path / 'a.png')


def test_a_label_file_too_large_to_decode_is_refused_by_its_header(tmp_path):
    header = struct.pack('>4sIIBBBBB', b'IHDR', 30000, 30000, 1, 0, 0, 0, 0)
    chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    data = struct.pack('>I4s', 9, b'IDAT')
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunk + data)
    with pytest.raises(PictureError, match=r'a\.png: .*900000000 pixels'):
        read_grey(tmp_path / 'a.png')


def test_a_program_in_place_of_a_label_file_is_not_run(tmp_path):
    Image.new('L', (3, 2)).save(tmp_path / 'a.eps')  # Pillow has another program read these
    with pytest.raises(PictureError, match=r'a\.eps: does not decode'):
        read_grey(tmp_path / 'a.eps')


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'device'])
def test_a_label_file_that_is_no_file_is_refused_before_it_is_opened(tmp_path, kind):
    path = {'fifo': tmp_path / 'a.png', 'folder': tmp_path, 'device': Path('/dev/zero')}[kind]
    if kind == 'fifo':
        os.mkfifo(path)
    with pytest.raises(OSError, match=f'{path}: is no regular file'):
        read_grey(path)
