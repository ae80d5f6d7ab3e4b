# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

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


def test_a_mask_is_read_as_it_is(tmp_path):
    mask = np.array([[0, 255, 7], [1, 2, 3]], np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), mask)
    np.testing.assert_array_equal(read_grey(tmp_path / 'a.png'), mask)
