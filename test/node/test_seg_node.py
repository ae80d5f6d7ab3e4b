# SPDX-License-Identifier: Apache-2.0
"""The node on real DDS."""

from __future__ import annotations

import inspect
import json
import os
import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import rclpy
import torch
from geometry_msgs.msg import PolygonInstanceStamped
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from safetensors.torch import save_file
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger

from rock_seg_ros.node.camera import Camera
from rock_seg_ros.node.images import fill, to_message
from rock_seg_ros.node.outputs import OUTPUTS, Rocks
from rock_seg_ros.node.outputs.clouds import ROCK_POINT
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.node.seg_node import load_segmenter, warm_up
from rock_seg_ros.perception.image_io import decoding
from rock_seg_ros.perception.image_io.decoding import decode_rgb
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import embedded_name
from rock_seg_ros.perception.overlay import TINT

MASK = '/rock_seg/mask'
ROCKS = '/rock_seg/rocks'


def pixels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


def rows(cloud):
    return np.frombuffer(cloud.data, ROCK_POINT)


def watch_mask(bench):
    bench.listen(Image, MASK)
    bench.wait_active('~/mask')


def masks(bench, count):
    return bench.wait(
        lambda: len(bench.received[MASK]) >= count and bench.received[MASK], f'{count} masks'
    )


def set_parameter(bench, name, value):
    return bench.node.set_parameters([Parameter(name, value=value)])[0]


def test_every_output_has_the_unchanged_header_and_the_size_of_the_image(bench, scene):
    bench.start(min_area=1)
    # The outputs in metres need camera_info and depth: see test_metres.py.
    kinds = {o.topic: o.message_type for o in OUTPUTS if o is Rocks or not o.needs_geometry}
    for topic, kind in kinds.items():
        bench.listen(kind, topic.replace('~', '/rock_seg'), QoSProfile(depth=50))
    bench.wait_active(*kinds)
    sent = bench.send(scene)
    for topic in kinds:
        name = topic.replace('~', '/rock_seg')
        message = bench.wait(lambda name=name: bench.received[name], name)[0]
        assert message.header == sent.header, topic
        if isinstance(message, Image):
            assert (message.height, message.width) == scene.shape[:2], topic
    assert pixels(bench.received['/rock_seg/class_ids'][0]).sum() == 20 * 10 + 10 * 12
    assert np.all(pixels(bench.received['/rock_seg/confidence'][0]) == 200)
    coded = np.frombuffer(bench.received['/rock_seg/overlay/compressed'][0].data, np.uint8)
    overlay = pixels(bench.received['/rock_seg/overlay'][0]).astype(int)
    decoded = decode_rgb(coded).astype(int)
    assert decoded.shape == scene.shape
    assert np.abs(decoded - overlay).mean() < 10


def test_the_mask_is_255_on_rock_and_0_elsewhere(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.send(scene)
    mask = pixels(masks(bench, 1)[0])[..., 0]
    assert np.array_equal(mask, np.where(scene[..., 0] > 127, 255, 0))


def test_rocks_have_centroid_box_area_and_score_and_metres_are_nan(bench, scene):
    bench.start(min_area=1)
    bench.listen(PointCloud2, ROCKS)
    bench.wait_active('~/rocks')
    bench.send(scene)
    cloud = bench.wait(lambda: bench.received[ROCKS], ROCKS)[0]
    assert [f.name for f in cloud.fields] == list(ROCK_POINT.names)
    assert (cloud.width, cloud.height, cloud.point_step) == (2, 1, ROCK_POINT.itemsize)
    first, second = rows(cloud)
    assert (first['id'], second['id']) == (1, 2)
    assert (first['u'], first['v']) == (17.5, 8.5)
    assert (first['width'], first['height'], first['area']) == (20, 10, 200)
    assert (second['u'], second['v'], second['area']) == (44.5, 35.5, 120)
    assert first['score'] == pytest.approx(200 / 255)
    assert first['class_id'] == 1
    assert all(np.isnan(first[name]) for name in ('x', 'y', 'z', 'diameter'))
    assert not cloud.is_dense


def test_an_image_without_rocks_gives_empty_rocks_and_empty_polygon_points(bench):
    bench.start()
    bench.listen(PointCloud2, ROCKS)
    bench.listen(PointCloud2, '/rock_seg/polygon_points')
    bench.wait_active('~/rocks', '~/polygon_points')
    bench.send(np.zeros((32, 40, 3), np.uint8))
    for topic in (ROCKS, '/rock_seg/polygon_points'):
        cloud = bench.wait(lambda topic=topic: bench.received[topic], topic)[0]
        assert (cloud.width, len(cloud.data)) == (0, 0)


def test_polygons_are_one_message_per_rock_and_equal_polygon_points(bench, scene):
    bench.start(min_area=1)
    topics = ('/rock_seg/polygons', '/rock_seg/polygon_points')
    bench.listen(PolygonInstanceStamped, topics[0], 50)
    bench.listen(PointCloud2, topics[1])
    bench.wait_active('~/polygons', '~/polygon_points')
    bench.send(scene)
    polygons = bench.wait(
        lambda: len(bench.received[topics[0]]) == 2 and bench.received[topics[0]], 'two polygons'
    )
    cloud = bench.wait(lambda: bench.received[topics[1]], 'polygon_points')[0]
    kind = np.dtype([('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('id', 'u4')])
    points = np.frombuffer(cloud.data, kind)
    published = [
        (p.x, p.y, p.z, polygon.polygon.id)
        for polygon in polygons
        for p in polygon.polygon.polygon.points
    ]
    assert published == points.tolist()
    assert {(x, y) for x, y, _, number in published if number == 1} == {
        (8, 4),
        (27, 4),
        (27, 13),
        (8, 13),
    }


def test_rocks_are_published_last(bench, scene):
    assert OUTPUTS[-1] is Rocks
    bench.start()
    order = []
    bench.wait(lambda: bench.node.state == 'active', 'active')
    for output in OUTPUTS:
        bench.listen(output.message_type, output.topic.replace('~', '/rock_seg'), 50)
    bench.wait_active(*(output.topic for output in OUTPUTS))
    for output in bench.outputs:
        send = output.publish
        output.publish = lambda *a, o=output, send=send: (order.append(type(o)), send(*a))
    bench.send(scene)
    bench.wait(lambda: bench.received[ROCKS], ROCKS)
    assert order == list(OUTPUTS)


def test_an_image_is_dropped_if_no_output_has_a_subscriber(bench, scene):
    bench.start()
    bench.wait_active()
    bench.send(scene)
    bench.diagnosed('frames dropped', '1')
    assert bench.segmenter.images == []


def test_the_newest_image_is_processed_next_and_the_others_are_counted_as_dropped(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.segmenter.go.clear()
    bench.send(scene, stamp=1)
    bench.wait(lambda: bench.segmenter.images, 'processing of the first image')
    for stamp in range(2, 7):
        bench.send(scene, stamp=stamp)
        bench.diagnosed('frames in', str(stamp))
    bench.segmenter.go.set()
    stamps = [m.header.stamp.sec for m in masks(bench, 2)]
    assert stamps == [1, 6]
    values = bench.diagnosed('frames out', '2')
    assert (values['frames in'], values['frames dropped']) == ('6', '4')


def invalid_images(scene):
    good = to_message(scene, 'rgb8', Image().header)
    unknown, step, short, empty = (to_message(scene, 'rgb8', Image().header) for _ in range(4))
    unknown.encoding = 'nonsense'
    step.step = good.step - 1
    del short.data[-1:]
    empty.width = 0
    return {
        'unknown encoding': unknown,
        'wrong step': step,
        'short data': short,
        'zero size': empty,
    }


@pytest.mark.parametrize('reason', ['unknown encoding', 'wrong step', 'short data', 'zero size'])
def test_an_invalid_image_is_rejected_and_counted_and_the_next_one_is_processed(
    bench, scene, reason
):
    bench.start()
    watch_mask(bench)
    bench.send(invalid_images(scene)[reason])
    values = bench.diagnosed(f'rejected: {reason}', '1')
    assert values['frames rejected'] == '1'
    bench.send(scene)
    masks(bench, 1)


def test_an_image_above_max_pixels_is_rejected_until_the_limit_is_raised(bench, scene):
    bench.start(max_pixels=100)
    watch_mask(bench)
    bench.send(scene)
    bench.diagnosed('rejected: too large', '1')
    assert set_parameter(bench, 'max_pixels', 10_000).successful
    bench.send(scene)
    masks(bench, 1)


def test_a_huge_compressed_image_is_rejected_without_decoding_it(bench, scene, monkeypatch):
    bench.start('-r', 'image:=/camera/image_raw', image_transport='compressed')
    bench.publisher = bench.tester.create_publisher(
        CompressedImage, '/camera/image_raw/compressed', 1
    )
    watch_mask(bench)
    message = CompressedImage(format='png')
    fill(message, cv2.imencode('.png', np.zeros((2000, 5000), np.uint8))[1])
    monkeypatch.setattr(decoding.cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    bench.send(message)
    assert bench.diagnosed('rejected: too large', '1')['frames failed'] == '0'


def test_a_jpeg_without_end_marker_is_processed(bench, scene):
    bench.start('-r', 'image:=/camera/image_raw', image_transport='compressed')
    bench.publisher = bench.tester.create_publisher(
        CompressedImage, '/camera/image_raw/compressed', 1
    )
    watch_mask(bench)
    coded = cv2.imencode('.jpg', scene[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    bench.send(CompressedImage(format='jpeg', data=coded.removesuffix(b'\xff\xd9')))
    assert pixels(masks(bench, 1)[0]).any()


def test_low_bits_are_scaled_with_a_warning_and_significant_bits_is_live(bench, scene, capfd):
    bench.start()
    watch_mask(bench)
    deep = np.where(scene[..., :1] > 127, 4095, 1).astype(np.uint16)
    bench.send(deep[..., 0], 'mono16')
    assert pixels(masks(bench, 1)[0]).any()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[WARN]' in line]
    assert '/image: 16-bit values up to 4095 are scaled as 12 bits' in line
    assert 'set significant_bits' in line
    assert set_parameter(bench, 'significant_bits', 16).successful
    bench.send(deep[..., 0], 'mono16')
    assert not pixels(masks(bench, 2)[1]).any()
    assert not set_parameter(bench, 'significant_bits', 7).successful


def test_an_image_older_than_max_image_age_is_rejected(bench, scene):
    bench.start(max_image_age=60.0)
    watch_mask(bench)
    bench.send(scene, stamp=1)
    bench.diagnosed('rejected: too old', '1')
    bench.send(scene, stamp=bench.tester.get_clock().now().to_msg().sec)
    masks(bench, 1)


@pytest.mark.parametrize(
    'error', [RuntimeError('test error'), torch.cuda.OutOfMemoryError('CUDA oom')]
)
def test_an_error_in_one_image_does_not_affect_the_next_one(bench, scene, error):
    bench.start()
    watch_mask(bench)
    bench.segmenter.error = error
    bench.send(scene, stamp=1)
    bench.diagnosed('frames failed', '1')
    bench.send(scene, stamp=2)
    assert masks(bench, 1)[0].header.stamp.sec == 2


def test_logits_that_are_not_finite_are_an_error_of_their_image_only(
    bench, scene, white_corner, nan_segmenter, capfd
):
    bench.start(load=lambda _: nan_segmenter)
    watch_mask(bench)
    bench.send(white_corner, stamp=1)
    reason = (
        "the network's logits are not finite: the weights are damaged, or need precision 'fp32'"
    )
    assert bench.diagnosed(f'failed: {reason}', '1')['frames failed'] == '1'
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert f'processing of an image failed: {reason}' in line
    bench.send(scene, stamp=2)
    assert masks(bench, 1)[0].header.stamp.sec == 2
    assert bench.diagnosed('frames out', '1')['frames failed'] == '1'


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_pixels_of_the_ignore_mask_are_never_rock(bench, scene, tmp_path, dtype):
    valid_mask = np.full(scene.shape[:2], 255, dtype)
    valid_mask[:20] = 0
    cv2.imwrite(str(tmp_path / 'deck.png'), valid_mask)
    bench.start(ignore_mask=str(tmp_path / 'deck.png'))
    watch_mask(bench)
    bench.send(scene)
    mask = pixels(masks(bench, 1)[0])[..., 0]
    assert mask.sum() == 255 * 10 * 12
    bench.send(scene[:40])
    bench.diagnosed('rejected: not the size of ignore_mask', '1')


def test_max_rate_limits_the_rate_of_processed_images(bench, scene):
    bench.start(max_rate=4.0)
    watch_mask(bench)
    for stamp in range(1, 4):
        bench.send(scene, stamp=stamp)
        masks(bench, stamp)
    assert np.diff(bench.segmenter.starts).min() >= 0.2


@pytest.mark.parametrize(
    ('name', 'value', 'rock_pixels', 'rocks'),
    [
        ('threshold', 0.88, 120, 1),
        ('threshold', 0.95, 0, 0),
        ('min_area', 150, 320, 1),
        ('max_rocks', 1, 320, 1),
    ],
)
def test_a_live_parameter_takes_effect_from_the_next_image(
    bench, scene, name, value, rock_pixels, rocks
):
    bench.start(min_area=1)
    bench.listen(PointCloud2, ROCKS)
    watch_mask(bench)
    bench.wait_active('~/rocks')
    assert set_parameter(bench, name, value).successful
    bench.send(scene)
    assert pixels(masks(bench, 1)[0]).sum() == 255 * rock_pixels
    assert bench.wait(lambda: bench.received[ROCKS], ROCKS)[0].width == rocks


def test_overlay_alpha_and_jpeg_quality_are_live(bench, scene):
    bench.start(overlay_alpha=0.0)
    bench.listen(Image, '/rock_seg/overlay')
    bench.listen(CompressedImage, '/rock_seg/overlay/compressed')
    bench.wait_active('~/overlay', '~/overlay/compressed')
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    overlays, coded = (bench.received[f'/rock_seg/overlay{end}'] for end in ('', '/compressed'))
    bench.send(noise)
    bench.wait(lambda: overlays and coded, 'the first overlay')
    assert set_parameter(bench, 'overlay_alpha', 1.0).successful
    assert set_parameter(bench, 'jpeg_quality', 5).successful
    bench.send(noise)
    bench.wait(lambda: len(overlays) == len(coded) == 2, 'the second overlay')
    rock = noise[..., 0] > 127
    tinted = [(pixels(overlay)[rock] == TINT).all(axis=1).mean() for overlay in overlays]
    assert tinted[0] < 0.01
    assert tinted[1] > 0.5
    assert len(coded[1].data) < len(coded[0].data) / 3


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('threshold', 1.5, 'threshold'),
        ('jpeg_quality', 0, 'jpeg_quality'),
        ('device', 'cpu', 'device cannot change in state active'),
        ('image_transport', 'raw', 'image_transport cannot change in state active'),
        ('preset', 'fast', 'preset cannot change in state active'),
        ('image_topics', ['/front/image'], 'image_topics cannot change in state active'),
        ('tile', 512, 'tile cannot change in state active'),
    ],
)
def test_a_parameter_that_is_invalid_or_fixed_is_rejected_with_a_reason(bench, name, value, reason):
    bench.start()
    bench.wait_active()
    result = set_parameter(bench, name, value)
    assert not result.successful
    assert reason in result.reason
    assert '\n' not in result.reason


def test_an_invalid_choice_keeps_the_node_unconfigured_until_it_is_corrected(bench):
    bench.start(image_transport='unknown')
    assert bench.get_state() == 'unconfigured'
    result = set_parameter(bench, 'image_transport', 'other')
    assert "image_transport is 'other'; it must be one of 'raw', 'compressed'" in result.reason
    assert set_parameter(bench, 'image_transport', 'raw').successful
    assert bench.change_state('configure')


def broken_weights(tmp_path):
    good = {'weight': torch.zeros(2)}
    save_file(good, tmp_path / 'foreign.safetensors')
    save_file(good, tmp_path / 'future.safetensors', {'card': json.dumps({'format_version': 99})})
    whole = (tmp_path / 'foreign.safetensors').read_bytes()
    (tmp_path / 'truncated.safetensors').write_bytes(whole[:-3])
    (tmp_path / 'text.safetensors').write_text('not a weights file')


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('missing', 'no such file'),
        ('truncated', 'not a complete safetensors file'),
        ('text', 'is text that begins with'),
        ('foreign', 'no model metadata'),
        ('future', 'format_version must be 1, not 99'),
    ],
)
def test_an_invalid_weights_file_fails_configure_with_one_line_and_the_node_can_be_configured_again(
    bench, capfd, tmp_path, name, reason
):
    broken_weights(tmp_path)
    path = tmp_path / f'{name}.safetensors'

    def load(parameters):
        return load_segmenter(parameters) if parameters.weights else bench.segmenter

    bench.start(load=load, weights=str(path), autostart=False)
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'
    lines = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert reason in lines[0]
    assert set_parameter(bench, 'weights', '').successful
    assert bench.change_state('configure')


def test_weights_must_be_inside_weights_folder(bench, tmp_path):
    broken_weights(tmp_path)
    bench.start(load=load_segmenter, weights_folder=str(tmp_path), autostart=False)
    result = set_parameter(bench, 'weights', str(tmp_path.parent / 'other.safetensors'))
    assert f'it must be a file in weights_folder, {tmp_path}' in result.reason
    assert set_parameter(bench, 'weights', 'text.safetensors').successful
    assert not bench.change_state('configure')
    reason = f'{tmp_path}/text.safetensors: is text that begins with'
    assert reason in error_status(bench).message


def test_an_invalid_ignore_mask_fails_configure_with_one_line(bench, capfd, tmp_path):
    deck = tmp_path / 'deck.png'
    bench.start(ignore_mask=str(deck), autostart=False)
    os.mkfifo(deck)
    assert not bench.change_state('configure')
    deck.unlink()
    cv2.imwrite(str(deck), np.zeros((9, 9, 4), np.uint8))
    assert not bench.change_state('configure')
    pipe, alpha = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert f'{deck}: is not a regular file' in pipe
    assert f'{deck}: a label image must have 1 channel, not 4' in alpha
    cv2.imwrite(str(deck), np.full((9, 9), 255, np.uint8))
    assert bench.change_state('configure')


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has CUDA')
def test_device_cuda_without_cuda_fails_configure(bench):
    bench.start(load=load_segmenter, device='cuda', autostart=False)
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'


INVALID = {
    'threshold': ('7.0', 0.5),
    'max_rate': ('fast', 5.0),
    'max_rocks': ('0', 10),
    'preset': ('best', 'fast'),
    'image_topics': ('/front/image', ['/front/image']),
}


@pytest.mark.parametrize('names', [*([name] for name in INVALID), list(INVALID)], ids='-'.join)
def test_an_invalid_value_in_a_file_keeps_the_node_unconfigured_until_it_is_corrected(
    bench, capfd, tmp_path, names
):
    file = tmp_path / 'rover.yaml'
    values = ', '.join(f'{name}: {INVALID[name][0]}' for name in names)
    file.write_text(f'/**: {{ros__parameters: {{{values}}}}}')
    bench.start('--params-file', str(file))
    status = error_status(bench)
    assert status.message.startswith('cannot be configured: ')
    assert sum(name in status.message for name in names) == min(3, len(names))
    assert status.message.endswith('; and 2 more') == (len(names) > 3)
    assert bench.get_state() == 'unconfigured'
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert status.message in line
    for name in names:
        assert not bench.change_state('configure')
        assert set_parameter(bench, name, INVALID[name][1]).successful
    assert bench.change_state('configure')


def error_status(bench):
    """Waits for an error in /diagnostics and returns its status."""
    return bench.wait(
        lambda: [
            report.status[0]
            for report in bench.received['/diagnostics']
            if report.status[0].level == b'\x02'
        ],
        'an error in /diagnostics',
    )[0]


def test_without_autostart_the_node_waits_for_transitions(bench):
    bench.start(autostart=False)
    assert bench.get_state() == 'unconfigured'
    assert bench.change_state('configure')
    assert bench.get_state() == 'inactive'
    assert bench.change_state('activate')
    assert bench.get_state() == 'active'


def test_parameters_that_depend_on_each_other_are_set_one_by_one(bench):
    bench.start(autostart=False)
    assert set_parameter(bench, 'ground_plane', 'level').successful
    assert set_parameter(bench, 'depth_topics', ['/a/depth', '/b/depth']).successful
    assert not bench.change_state('configure')
    assert 'depth_topics has 2 topics; it needs 0' in bench.node._error
    assert set_parameter(bench, 'image_topics', ['/a/image', '/b/image']).successful
    assert not bench.change_state('configure')
    assert 'camera_height is 0.0' in bench.node._error
    assert set_parameter(bench, 'camera_height', 1.0).successful
    assert bench.change_state('configure')


def test_setting_autostart_while_unconfigured_activates_the_node(bench):
    bench.start(autostart=False)
    assert set_parameter(bench, 'autostart', True).successful
    bench.wait_active()
    result = set_parameter(bench, 'autostart', False)
    assert 'autostart cannot change in state active' in result.reason


def test_autostart_of_a_configured_node_has_no_effect(bench):
    bench.start(autostart=False)
    assert bench.change_state('configure')
    bench.executors[-1][0].create_task(bench.node._autostart)
    assert bench.get_state() == 'inactive'
    assert bench.change_state('activate')


@pytest.fixture
def slow_load(bench):
    """A loader that waits for an event."""
    go = threading.Event()

    def load(_):
        go.wait(60)
        return bench.segmenter

    yield SimpleNamespace(go=go, load=load)
    go.set()


def test_services_are_answered_while_the_weights_are_loaded(bench, slow_load):
    bench.start(load=slow_load.load, weights='w.safetensors')
    values = bench.diagnosed('state', 'configuring')
    assert values['loading'].startswith('weights w.safetensors for device auto for ')
    assert bench.get_state() == 'configuring'
    assert set_parameter(bench, 'threshold', 0.6).successful
    assert 'in state configuring' in set_parameter(bench, 'device', 'cpu').reason
    for label, number in (('cleanup', 0), ('configure', 0), ('', 5), ('transition_success', 0)):
        assert not bench.change_state(label, number)
    reply = bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    assert 'in state configuring' in reply.message
    slow_load.go.set()
    bench.wait_active()
    assert 'loading' not in bench.diagnosed('state', 'active')


def test_loading_is_logged_at_its_start_and_repeatedly_while_it_takes(
    bench, slow_load, capfd, monkeypatch
):
    monkeypatch.setattr('rock_seg_ros.node.seg_node.LOAD_LOG_INTERVAL', 0.2)
    bench.start(load=slow_load.load, weights='w.safetensors')
    lines = []

    def logged():
        lines.extend(line for line in capfd.readouterr().err.splitlines() if 'w.safe' in line)
        return len(lines) > 2

    bench.wait(logged, 'two further lines')
    assert 'loading weights w.safetensors for device auto' in lines[0]
    assert 'still' not in lines[0]
    assert all('still loading weights w.safetensors' in line for line in lines[1:])


def test_weights_that_never_finish_loading_fail_configure(bench, slow_load, monkeypatch):
    monkeypatch.setattr('rock_seg_ros.node.seg_node.LOAD_LOG_INTERVAL', 0.1)
    monkeypatch.setattr('rock_seg_ros.node.seg_node.LOAD_TIMEOUT', 0.2)
    bench.start(load=slow_load.load, weights='w.onnx')
    assert 'loading weights w.onnx for device auto took over 0 s' in error_status(bench).message
    assert bench.get_state() == 'unconfigured'
    slow_load.go.set()
    assert bench.change_state('configure')


@pytest.mark.parametrize(
    ('label', 'number'), [('configure', 0), ('', 3), ('', 250), ('nonsense', 0), ('cleanup', 0)]
)
def test_a_transition_that_is_not_allowed_is_answered_and_does_not_end_the_node(
    bench, label, number
):
    bench.start()
    bench.wait_active()
    assert not bench.change_state(label, number)
    assert bench.get_state() == 'active'


def test_deactivate_keeps_the_network_and_all_transitions_can_be_repeated(bench, scene):
    loads = []
    bench.start(load=lambda _: loads.append(1) or bench.segmenter)
    watch_mask(bench)
    assert bench.change_state('deactivate')
    bench.wait(lambda: not bench.publisher.get_subscription_count(), 'the end of the subscription')
    assert bench.change_state('activate')
    watch_mask(bench)
    bench.send(scene)
    masks(bench, 1)
    assert len(loads) == 1
    assert bench.change_state('deactivate')
    assert bench.change_state('cleanup')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    assert len(loads) == 2
    watch_mask(bench)
    bench.send(scene)
    masks(bench, 2)


def test_deactivate_waits_for_the_current_image_and_counts_the_waiting_one_as_dropped(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.segmenter.go.clear()
    bench.send(scene, stamp=1)
    bench.wait(lambda: bench.segmenter.images, 'processing of the image')
    bench.send(scene, stamp=2)
    bench.diagnosed('frames in', '2')
    answer = bench.ask_for_state('deactivate')
    bench.wait(lambda: bench.node._cameras[0].subscription is None, 'deactivate to begin')
    assert bench.get_state() == 'deactivating', 'services are answered meanwhile'
    assert not bench.change_state('cleanup')
    assert not answer.done()
    bench.segmenter.go.set()
    assert bench.wait(lambda: answer.done() and answer.result(), 'the answer').success
    values = bench.diagnosed('state', 'inactive')
    assert (values['frames out'], values['frames dropped']) == ('1', '1')


def test_destroying_the_node_does_not_wait_for_a_slow_image_and_counts_it_as_dropped(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.segmenter.go.clear()
    bench.send(scene)
    bench.wait(lambda: bench.segmenter.images, 'processing of the image')
    worker, statistics = bench.node._worker, bench.node._cameras[0].statistics
    executor, thread = bench.executors[-1]
    executor.shutdown()
    thread.join(20)
    begun = time.monotonic()
    bench.node.destroy_node()
    assert time.monotonic() - begun < 2.0
    del bench.node
    bench.segmenter.go.set()
    worker._thread.join(20)
    values = {v.key: v.value for v in statistics.status('', {}).values}
    assert (values['frames in'], values['frames dropped']) == ('1', '1')


def test_a_worker_that_died_is_logged_and_restarted_and_its_image_counts_as_failed(
    bench, scene, capfd
):
    bench.start()
    watch_mask(bench)
    process = bench.node._processor.process
    errors = [SystemExit('test error')]

    def die_once(*arguments):
        if errors:
            raise errors.pop()
        process(*arguments)

    bench.node._processor.process = die_once
    bench.send(scene)
    values = bench.diagnosed('worker restarts', '1')
    assert (values['frames in'], values['frames failed']) == ('1', '1')
    assert (
        'the worker thread ended with an error and is restarted: test error'
        in capfd.readouterr().err
    )
    bench.send(scene)
    masks(bench, 1)


def test_diagnostics_are_published_before_simulated_time_begins(bench):
    bench.start(use_sim_time=True)
    bench.diagnosed('state', 'active')


def test_an_image_with_a_negative_stamp_is_processed(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.send(scene, stamp=-5)
    masks(bench, 1)
    assert bench.diagnosed('frames out', '1')['frames failed'] == '0'


def test_the_compressed_transport_uses_the_remapped_image_topic(bench, scene):
    bench.start('-r', 'image:=/camera/image_raw', image_transport='compressed')
    bench.publisher = bench.tester.create_publisher(
        CompressedImage, '/camera/image_raw/compressed', 1
    )
    watch_mask(bench)
    message = CompressedImage(format='png')
    fill(message, cv2.imencode('.png', scene[..., ::-1])[1])
    bench.send(message)
    mask = pixels(masks(bench, 1)[0])[..., 0]
    assert np.array_equal(mask > 0, scene[..., 0] > 127)
    bench.send(CompressedImage(format='jpeg', data=b'\xff\xd8 no image'))
    bench.diagnosed('rejected: not decodable', '1')


def test_reload_weights_replaces_the_network_and_keeps_it_after_an_error(bench, scene, capfd):
    fresh = type(bench.segmenter)()
    answers = [bench.segmenter, ValueError('w.safetensors: no such file'), fresh]

    def load(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    bench.start(load=load)
    watch_mask(bench)
    assert set_parameter(bench, 'weights', 'w.safetensors').successful
    reply = bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    assert not reply.success
    assert 'w.safetensors: no such file' in reply.message
    (logged,) = [line for line in capfd.readouterr().err.splitlines() if reply.message in line]
    assert '[ERROR]' in logged
    bench.send(scene)
    masks(bench, 1)
    assert bench.diagnosed('frames out', '1')['weights'] == embedded_name()
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    bench.send(scene)
    masks(bench, 2)
    assert bench.diagnosed('frames out', '2')['weights'] == 'w.safetensors'
    assert (len(bench.segmenter.images), len(fresh.images)) == (1, 1)


@pytest.fixture
def slow_reload(bench):
    """Starts a node whose second load waits for an event; yields the event and the loads."""
    go, loads = threading.Event(), []

    def load(parameters):
        loads.append(parameters)
        if len(loads) == 2:
            go.wait(60)
        return bench.segmenter

    bench.start(load=load)
    watch_mask(bench)
    yield go, loads
    go.set()


def test_images_are_processed_while_weights_are_reloaded(bench, scene, slow_reload):
    go, loads = slow_reload
    answer = bench.ask(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    bench.wait(lambda: len(loads) == 2, 'the second load')
    bench.send(scene)
    masks(bench, 1)
    again = bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    assert (again.success, again.message) == (False, 'weights are already being loaded')
    assert not answer.done()
    go.set()
    assert bench.wait(lambda: answer.done() and answer.result(), 'the answer').success
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success


def test_reloaded_weights_are_discarded_if_the_node_was_cleaned_up_meanwhile(bench, slow_reload):
    go, loads = slow_reload
    answer = bench.ask(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    bench.wait(lambda: len(loads) == 2, 'the second load')
    assert bench.change_state('deactivate')
    assert bench.change_state('cleanup')
    go.set()
    reply = bench.wait(lambda: answer.done() and answer.result(), 'the answer')
    assert not reply.success
    assert 'unconfigured' in reply.message
    assert bench.node._segmenter is None


def test_services_are_answered_while_rock_abundance_is_computed(bench, scene, monkeypatch):
    bench.start()
    watch_mask(bench)
    bench.send(scene)
    masks(bench, 1)
    bench.diagnosed('frames out', '1')
    begun, go = threading.Event(), threading.Event()
    monkeypatch.setattr(
        Camera, 'abundance', lambda *_: begun.set() or (go.wait(60) and {'rocks': 2})
    )
    answer = bench.ask(Trigger, '/rock_seg/rock_abundance', Trigger.Request())
    assert begun.wait(20)
    assert bench.get_state() == 'active'
    assert not answer.done()
    go.set()
    reply = bench.wait(lambda: answer.done() and answer.result(), 'the answer')
    assert json.loads(reply.message) == {'rocks': 2}


def test_the_network_is_warmed_up_before_it_processes_images(bench, scene):
    seen = []
    bench.start(load=lambda _: seen.append(len(bench.segmenter.images)) or bench.segmenter)
    watch_mask(bench)
    assert bench.segmenter.warmed_up == [(480, 640, 1)]
    bench.send(scene)
    masks(bench, 1)
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    assert bench.segmenter.warmed_up[1:] == [(48, 64, 1)]
    bench.send(scene[:40])
    masks(bench, 2)
    for label in ('deactivate', 'cleanup', 'configure', 'cleanup', 'configure'):
        assert bench.change_state(label)
    assert bench.segmenter.warmed_up[2:] == [(40, 64, 1)] * 2
    assert seen == [0, 1, 2, 2]


def test_reload_weights_is_rejected_while_unconfigured(bench):
    bench.start(autostart=False)
    reply = bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request())
    assert not reply.success
    assert 'unconfigured' in reply.message


def test_diagnostics_have_state_device_precision_weights_and_latencies(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.send(scene, stamp=int(time.time()) - 10)
    masks(bench, 1)
    values = bench.diagnosed('frames out', '1')
    assert values['state'] == 'active'
    assert (values['device'], values['precision'], values['weights']) == (
        'cpu',
        'fp32',
        embedded_name(),
    )
    for stage in ('wait', 'read', 'network', 'publish', 'total'):
        assert float(values[f'latency {stage} p50 ms']) <= float(values[f'latency {stage} p99 ms'])
    assert float(values['latency total p95 ms']) > 0
    assert 9 < float(values['image age s']) < 70


def test_the_age_of_an_image_with_a_stamp_of_another_clock_is_not_known(bench, scene):
    bench.start()
    watch_mask(bench)
    bench.send(scene, stamp=1_391_040_000)
    masks(bench, 1)
    values = bench.diagnosed('frames out', '1')
    assert values['image age s'] == 'not known, the stamps are of another clock'


def test_publishers_are_reliable_and_polygons_have_a_depth_of_twice_max_rocks(bench):
    bench.start()
    bench.wait_active()
    for output in bench.outputs:
        qos = output._publisher.qos_profile
        assert qos.reliability.name == 'RELIABLE', output.topic
        assert qos.durability.name == 'VOLATILE', output.topic
        assert qos.depth >= (2000 if output.topic == '~/polygons' else 5)


def test_the_qos_of_topics_can_be_overridden(bench, scene):
    bench.start(
        '-p', 'qos_overrides./image.subscription.reliability:=reliable',
        '-p', 'qos_overrides./rock_seg/mask.publisher.depth:=2',
    )  # fmt: skip
    watch_mask(bench)
    assert bench.node._cameras[0].subscription.qos_profile.reliability.name == 'RELIABLE'
    assert bench.outputs[0]._publisher.qos_profile.depth == 2
    bench.send(scene)
    masks(bench, 1)


def test_the_image_subscription_is_best_effort_with_depth_1(bench):
    bench.start()
    bench.wait_active()
    qos = bench.node._cameras[0].subscription.qos_profile
    assert (qos.reliability.name, qos.depth) == ('BEST_EFFORT', 1)


@pytest.mark.parametrize('when', ['configure', 'activate'])
def test_an_invalid_qos_override_fails_the_transition_with_a_reason(bench, when):
    topic = {'configure': '/rock_seg/mask.publisher', 'activate': '/image.subscription'}[when]
    bench.start('-p', f'qos_overrides.{topic}.reliability:=perhaps', autostart=False)
    assert bench.change_state('configure') == (when == 'activate')
    if when == 'activate':
        assert not bench.change_state('activate')
    assert bench.get_state() == ('inactive' if when == 'activate' else 'unconfigured')
    assert error_status(bench).message.startswith(f'cannot be {when}')


def test_images_that_dds_loses_in_a_burst_are_counted_as_dropped(bench):
    bench.start()
    watch_mask(bench)
    small = np.zeros((8, 8, 3), np.uint8)
    bench.send(small, stamp=1)
    masks(bench, 1)
    bench.segmenter.go.clear()
    for stamp in range(2, 202):
        bench.send(small, stamp=stamp)
    bench.segmenter.go.set()

    def settled():
        bench.send(small, stamp=300)
        bench.sent_last = bench.sent_last + 1
        reports = bench.received['/diagnostics']
        values = {v.key: v.value for v in reports[-1].status[0].values} if reports else {}
        counts = {k.removeprefix('frames '): int(v) for k, v in values.items() if 'frames' in k}
        return counts.get('in', 0) > 201 and counts

    bench.sent_last = 0
    counts = bench.wait(settled, 'an image after the burst to be counted')
    assert counts['in'] <= 201 + bench.sent_last
    assert counts['dropped'] >= 100


def reception_warning(bench, monkeypatch):
    """Shortens the timeout without images, and returns the warning."""
    monkeypatch.setattr('rock_seg_ros.node.camera.IMAGE_TIMEOUT', 0.5)

    def warned():
        statuses = [report.status[0] for report in bench.received['/diagnostics']]
        return [s.message for s in statuses if s.level == b'\x01' and 'no images' in s.message]

    return bench.wait(warned, 'a warning in /diagnostics')[-1]


def test_a_topic_without_publisher_is_reported(bench, monkeypatch):
    bench.start('-r', 'image:=/no/publisher')
    assert reception_warning(bench, monkeypatch) == 'no images: /no/publisher has no publisher'


def test_a_topic_with_the_other_transport_is_reported(bench, monkeypatch):
    context = rclpy.Context()  # one participant cannot have two types on one topic
    rclpy.init(context=context, domain_id=bench.domain.number)
    camera = rclpy.create_node('camera', context=context)
    try:
        camera.create_publisher(CompressedImage, '/camera/compressed', 1)
        bench.start('-r', 'image:=/camera/compressed')
        bench.wait(
            lambda: bench.node.get_publishers_info_by_topic('/camera/compressed'), 'the publisher'
        )
        warning = reception_warning(bench, monkeypatch)
    finally:
        camera.destroy_node()
        rclpy.shutdown(context=context)
    assert 'has the type sensor_msgs/msg/CompressedImage' in warning
    assert 'image_transport raw needs sensor_msgs/msg/Image' in warning


RAW, COMPRESSED_SUFFIX = '/cam/image', '/cam/image/compressed'


@pytest.mark.parametrize(
    ('given', 'transport', 'kind', 'published', 'advice'),
    [
        (RAW, 'raw', CompressedImage, COMPRESSED_SUFFIX, 'image_transport:=compressed'),
        (RAW, 'compressed', Image, RAW, 'image_transport:=raw'),
        (COMPRESSED_SUFFIX, 'compressed', CompressedImage, COMPRESSED_SUFFIX, f'image:={RAW}'),
        (
            COMPRESSED_SUFFIX,
            'raw',
            CompressedImage,
            COMPRESSED_SUFFIX,
            f'image:={RAW} image_transport:=compressed',
        ),
    ],
)
def test_if_only_the_other_transport_is_published_its_topic_and_argument_are_reported(
    bench, monkeypatch, given, transport, kind, published, advice
):
    context = rclpy.Context()  # one participant cannot have two types on one topic
    rclpy.init(context=context, domain_id=bench.domain.number)
    camera = rclpy.create_node('camera', context=context)
    try:
        camera.create_publisher(kind, published, 1)
        bench.start('-r', f'image:={given}', image_transport=transport)
        bench.wait(lambda: bench.node.get_publishers_info_by_topic(published), 'the publisher')
        warning = reception_warning(bench, monkeypatch)
    finally:
        camera.destroy_node()
        rclpy.shutdown(context=context)
    assert warning.startswith('no images: ')
    assert warning.endswith(f'; {published} is published, use {advice}')


def test_a_publisher_whose_images_do_not_arrive_is_reported_until_they_do(
    bench, monkeypatch, scene
):
    bench.start()
    watch_mask(bench)
    assert 'qos_overrides./image.subscription.reliability' in reception_warning(bench, monkeypatch)
    monkeypatch.setattr('rock_seg_ros.node.camera.IMAGE_TIMEOUT', 60.0)
    bench.send(scene)
    masks(bench, 1)
    bench.diagnosed('frames out', '1')
    bench.wait(
        lambda: bench.received['/diagnostics'][-1].status[0].level == b'\x00', 'the status OK'
    )


@pytest.mark.parametrize(
    ('parameters', 'last_sizes', 'expected'),
    [
        (Parameters(), [()], [(480, 640, 1)]),
        (Parameters(input_width=320, input_height=240), [()], [(240, 320, 1)]),
        (Parameters(), [(), (), ()], [(480, 640, 3)]),
        (Parameters(input_width=320, input_height=240), [(720, 1280)], [(720, 1280, 1)]),
        (
            Parameters(),
            [(720, 1280), (), (1080, 1920), (720, 1280)],
            [(720, 1280, 2), (480, 640, 1), (1080, 1920, 1)],
        ),
    ],
)
def test_the_network_is_warmed_up_for_the_last_image_size_of_each_camera_or_the_default(
    parameters, last_sizes, expected
):
    network = Mock()
    warm_up(network, parameters, last_sizes)
    assert [call.args for call in network.warm_up.call_args_list] == expected
    assert not network.segment.called


def test_every_network_parameter_is_passed_to_the_segmenter(monkeypatch):
    made = Mock()
    monkeypatch.setattr('rock_seg_ros.node.seg_node.Segmenter', made)
    monkeypatch.setattr('rock_seg_ros.node.seg_node.load_weights', lambda path, *_: path)
    load_segmenter(
        Parameters(
            weights='w', device='cpu', precision='int8', backend='openvino', output_stride=8,
            input_width=64, input_height=32, preset='fast', tile=512, tile_overlap=100,
        )
    )  # fmt: skip
    passed = inspect.signature(Segmenter).bind(*made.call_args.args, **made.call_args.kwargs)
    assert passed.arguments == {
        'weights': 'w', 'device': 'cpu', 'precision': 'int8', 'backend': 'openvino',
        'output_stride': 8, 'input_size': (64, 32), 'preset': 'fast', 'tile': 512,
        'tile_overlap': 100,
    }  # fmt: skip


def test_pending_graphs_are_captured_when_no_image_waits_and_an_error_has_no_effect(bench, scene):
    bench.start()
    watch_mask(bench)
    captures = []

    def capture_pending():
        captures.append(len(bench.segmenter.images))
        raise MemoryError('too little memory')

    bench.segmenter.capture_pending = capture_pending
    for count in (1, 2):
        bench.send(scene)
        masks(bench, count)
    bench.wait(lambda: captures == [1, 2], 'the captures')
