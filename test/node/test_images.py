# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays and back."""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rock_seg_ros.node.images import (
    CONVERTED,
    PLAIN,
    ImageReader,
    PictureRefused,
    decode,
    find_cv_bridge,
    to_message,
)

try:
    import cv_bridge
except ImportError:
    cv_bridge = None


def make_reader():
    return ImageReader(lambda told: None)


def message_of(array, encoding, padding=0, big_endian=False):
    """Makes an Image of an H×W×C array, with `padding` bytes after each row."""
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
def test_colour_becomes_rgb_whatever_the_padding(rgb, encoding, order, padding):
    picture = make_reader().read(message_of(rgb[..., ::order], encoding, padding))
    assert np.array_equal(picture, rgb)
    assert picture.strides[1:] == (3, 1)


@pytest.mark.parametrize('padding', [0, 5])
def test_rgb_is_a_view_of_the_messages_own_data(rgb, padding):
    message = message_of(rgb, 'rgb8', padding)
    assert np.shares_memory(make_reader().read(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(rgb, encoding):
    picture = make_reader().read(message_of(rgb[..., :1], encoding, padding=3))
    assert np.array_equal(picture, np.repeat(rgb[..., :1], 3, axis=2))
    assert picture.flags.c_contiguous


def test_alpha_is_left_out_whatever_the_order_of_channels(rgb):
    alpha = np.full((6, 8, 1), 9, np.uint8)
    reader = make_reader()
    for encoding, stored in (('rgba8', rgb), ('bgra8', rgb[..., ::-1])):
        message = message_of(np.concatenate([stored, alpha], axis=2), encoding)
        assert np.array_equal(reader.read(message), rgb)


@pytest.mark.parametrize('padding', [0, 2, 5])
@pytest.mark.parametrize('big_endian', [False, True])
def test_sixteen_bits_are_scaled_to_eight_in_either_byte_order(big_endian, padding):
    deep = np.array([[[0], [128], [129], [257], [32768], [65535]]] * 3, np.uint16)
    picture = make_reader().read(message_of(deep, 'mono16', padding, big_endian))
    assert picture[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert picture.dtype == np.uint8


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
    picture = make_reader().read(message_of(mosaic, f'bayer_{pattern}{depth}'))
    assert np.all(picture[2:-2, 2:-2] == (200, 120, 40))


@pytest.mark.parametrize(
    ('encoding', 'order'),
    [('yuv422', 'UYVY'), ('uyvy', 'UYVY'), ('yuv422_yuy2', 'YUYV'), ('yuyv', 'YUYV')],
)
def test_yuv_422_of_one_colour_gives_that_colour(encoding, order):
    luma, blue, red = 82, 90, 240  # red in BT.601, studio range
    pair = [{'Y': luma, 'U': blue, 'V': red}[c] for c in order]
    stored = np.tile(np.array(pair, np.uint8), (4, 5)).reshape(4, 10, 2)
    picture = make_reader().read(message_of(stored, encoding))
    assert np.abs(picture.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.skipif(cv_bridge is None, reason='cv_bridge is not installed')
@pytest.mark.parametrize('encoding', sorted(CONVERTED))
def test_opencv_and_cv_bridge_give_equal_pixels(encoding, monkeypatch):
    if find_cv_bridge(lambda told: None) is None:
        pytest.skip('the cv_bridge installed here does not convert')
    channels, depth, _ = CONVERTED[encoding]
    kind = np.uint8 if depth == 1 else np.uint16
    stored = np.random.default_rng(2).integers(0, np.iinfo(kind).max, (6, 8, channels), kind, True)
    through_bridge, through_opencv = make_reader(), make_reader()
    monkeypatch.setattr(through_opencv, '_bridge', None)
    message = message_of(stored, encoding)
    assert np.array_equal(through_bridge.read(message), through_opencv.read(message))


def install_bridge(monkeypatch, convert):
    module = types.ModuleType('cv_bridge')
    module.CvBridge = type('CvBridge', (), {'imgmsg_to_cv2': convert})
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)


def test_a_cv_bridge_that_converts_a_pixel_is_used_for_what_is_not_plain(monkeypatch, rgb):
    calls = []

    def convert(self, message, encoding):
        calls.append(message.encoding)
        return np.array([[[1, 2, 3]]], np.uint8)

    install_bridge(monkeypatch, convert)
    reader = make_reader()
    reader.read(message_of(rgb, 'rgb8'))
    reader.read(message_of(rgb[..., :1].astype(np.uint16), 'mono16'))
    assert calls == ['bgra8', 'mono16']


BROKEN_BRIDGES = {
    'wrong': lambda self, message, encoding: np.array([[[3, 2, 1]]], np.uint8),
    'raises': lambda self, message, encoding: np.no_such_array_api,
}


@pytest.mark.parametrize('convert', BROKEN_BRIDGES.values(), ids=BROKEN_BRIDGES)
def test_a_cv_bridge_that_fails_is_told_once_and_opencv_is_used(monkeypatch, rgb, convert):
    install_bridge(monkeypatch, convert)
    told = []
    reader = ImageReader(told.append)
    assert len(told) == 1
    assert 'cv_bridge does not work here' in told[0]
    deep = np.concatenate([rgb[..., ::-1], rgb[..., :1]], axis=2)
    assert np.array_equal(reader.read(message_of(deep, 'bgra8')), rgb)
    assert len(told) == 1


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        ('raise SystemError("initialization of cv_bridge_boost raised")', 1),
        ('raise ImportError("libopencv_imgproc.so.406: cannot open")', 1),
        ('import no_such_part_of_it', 1),
    ],
)
def test_a_cv_bridge_whose_import_breaks_is_told_once_and_does_not_end_the_node(
    monkeypatch, tmp_path, rgb, line, told
):
    (tmp_path / 'cv_bridge.py').write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    warnings = []
    reader = ImageReader(warnings.append)
    assert len(warnings) == told
    assert np.array_equal(reader.read(message_of(rgb, 'rgb8')), rgb)


def test_without_cv_bridge_nothing_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    warnings = []
    ImageReader(warnings.append)
    assert warnings == []


@pytest.mark.parametrize('encoding', ['', 'rgb9', '32FC1', 'nv21', '8UC2'])
def test_an_unknown_encoding_is_refused(rgb, encoding):
    with pytest.raises(PictureRefused, match='unknown encoding') as refusal:
        make_reader().read(message_of(rgb, encoding))
    assert refusal.value.reason == 'unknown encoding'


@pytest.mark.parametrize('encoding', ['rgb8', 'mono8', 'mono16', 'bgra8', 'bayer_rggb16', 'uyvy'])
@pytest.mark.parametrize(
    ('break_it', 'reason'),
    [
        (lambda m: setattr(m, 'step', m.step - 1), 'wrong step'),
        (lambda m: m.data.pop(), 'short data'),
        (lambda m: setattr(m, 'height', 0), 'zero size'),
        (lambda m: setattr(m, 'width', 0), 'zero size'),
        (lambda m: setattr(m, 'height', 2**31), 'short data'),
        (lambda m: setattr(m, 'width', 2**31), 'wrong step'),
    ],
)
def test_a_message_whose_numbers_do_not_fit_is_refused(encoding, break_it, reason):
    if encoding in CONVERTED:
        channels, depth, _ = CONVERTED[encoding]
    else:
        channels, depth = PLAIN[encoding][0], 1
    kind = np.uint8 if depth == 1 else np.uint16
    message = message_of(np.zeros((6, 8, channels), kind), encoding)
    break_it(message)
    with pytest.raises(PictureRefused) as refusal:
        make_reader().read(message)
    assert refusal.value.reason == reason


def test_a_mosaic_that_opencv_cannot_convert_is_refused():
    with pytest.raises(PictureRefused) as refusal:
        make_reader().read(message_of(np.zeros((4, 5, 2), np.uint8), 'uyvy'))
    assert refusal.value.reason == 'not convertible'


def test_a_compressed_picture_is_decoded_to_rgb(rgb):
    _, coded = cv2.imencode('.png', rgb[..., ::-1])
    message = CompressedImage(format='png', data=coded.tobytes())
    assert np.array_equal(decode(message), rgb)


@pytest.mark.parametrize('data', [b'', b'no picture', b'\xff\xd8\xff\xe0'])
def test_a_compressed_picture_that_does_not_decode_is_refused(data):
    with pytest.raises(PictureRefused):
        decode(CompressedImage(format='jpeg', data=data))


def test_an_array_becomes_a_message_of_equal_pixels_and_the_same_header(rgb):
    header = Header(frame_id='camera')
    message = to_message(rgb[:, ::-1], 'rgb8', header)
    assert message.header is header
    assert (message.height, message.width, message.step) == (6, 8, 24)
    assert np.array_equal(make_reader().read(message), rgb[:, ::-1])


def test_a_compressed_picture_stays_as_the_camera_took_it_whatever_exif_says():
    upright = np.zeros((8, 16, 3), np.uint8)
    _, coded = cv2.imencode('.jpg', upright)
    turned = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    app1 = b'\xff\xe1' + (len(turned) + 2).to_bytes(2, 'big') + turned
    data = coded.tobytes()[:2] + app1 + coded.tobytes()[2:]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (16, 8, 3)
    assert decode(CompressedImage(format='jpeg', data=data)).shape == (8, 16, 3)
