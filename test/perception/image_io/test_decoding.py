# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from rock_seg_ros.perception.image_io import decoding
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import (
    ImageError,
    ImageTooLargeError,
    decode_rgb,
    read_label_image,
    read_rgb,
)

END_OF_JPEG = b'\xff\xd9'


def png_header(width, height):
    """Returns a PNG of a few bytes whose header has this size."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)

    ihdr = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b'IDAT', zlib.compress(bytes(100)))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', ihdr) + pixels + chunk(b'IEND', b'')


def tiff(pixels, photometric, extra=None, planar=1):
    """Returns an uncompressed TIFF of H×W×C uint8 or uint16; planar=2: of C×H×W planes."""
    height, width, bands = pixels.shape if planar == 1 else (*pixels.shape[1:], pixels.shape[0])
    raw = np.ascontiguousarray(pixels).tobytes()
    values = {
        256: ('I', [width]), 257: ('I', [height]), 258: ('H', [8 * pixels.itemsize] * bands),
        259: ('H', [1]), 262: ('H', [photometric]), 277: ('H', [bands]), 278: ('I', [height]),
        284: ('H', [planar]),
    }  # fmt: skip
    parts = 1 if planar == 1 else bands
    size = len(raw) // parts
    values[273] = ('I', [8 + part * size for part in range(parts)])
    values[279] = ('I', [size] * parts)
    if extra is not None:
        values[338] = ('H', extra)
    entries, far = b'', b''
    start = 8 + len(raw) + 2 + 12 * len(values) + 4
    for tag, (kind, numbers) in sorted(values.items()):
        packed = struct.pack(f'<{len(numbers)}{kind}', *numbers)
        entries += struct.pack('<HHI', tag, {'H': 3, 'I': 4}[kind], len(numbers))
        if len(packed) > 4:
            entries += struct.pack('<I', start + len(far))
            far += packed
        else:
            entries += packed.ljust(4, b'\0')
    head = b'II*\0' + struct.pack('<I', 8 + len(raw))
    return head + raw + struct.pack('<H', len(values)) + entries + bytes(4) + far


def test_a_png_is_read_as_rgb(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


def test_an_image_is_rotated_by_its_exif_orientation(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise
    Image.fromarray(colours).save(tmp_path / 'a.jpg', exif=exif, quality=95, subsampling=0)
    upright = read_rgb(tmp_path / 'a.jpg')
    assert upright.shape == (48, 32, 3)
    np.testing.assert_allclose(upright, np.rot90(colours, -1), atol=12)
    unturned = decode_rgb((tmp_path / 'a.jpg').read_bytes(), upright=False)
    np.testing.assert_allclose(unturned, colours, atol=12)


def test_a_grey_image_has_three_equal_channels(tmp_path, colours):
    cv2.imwrite(str(tmp_path / 'a.png'), colours[..., 0])
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours[..., [0, 0, 0]])


def test_a_16_bit_png_is_converted_to_8_bits(tmp_path, colours):
    cv2.imwrite(str(tmp_path / 'a.png'), colours[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


def test_the_alpha_channel_is_removed(tmp_path, colours):
    Image.fromarray(np.dstack([colours, colours[..., 0]])).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_rgb(tmp_path / 'a.png'), colours)


@pytest.mark.parametrize(
    'content', [b'', b'\xff\xd8garbage', b'\x89PNG\r\n\x1a\n', b'II*\0', b'II*\0\xff\xff\xff\xff']
)
def test_a_file_that_does_not_decode_is_rejected_by_name(tmp_path, content):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ImageError, match=r'a\.png: does not decode'):
        read_rgb(tmp_path / 'a.png')
    with pytest.raises(ImageError, match=r'a\.png: does not decode'):
        read_label_image(tmp_path / 'a.png')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_label_image_is_read_without_conversion(tmp_path, dtype):
    mask = np.array([[0, 255, 7], [1, 2, np.iinfo(dtype).max]], dtype)
    cv2.imwrite(str(tmp_path / 'a.png'), mask)
    read = read_label_image(tmp_path / 'a.png')
    np.testing.assert_array_equal(read, mask)
    assert read.dtype == dtype
    assert read.dtype.isnative


@pytest.mark.parametrize('suffix', ['png', 'bmp', 'gif', 'tif'])
def test_a_palette_label_image_is_read_as_indices(tmp_path, suffix):
    mask = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    coded = Image.fromarray(mask, 'P')
    coded.putpalette([0, 0, 0, 128, 0, 0, 0, 65, 0])  # 1 and 2 have the same luma
    coded.save(tmp_path / f'a.{suffix}')
    np.testing.assert_array_equal(read_label_image(tmp_path / f'a.{suffix}'), mask)


def test_an_ignore_mask_with_a_palette_is_read_as_it_is_seen(tmp_path):
    seen = np.array([[255, 0, 255], [0, 255, 255]], np.uint8)
    grey = Image.fromarray(seen)
    grey.save(tmp_path / 'grey.png')
    grey.convert('RGB').quantize(2).save(tmp_path / 'palette.png')
    assert Image.open(tmp_path / 'palette.png').getpixel((0, 0)) == 0, 'white is the first colour'
    for name in ('grey', 'palette'):
        np.testing.assert_array_equal(read_label_image(tmp_path / f'{name}.png', False), seen)
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ImageError, match=r'text\.png: '):
        read_label_image(tmp_path / 'text.png', False)


def test_white_in_a_1_bit_label_image_is_255(tmp_path):
    mask = np.array([[True, False], [False, True]])
    Image.fromarray(mask).save(tmp_path / 'a.png', bits=1)
    assert Image.open(tmp_path / 'a.png').mode == '1'
    np.testing.assert_array_equal(read_label_image(tmp_path / 'a.png'), mask * np.uint8(255))


@pytest.mark.parametrize(
    ('mode', 'message'),
    [('RGB', 'not 3'), ('RGBA', 'not 4'), ('LA', 'not 2'), ('F', 'floating-point')],
)
def test_a_label_image_must_have_one_channel_of_integers(tmp_path, mode, message):
    name = 'a.tif' if mode == 'F' else 'a.png'
    Image.new(mode, (3, 2)).save(tmp_path / name)
    with pytest.raises(ImageError, match=rf'{name}: .*{message}'):
        read_label_image(tmp_path / name)


def test_a_label_image_with_values_above_16_bits_is_rejected(tmp_path):
    numbers = np.array([[0, 70000]], np.int32)
    Image.fromarray(numbers).save(tmp_path / 'a.tif')
    with pytest.raises(ImageError, match=r'a\.tif: labels must be 0 to 65535, not 0 to 70000'):
        read_label_image(tmp_path / 'a.tif')
    Image.fromarray(numbers % 60000).save(tmp_path / 'a.tif')
    np.testing.assert_array_equal(read_label_image(tmp_path / 'a.tif'), [[0, 10000]])


def test_a_label_image_is_rotated_by_its_exif_orientation(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours[..., 0]).save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(
        read_label_image(tmp_path / 'a.png'), np.rot90(colours[..., 0], -1)
    )


def test_a_truncated_label_image_is_rejected(tmp_path, colours):
    Image.fromarray(colours[..., 0]).save(tmp_path / 'a.png')
    whole = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r'a\.png: does not decode'):
        read_label_image(tmp_path / 'a.png')


def test_a_postscript_file_is_not_executed(tmp_path):
    Image.new('L', (3, 2)).save(tmp_path / 'a.eps')  # Pillow would run Ghostscript
    with pytest.raises(ImageError, match=r'a\.eps: does not decode'):
        read_label_image(tmp_path / 'a.eps')


@pytest.fixture(params=[0, 1], ids=['baseline', 'progressive'])
def jpeg(request, small_image):
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, request.param]
    return cv2.imencode('.jpg', small_image, options)[1].tobytes()


@pytest.mark.parametrize('missing', [1, 2])
def test_a_jpeg_without_its_end_marker_gives_the_same_pixels(jpeg, missing):
    np.testing.assert_array_equal(decode_rgb(jpeg[:-missing]), decode_rgb(jpeg))


def test_a_jpeg_without_its_end_marker_is_rotated_by_its_exif_orientation(tmp_path, colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(tmp_path / 'a.jpg', exif=exif)
    content = (tmp_path / 'a.jpg').read_bytes()
    assert content.endswith(END_OF_JPEG)
    for upright in (True, False):
        whole = decode_rgb(content, upright)
        np.testing.assert_array_equal(decode_rgb(content[:-2], upright), whole)


@pytest.mark.parametrize('part', [0.3, 0.5, 0.9])
def test_a_truncated_jpeg_is_rejected(jpeg, part):
    with pytest.raises(ImageError, match='does not decode'):
        decode_rgb(jpeg[: int(part * len(jpeg))])


@pytest.mark.parametrize(
    ('width', 'height', 'message'),
    [
        (30_000, 30_000, '900000000 pixels'),
        (20_000, 10, '20000×10; the maximum side is 16384 px'),
        (1, 16_385, '1×16385; the maximum side is 16384 px'),
        (1, 8_294_400, '1×8294400; the maximum side is 16384 px'),
    ],
)
def test_an_image_with_too_many_pixels_is_rejected_before_it_is_decoded(
    monkeypatch, width, height, message
):
    monkeypatch.setattr(decoding.cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    with pytest.raises(ImageTooLargeError, match=message):
        decode_rgb(png_header(width, height))


def test_max_pixels_is_checked_before_an_image_is_decoded(monkeypatch):
    monkeypatch.setattr(decoding.cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    with pytest.raises(ImageTooLargeError, match='max_pixels is 5000'):
        decode_rgb(png_header(100, 51), max_pixels=5000)
    with pytest.raises(ImageTooLargeError, match='256000000 pixels'):
        decode_rgb(png_header(16_000, 16_000))  # above the limit of Pillow
    one = tiff(np.zeros((1, 1, 3), np.uint8), 2)
    width = struct.Struct('<HHII')
    with pytest.raises(ImageTooLargeError, match='20000×1; the maximum side is 16384 px'):
        decode_rgb(one.replace(width.pack(256, 4, 1, 1), width.pack(256, 4, 1, 20_000)))


@pytest.mark.parametrize(
    ('width', 'height', 'message'),
    [(30_000, 30_000, '900000000 pixels'), (20_000, 1, '20000×1; the maximum side is 16384 px')],
)
def test_a_label_image_that_is_too_large_is_rejected_by_its_header(
    tmp_path, width, height, message
):
    (tmp_path / 'a.png').write_bytes(png_header(width, height))
    with pytest.raises(ImageTooLargeError, match=rf'a\.png: .*{message}'):
        read_label_image(tmp_path / 'a.png')


def test_an_image_exactly_at_the_size_limits_is_read():
    wide = cv2.imencode('.png', np.zeros((1, 16_384, 3), np.uint8))[1].tobytes()
    assert decode_rgb(wide, max_pixels=16_384).shape == (1, 16_384, 3)


@pytest.mark.parametrize('read', [read_rgb, read_label_image])
@pytest.mark.parametrize('kind', ['pipe', 'folder', 'device'])
def test_an_image_that_is_no_regular_file_is_not_opened(tmp_path, read, kind):
    path = {'pipe': tmp_path / 'a.png', 'folder': tmp_path, 'device': Path('/dev/zero')}[kind]
    if kind == 'pipe':
        os.mkfifo(path)
    with pytest.raises(OSError, match=f'{path}: is not a regular file'):
        read(path)


def test_a_file_above_the_size_limit_is_rejected_before_it_is_read(tmp_path):
    with (tmp_path / 'a.png').open('wb') as file:
        file.truncate(decoding.MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(OSError, match=r'a\.png: has \d+ bytes'):
        read_rgb(tmp_path / 'a.png')


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('bands', [3, 4])
@pytest.mark.parametrize('extra', [None, 0])
def test_a_tiff_of_several_bands_declared_as_grey_is_read_in_colour(colours, bits, bands, extra):
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = np.dstack([colours, colours[..., :1]])[..., :bands].astype(kind)
    pixels = pixels * (1 if bits == 8 else 257)
    extras = None if extra is None else [extra] * (bands - 1)
    np.testing.assert_array_equal(decode_rgb(tiff(pixels.astype(kind), 1, extras)), colours)


def test_a_tiff_of_one_band_is_read_as_grey(colours):
    grey = np.ascontiguousarray(colours[..., :1])
    np.testing.assert_array_equal(decode_rgb(tiff(grey, 1)), colours[..., [0, 0, 0]])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_inverted(colours, dtype):
    grey = np.ascontiguousarray(colours[..., :1]).astype(dtype) * dtype(np.iinfo(dtype).max // 255)
    np.testing.assert_array_equal(decode_rgb(tiff(grey, 0)), 255 - colours[..., [0, 0, 0]])
    with_alpha = np.dstack([grey, grey // 3])
    inverted = decode_rgb(tiff(with_alpha, 0, [2])).astype(int)
    np.testing.assert_allclose(inverted, 255 - colours[..., [0, 0, 0]].astype(int), atol=2)


@pytest.mark.parametrize('kind', ['P5', 'P6'])
def test_a_ppm_with_a_maximum_below_255_is_scaled_to_the_full_range(kind):
    channels = 1 if kind == 'P5' else 3
    pixels = np.arange(16, dtype=np.uint8).repeat(channels)
    rgb = decode_rgb(f'{kind}\n16 1\n15\n'.encode() + pixels.tobytes())
    assert rgb[0, :, 0].tolist() == list(range(0, 256, 17))


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('alpha', [0, 1, 2])
def test_the_alpha_channel_of_a_tiff_does_not_darken_it(colours, bits, alpha):
    kind, full = (np.uint8, 1) if bits == 8 else (np.uint16, 257)
    pixels = np.dstack([colours, np.full(colours.shape[:2], 100)]).astype(kind) * kind(full)
    np.testing.assert_array_equal(decode_rgb(tiff(pixels, 2, [alpha])), colours)


def test_a_planar_tiff_is_read_in_colour_with_8_bits_and_rejected_with_16(colours):
    planes = colours.transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_rgb(tiff(planes, 2, planar=2)), colours)
    deep = planes.astype(np.uint16) * 257
    with pytest.raises(ImageError, match='planes'):
        decode_rgb(tiff(deep, 2, planar=2))


def test_an_image_of_floats_is_rejected():
    floats = cv2.imencode('.tiff', np.ones((4, 5, 3), np.float32))[1].tobytes()
    with pytest.raises(ImageError, match='float32'):
        decode_rgb(floats)


@pytest.mark.parametrize('suffix', ['.gif', '.jp2', '.avif'])
def test_formats_that_only_pillow_reads_are_read(suffix, colours, tmp_path):
    if not features.check({'.gif': 'zlib', '.jp2': 'jpg_2000', '.avif': 'avif'}[suffix]):
        pytest.skip(f'Pillow here reads no {suffix}')
    options = {'quality': 95, 'subsampling': '4:4:4'} if suffix == '.avif' else {}
    Image.fromarray(colours).save(tmp_path / f'a{suffix}', **options)
    np.testing.assert_allclose(read_rgb(tmp_path / f'a{suffix}'), colours, atol=12)


def test_a_16_bit_jpeg_2000_is_scaled_to_8_bits(colours, tmp_path):
    if not features.check('jpg_2000'):
        pytest.skip('Pillow here reads no JPEG 2000')
    deep = colours[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / 'a.jp2')
    np.testing.assert_allclose(read_rgb(tmp_path / 'a.jp2'), colours[..., [0, 0, 0]], atol=1)


def test_heic_is_read_where_pillow_heif_is_installed(colours, tmp_path):
    pillow_heif = pytest.importorskip('pillow_heif')
    pillow_heif.from_pillow(Image.fromarray(colours)).save(tmp_path / 'a.heic', quality=95)
    np.testing.assert_allclose(read_rgb(tmp_path / 'a.heic'), colours, atol=40)


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_values_of_fewer_than_16_bits_are_scaled_to_the_full_range(bits, colours, tmp_path):
    deep = np.round(colours / 200 * (2**bits - 1)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.tif'), deep[..., ::-1])
    expected = np.round(colours / 200 * 255)
    np.testing.assert_allclose(read_rgb(tmp_path / 'a.tif'), expected, atol=1)


def test_a_given_number_of_bits_sets_the_scale(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((4, 4), 100, np.uint16))
    assert read_rgb(tmp_path / 'a.png', BitDepth(10))[0, 0, 0] == 25
    assert read_rgb(tmp_path / 'a.png', BitDepth(16))[0, 0, 0] == 0
