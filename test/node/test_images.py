# SPDX-License-Identifier: Apache-2.0
"""Conversion between image messages and arrays."""

from __future__ import annotations

import re
import sys
import types

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rock_seg_ros.node.images import (
    ENCODINGS,
    YUV_PLANES,
    ImageReader,
    InvalidImageError,
    fill,
    read_depth,
    to_message,
)
from rock_seg_ros.perception.errors import printable

try:
    import cv_bridge
except ImportError:
    cv_bridge = None


def make_reader(warn=lambda warning: None):
    return ImageReader(warn)


def decode(message):
    return make_reader().read(message)


def message_of(array, encoding, padding=0, big_endian=False):
    """Returns an Image of an H×W×C array, with `padding` bytes after each row."""
    height, width = array.shape[:2]
    stored = array.astype(array.dtype.newbyteorder('>')) if big_endian else array
    rows = np.frombuffer(np.ascontiguousarray(stored).tobytes(), np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=big_endian)
    message.step = padded.shape[1]
    message.data.frombytes(padded.tobytes())
    return message


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(('encoding', 'order'), [('rgb8', 1), ('bgr8', -1), ('8UC3', -1)])
def test_colour_images_are_converted_to_rgb_with_any_padding(rgb, encoding, order, padding):
    image = make_reader().read(message_of(rgb[..., ::order], encoding, padding))
    assert np.array_equal(image, rgb)
    assert image.strides[1:] == (3, 1)


@pytest.mark.parametrize('padding', [0, 5])
def test_an_rgb_image_is_a_view_of_the_message_data(rgb, padding):
    message = message_of(rgb, 'rgb8', padding)
    assert np.shares_memory(make_reader().read(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_images_become_three_equal_channels(rgb, encoding):
    image = make_reader().read(message_of(rgb[..., :1], encoding, padding=3))
    assert np.array_equal(image, np.repeat(rgb[..., :1], 3, axis=2))
    assert image.flags.c_contiguous


def test_alpha_is_removed_for_any_order_of_channels(rgb):
    alpha = np.full((6, 8, 1), 9, np.uint8)
    reader = make_reader()
    for encoding, stored in (('rgba8', rgb), ('bgra8', rgb[..., ::-1])):
        message = message_of(np.concatenate([stored, alpha], axis=2), encoding)
        assert np.array_equal(reader.read(message), rgb)


@pytest.mark.parametrize('padding', [0, 2, 5])
@pytest.mark.parametrize('big_endian', [False, True])
def test_sixteen_bits_are_scaled_to_eight_in_both_byte_orders(big_endian, padding):
    deep = np.array([[[0], [128], [129], [257], [32768], [65535]]] * 3, np.uint16)
    image = make_reader().read(message_of(deep, 'mono16', padding, big_endian))
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert image.dtype == np.uint8


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize(
    ('pattern', 'tile'),
    [('rggb', 'RGGB'), ('bggr', 'BGGR'), ('gbrg', 'GBRG'), ('grbg', 'GRBG')],
)
def test_a_bayer_mosaic_of_one_colour_gives_that_colour(pattern, tile, depth):
    colour = {'R': 200, 'G': 120, 'B': 40}
    scale = 1 if depth == 8 else 257
    cell = np.array([colour[c] * scale for c in tile]).reshape(2, 2)
    mosaic = np.tile(cell, (6, 8)).astype(np.uint8 if depth == 8 else np.uint16)[..., None]
    encoding = f'bayer_{pattern}{depth}'
    assert np.all(make_reader().read(message_of(mosaic, encoding))[2:-2, 2:-2] == (200, 120, 40))
    coded = CompressedImage(format=f'{encoding}; png compressed ')
    fill(coded, cv2.imencode('.png', mosaic)[1])
    assert np.all(make_reader().read(coded)[2:-2, 2:-2] == (200, 120, 40))


@pytest.mark.parametrize(
    ('encoding', 'order'),
    [('yuv422', 'UYVY'), ('uyvy', 'UYVY'), ('yuv422_yuy2', 'YUYV'), ('yuyv', 'YUYV')],
)
def test_yuv_422_of_one_colour_gives_that_colour(encoding, order):
    luma, blue, red = 82, 90, 240  # red in BT.601, studio range
    pair = [{'Y': luma, 'U': blue, 'V': red}[c] for c in order]
    stored = np.tile(np.array(pair, np.uint8), (4, 5)).reshape(4, 10, 2)
    image = make_reader().read(message_of(stored, encoding))
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.skipif(cv_bridge is None, reason='cv_bridge is not installed')
@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_the_conversion_equals_that_of_cv_bridge(encoding):
    channels, depth, _ = ENCODINGS[encoding]
    kind = np.uint8 if depth == 1 else np.uint16
    stored = np.random.default_rng(2).integers(0, np.iinfo(kind).max, (6, 8, channels), kind, True)
    stored[0, 0] = np.iinfo(kind).max  # so that all bits are significant
    message = message_of(stored, encoding)
    try:
        through_bridge = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'rgb8')
    except Exception:  # noqa: BLE001  (cv_bridge's own, and whatever a broken binding raises)
        pytest.skip('the cv_bridge installed here does not convert this')
    assert np.array_equal(make_reader().read(message), through_bridge)


def install_bridge(monkeypatch, convert):
    module = types.ModuleType('cv_bridge')
    module.CvBridge = type('CvBridge', (), {'imgmsg_to_cv2': convert})
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)


@pytest.mark.parametrize('encoding', ['uyvy', 'yuyv', 'mono16', 'bgra8'])
def test_cv_bridge_is_not_used(monkeypatch, encoding):
    install_bridge(monkeypatch, lambda *_: pytest.fail('cv_bridge was called'))
    channels, depth, _ = ENCODINGS[encoding]
    stored = np.zeros((4, 6, channels), f'u{depth}')
    message = message_of(stored, encoding, big_endian=depth > 1)
    assert make_reader().read(message).shape == (4, 6, 3)


def nv12_of(planes):
    luma, blue, red = planes
    return np.concatenate([luma.ravel(), np.dstack([blue, red]).ravel()])


def nv21_of(planes):
    luma, blue, red = planes
    return np.concatenate([luma.ravel(), np.dstack([red, blue]).ravel()])


def i420_of(planes):
    return np.concatenate([plane.ravel() for plane in planes])


def planes_of(height, width, subsampled=True):
    """Returns luma, blue and red of a ramp, so that a wrong offset is detected."""
    rows, columns = (-(-height // 2), -(-width // 2)) if subsampled else (height, width)
    luma = np.arange(height * width).reshape(height, width) * 3 % 200 + 20
    chroma = np.arange(rows * columns).reshape(rows, columns) * 5 % 200 + 20
    return [plane.astype(np.uint8) for plane in (luma, chroma, 240 - chroma)]


def expected_of(planes, subsampled=True):
    """Returns H×W×3 RGB according to BT.601, studio range."""
    luma, blue, red = (plane.astype(float) for plane in planes)
    if subsampled:
        blue, red = (
            np.kron(plane, np.ones((2, 2)))[: luma.shape[0], : luma.shape[1]]
            for plane in (blue, red)
        )
    y, u, v = 1.164 * (luma - 16), blue - 128, red - 128
    rgb = np.dstack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u])
    return np.clip(rgb, 0, 255)


def message_of_planes(data, encoding, height, width, step):
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data.frombytes(data.astype(np.uint8).tobytes())
    return message


@pytest.mark.parametrize(
    ('encoding', 'pack'), [('nv12', nv12_of), ('nv21', nv21_of), ('i420', i420_of)]
)
@pytest.mark.parametrize(('height', 'width'), [(6, 8), (5, 8)])
def test_planar_yuv_420_gives_its_colours(encoding, pack, height, width):
    planes = planes_of(height, width)
    image = make_reader().read(message_of_planes(pack(planes), encoding, height, width, width))
    assert image.shape == (height, width, 3)
    assert image.flags.c_contiguous
    assert np.abs(image - expected_of(planes)).max() <= 2


def test_nv24_gives_its_colours():
    planes = planes_of(5, 7, subsampled=False)
    image = make_reader().read(message_of_planes(nv12_of(planes), 'nv24', 5, 7, 7))
    assert np.abs(image - expected_of(planes, subsampled=False)).max() <= 2


@pytest.mark.parametrize(('encoding', 'chroma_rows'), [('nv12', 3), ('nv21', 3)])
def test_the_rows_of_two_planes_may_be_padded(encoding, chroma_rows):
    luma, blue, red = planes_of(6, 8)
    first, second = (blue, red) if encoding == 'nv12' else (red, blue)
    chroma = np.dstack([first, second]).reshape(chroma_rows, 8)
    rows = np.pad(np.concatenate([luma, chroma]), ((0, 0), (0, 8)), constant_values=77)
    image = make_reader().read(message_of_planes(rows.ravel(), encoding, 6, 8, 16))
    assert np.abs(image - expected_of((luma, blue, red))).max() <= 2


def test_the_rows_of_three_planes_may_be_padded():
    planes = planes_of(6, 8)
    rows = [
        np.pad(plane, ((0, 0), (0, padding)), constant_values=77).ravel()
        for plane, padding in zip(planes, (8, 4, 4), strict=True)
    ]
    image = make_reader().read(message_of_planes(np.concatenate(rows), 'i420', 6, 8, 16))
    assert np.abs(image - expected_of(planes)).max() <= 2


def test_a_step_that_includes_the_chroma_bytes_is_accepted():
    planes = planes_of(6, 8)
    image = make_reader().read(message_of_planes(nv12_of(planes), 'nv12', 6, 8, 12))
    assert np.abs(image - expected_of(planes)).max() <= 2


@pytest.mark.parametrize(
    ('encoding', 'pack'), [('nv12', nv12_of), ('nv21', nv21_of), ('i420', i420_of)]
)
@pytest.mark.parametrize('height', [5, 6])
@pytest.mark.parametrize('rounding', ['luma and chroma', 'chroma'])
def test_planar_yuv_420_of_odd_width_may_be_rounded_up(encoding, pack, height, rounding):
    luma, blue, red = planes_of(height, 7)
    stored = np.pad(luma, ((0, 0), (0, 1)), constant_values=77) if 'luma' in rounding else luma
    data = pack((stored, blue, red))
    image = make_reader().read(message_of_planes(data, encoding, height, 7, 7))
    assert image.shape == (height, 7, 3)
    assert np.abs(image - expected_of((luma, blue, red))).max() <= 2


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'i420'])
def test_planar_yuv_420_of_odd_width_may_be_rounded_down(encoding):
    luma, blue, red = planes_of(6, 7)
    blue[:, 3], red[:, 3] = blue[:, 2], red[:, 2]  # the last column, which is not in the data
    if encoding == 'i420':
        data = np.concatenate([luma.ravel(), blue[:, :3].ravel(), red[:, :3].ravel()])
    else:
        pairs = np.dstack([blue, red] if encoding == 'nv12' else [red, blue]).reshape(3, 8)
        data = np.concatenate([luma, pairs[:, :7]]).ravel()  # as V4L2 has it: equal steps
    image = make_reader().read(message_of_planes(data, encoding, 6, 7, 7))
    assert np.abs(image - expected_of((luma, blue, red))).max() <= 2


@pytest.mark.parametrize(
    ('encoding', 'pack'), [('nv12', nv12_of), ('nv21', nv21_of), ('i420', i420_of)]
)
def test_planar_yuv_420_of_odd_height_may_be_rounded_down(encoding, pack):
    luma, blue, red = planes_of(5, 8)
    data = pack((luma, blue[:2], red[:2]))
    blue[2], red[2] = blue[1], red[1]  # the last row, which is not in the data
    image = make_reader().read(message_of_planes(data, encoding, 5, 8, 8))
    assert np.abs(image - expected_of((luma, blue, red))).max() <= 2


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'i420'])
def test_planar_yuv_420_of_odd_width_and_unknown_layout_is_rejected_with_the_sizes(encoding):
    message = message_of_planes(np.zeros(70), encoding, 6, 7, 7)
    with pytest.raises(InvalidImageError, match=r'width 7 needs 8, or data of one of 72, 66, 6'):
        make_reader().read(message)


@pytest.mark.parametrize('encoding', sorted(YUV_PLANES))
@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (lambda m: setattr(m, 'step', 7), 'wrong step'),
        (lambda m: m.data.pop(), 'short data'),
        (lambda m: setattr(m, 'height', 0), 'zero size'),
        (lambda m: setattr(m, 'height', 16_000), 'short data'),
        (lambda m: setattr(m, 'width', 16_000), 'wrong step'),
    ],
)
def test_planar_images_with_inconsistent_fields_are_rejected(encoding, damage, reason):
    subsampled = encoding != 'nv24'
    message = message_of_planes(nv12_of(planes_of(6, 8, subsampled)), encoding, 6, 8, 8)
    make_reader().read(message)
    damage(message)
    with pytest.raises(InvalidImageError) as error:
        make_reader().read(message)
    assert error.value.reason == reason


@pytest.mark.parametrize('encoding', ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2'])
@pytest.mark.parametrize('width', [1, 5])
@pytest.mark.parametrize('padding', [0, 2])
def test_yuv_422_of_odd_width_keeps_its_last_column(encoding, width, padding):
    order = 'UYVY' if encoding in ('uyvy', 'yuv422') else 'YUYV'
    pair = [{'Y': 130, 'U': 128, 'V': 128}[c] for c in order]  # grey
    stored = np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2)[:, :width]
    image = make_reader().read(message_of(stored, encoding, padding))
    assert image.shape == (4, width, 3)
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - 133).max() <= 2


def test_the_last_column_of_an_odd_width_has_the_colour_of_its_neighbour():
    pair = [90, 82, 240, 82]  # red, as UYVY
    stored = np.tile(np.array(pair, np.uint8), (4, 3)).reshape(4, 6, 2)[:, :5]
    image = make_reader().read(message_of(stored, 'uyvy'))
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize('encoding', ['RGB8', 'Rgb8'])
def test_the_encoding_may_be_in_upper_case(rgb, encoding):
    assert np.array_equal(make_reader().read(message_of(rgb, encoding)), rgb)


def test_an_8uc4_image_is_read_as_bgra(rgb):
    alpha = np.full((6, 8, 1), 9, np.uint8)
    message = message_of(np.concatenate([rgb[..., ::-1], alpha], axis=2), '8UC4')
    assert np.array_equal(make_reader().read(message), rgb)


def test_16uc3_and_16uc4_images_are_read_as_bgr16_and_bgra16(rgb):
    deep = rgb.astype(np.uint16) * 257
    deep[0, 0] = 65535
    expected = (deep >> 8).astype(np.uint8)
    alpha = np.full((6, 8, 1), 9, np.uint16)
    bgra = np.concatenate([deep[..., ::-1], alpha], axis=2)
    assert np.array_equal(make_reader().read(message_of(bgra[..., :3], '16UC3')), expected)
    assert np.array_equal(make_reader().read(message_of(bgra, '16UC4')), expected)


def test_a_thermal_image_in_16uc1_is_read_as_mono16():
    deep = np.array([[[0], [32768], [65535]]] * 3, np.uint16)
    image = make_reader().read(message_of(deep, '16UC1'))
    assert image[0, :, 0].tolist() == [0, 128, 255]


def test_the_encoding_of_depth_may_be_in_lower_case():
    assert read_depth(message_of(np.full((2, 3, 1), 1500, np.uint16), '16uc1'))[
        0, 0
    ] == pytest.approx(1.5)


def test_the_low_bits_of_a_stream_are_scaled_equally_in_all_images_with_one_warning():
    warnings = []
    reader = make_reader(warnings.append)
    bright = message_of(np.full((2, 3, 1), 4095, np.uint16), 'mono16')
    dark = message_of(np.full((2, 3, 1), 400, np.uint16), 'mono16')
    values = [int(reader.read(message)[0, 0, 0]) for message in (bright, dark, bright, dark)]
    assert values == [255, 25, 255, 25]
    assert len(warnings) == 1
    assert '12 bits' in warnings[0]


def test_the_low_bits_of_bayer_and_compressed_images_are_scaled():
    mosaic = message_of(np.full((6, 8, 1), 1023, np.uint16), 'bayer_rggb16')
    assert make_reader().read(mosaic).min() == 255
    coded = cv2.imencode('.png', np.full((6, 8), 1023, np.uint16))[1]
    assert make_reader().read(CompressedImage(format='png', data=coded.tobytes())).min() == 255


def test_significant_bits_override_the_values_of_the_stream():
    reader = make_reader()
    reader.bit_depth.significant_bits = 16
    assert reader.read(message_of(np.full((2, 3, 1), 4095, np.uint16), 'mono16')).max() == 16


@pytest.mark.parametrize(
    ('height', 'width', 'why'), [(1, 16_385, 'the maximum side'), (101, 100, 'max_pixels is 10000')]
)
def test_an_image_that_is_too_large_is_rejected_before_it_is_decoded(height, width, why):
    message = Image(height=height, width=width, encoding='mono8', step=width)
    coded = cv2.imencode('.png', np.zeros((height, width), np.uint8))[1].tobytes()
    for image in (message, CompressedImage(format='png', data=coded)):
        with pytest.raises(InvalidImageError, match=why) as error:
            ImageReader(lambda warning: None, max_pixels=10_000).read(image)
        assert error.value.reason == 'too large'


@pytest.mark.parametrize(
    'encoding', ['', 'rgb9', '32FC1', '32FC3', '64FC1', '8UC2', '8SC3', '16UC2', '16SC1', '32SC1']
)
def test_an_unknown_encoding_is_rejected_with_the_accepted_ones(rgb, encoding):
    with pytest.raises(InvalidImageError, match='unknown encoding') as error:
        make_reader().read(message_of(rgb, encoding))
    assert error.value.reason == 'unknown encoding'
    line = printable(str(error.value))
    assert repr(encoding) in line
    for accepted in (*ENCODINGS, *YUV_PLANES):
        assert re.search(rf'\b{accepted}\b', line)


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'mono16', 'bgra8', 'bayer_rggb16', 'uyvy'])
@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (lambda m: setattr(m, 'step', m.step - 1), 'wrong step'),
        (lambda m: m.data.pop(), 'short data'),
        (lambda m: setattr(m, 'height', 0), 'zero size'),
        (lambda m: setattr(m, 'width', 0), 'zero size'),
        (lambda m: setattr(m, 'height', 16_000), 'short data'),
        (lambda m: setattr(m, 'width', 16_000), 'wrong step'),
        (lambda m: setattr(m, 'height', 2**31), 'too large'),
        (lambda m: setattr(m, 'width', 2**31), 'too large'),
    ],
)
def test_an_image_with_inconsistent_fields_is_rejected(encoding, damage, reason):
    channels, depth, _ = ENCODINGS[encoding]
    kind = np.uint8 if depth == 1 else np.uint16
    message = message_of(np.zeros((6, 8, channels), kind), encoding)
    damage(message)
    with pytest.raises(InvalidImageError) as error:
        make_reader().read(message)
    assert error.value.reason == reason


def test_an_image_that_opencv_cannot_convert_is_rejected(monkeypatch):
    monkeypatch.setitem(ENCODINGS, 'mono8', (1, 1, cv2.COLOR_YUV2RGB_I420))  # of 4 rows
    with pytest.raises(InvalidImageError) as error:
        make_reader().read(message_of(np.zeros((4, 5, 1), np.uint8), 'mono8'))
    assert error.value.reason == 'not convertible'


def test_a_compressed_image_is_decoded_to_rgb(rgb):
    _, coded = cv2.imencode('.png', rgb[..., ::-1])
    message = CompressedImage(format='png', data=coded.tobytes())
    assert np.array_equal(decode(message), rgb)


@pytest.mark.parametrize('data', [b'', b'no image', b'\xff\xd8\xff\xe0'])
def test_a_compressed_image_that_cannot_be_decoded_is_rejected(data):
    with pytest.raises(InvalidImageError):
        decode(CompressedImage(format='jpeg', data=data))


def test_an_array_is_converted_to_a_message_with_equal_pixels_and_the_header(rgb):
    header = Header(frame_id='camera')
    message = to_message(rgb[:, ::-1], 'rgb8', header)
    assert message.header is header
    assert (message.height, message.width, message.step) == (6, 8, 24)
    assert np.array_equal(make_reader().read(message), rgb[:, ::-1])


def test_the_exif_orientation_of_a_compressed_image_is_ignored():
    upright = np.zeros((8, 16, 3), np.uint8)
    _, coded = cv2.imencode('.jpg', upright)
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    app1 = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    data = coded.tobytes()[:2] + app1 + coded.tobytes()[2:]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (16, 8, 3)
    assert decode(CompressedImage(format='jpeg', data=data)).shape == (8, 16, 3)
