# SPDX-License-Identifier: Apache-2.0
"""Metres, markers, obstacles, the target and track ids, as subscribers receive them."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PointStamped, Transform
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from rock_seg_ros.node import camera_geometry, transforms
from rock_seg_ros.node.camera_geometry import CameraGeometry, read_intrinsics
from rock_seg_ros.node.images import fill, read_depth, to_message
from rock_seg_ros.node.outputs import OUTPUTS, Rocks
from rock_seg_ros.node.outputs.clouds import ROCK_POINT, SURFACE_POINT

ROCKS = '/rock_seg/rocks'
FOCAL = 50.0
FAR, NEAR = 4.0, 2.0
LIT = 220


def camera_info(width=64, height=48, focal=FOCAL):
    info = CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
    info.k = [focal, 0.0, 31.5, 0.0, focal, 23.5, 0.0, 0.0, 1.0]
    return info


def depth_message(metres, frame='camera_optical_frame', encoding='32FC1'):
    kind, scale = (np.uint16, 1000) if encoding == '16UC1' else (np.float32, 1)
    scaled = np.ascontiguousarray(metres * scale).astype(kind)
    message = Image(height=scaled.shape[0], width=scaled.shape[1], encoding=encoding)
    message.step = scaled[0].nbytes
    message.header.frame_id = frame
    fill(message, scaled)
    return message


@pytest.fixture
def depth(scene):
    """48×64 m: the ground FAR away, the rocks of `scene` NEAR."""
    return np.where(scene[..., 0] > 127, NEAR, FAR).astype(np.float32)


def compressed_depth_message(metres, frame='camera_optical_frame'):
    """Depth as compressed_depth_image_transport publishes it for a 16UC1 topic."""
    png = cv2.imencode('.png', (metres * 1000).astype(np.uint16))[1].tobytes()
    message = CompressedImage(format='16UC1; compressedDepth png', data=bytes(12) + png)
    message.header.frame_id = frame
    return message


class CameraStub:
    """Publishes camera_info, depth and images to the node of a bench."""

    def __init__(self, bench, *ros_args, depth_topic='/depth', kind=Image, **parameters):
        self.bench = bench
        self.log = log = []
        bench.start(*ros_args, min_area=1, **parameters)
        logger = bench.node.get_logger()
        bench.node.get_logger = lambda: SimpleNamespace(
            warning=lambda line, **_: log.append(line), info=logger.info, error=logger.error
        )
        self.infos = bench.tester.create_publisher(CameraInfo, '/camera_info', 1)
        if depth_topic is not None:
            self.depths = bench.tester.create_publisher(kind, depth_topic, 5)
        bench.listen(PointCloud2, ROCKS)
        bench.wait_active('~/rocks')
        bench.wait(self.infos.get_subscription_count, 'the subscription to camera_info')
        if depth_topic is not None:
            bench.wait(self.depths.get_subscription_count, 'the subscription to depth')
        (camera,) = bench.node._cameras
        self.geometry = camera.geometry

    def send_info(self, info):
        """Publishes a camera_info and waits until the node has it."""
        before = self.geometry._info
        self.infos.publish(info)
        self.bench.wait(lambda: self.geometry._info is not before, 'camera_info to arrive')

    def send(self, image, depth=None, stamp=1):
        """Publishes depth, then its image; returns the rows of ~/rocks and their cloud."""
        if depth is not None:
            depth.header.stamp.sec, depth.header.stamp.nanosec = stamp, 123456789
            before = self.geometry._depth_received
            self.depths.publish(depth)
            self.bench.wait(lambda: self.geometry._depth_received > before, 'depth to arrive')
        count = len(self.bench.received[ROCKS])
        self.bench.send(image, stamp=stamp)
        self.bench.wait(lambda: len(self.bench.received[ROCKS]) > count, ROCKS)
        cloud = self.bench.received[ROCKS][-1]
        return np.frombuffer(cloud.data, ROCK_POINT), cloud

    def wait_ignored(self, reason):
        """Waits until the diagnostics count an input that is ignored for this reason."""
        return self.bench.diagnosed(f'ignored: {reason}', '1')


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1'])
def test_with_camera_info_and_depth_rocks_have_metres(bench, scene, depth, encoding):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    (first, second), cloud = stub.send(scene, depth_message(depth, encoding=encoding))
    assert cloud.is_dense
    # The 20×10 rock, whose middle is at 17.5, 8.5 px, 2 m away.
    position = [first[name] for name in ('x', 'y', 'z')]
    assert position == pytest.approx([(17.5 - 31.5) * 2 / 50, (8.5 - 23.5) * 2 / 50, 2], abs=0.02)
    assert first['diameter'] == pytest.approx(2 * np.sqrt(200 / np.pi) * NEAR / FOCAL, rel=0.05)
    assert first['extent_x'] == pytest.approx(20 * NEAR / FOCAL, rel=0.1)
    assert first['distance'] == pytest.approx(np.linalg.norm(position), rel=0.01)
    assert second['z'] == pytest.approx(NEAR, rel=0.01)


def test_without_depth_metres_are_nan_and_the_cloud_is_not_dense(bench, scene):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    rows, cloud = stub.send(scene)
    assert not cloud.is_dense
    for name in ('x', 'y', 'z', 'diameter', 'distance', 'height_above_ground', 'extent_z'):
        assert np.isnan(rows[name]).all(), name


def test_with_level_ground_rocks_have_metres_without_depth(bench, scene):
    stub = CameraStub(bench, ground_plane='level', camera_height=1.0, camera_tilt=0.8)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene)
    assert np.isfinite(rows['z']).all()
    assert rows['z'][1] < rows['z'][0], 'the rock lower in the image is nearer'


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda d: depth_message(d[:40]), 'depth: size differs'),
        (lambda d: depth_message(d, frame='elsewhere'), 'depth: frame_id differs'),
        (lambda d: depth_message(d, encoding='bgr8'), 'depth: unknown encoding'),
    ],
)
def test_depth_that_does_not_fit_the_image_is_ignored_and_counted(
    bench, scene, depth, change, reason
):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene, change(depth))
    assert len(rows) == 2
    assert np.isnan(rows['z']).all()
    stub.wait_ignored(reason)
    stub.send(scene, change(depth), stamp=2)
    (line,) = stub.log  # once only
    kind, _, why = reason.partition(': ')
    assert line.startswith(f'{kind}: /depth is ignored: {why}')


def test_the_warning_about_another_depth_frame_names_both_frames_and_the_parameter(
    bench, scene, depth
):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth, frame='camera_depth_optical_frame'))
    (line,) = stub.log
    assert 'camera_depth_optical_frame, the images are in camera_optical_frame' in line
    assert 'depth_registered' in line


def test_with_depth_registered_depth_is_used_although_its_frame_differs(bench, scene, depth):
    stub = CameraStub(bench, depth_registered=True)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene, depth_message(depth, frame='camera_depth_optical_frame'))
    assert rows['z'] == pytest.approx([NEAR] * 2, rel=0.01)
    rows, _ = stub.send(scene, depth_message(depth[:40]), stamp=2)
    assert np.isnan(rows['z']).all(), 'the size must be equal nevertheless'


def test_compressed_depth_gives_metres(bench, scene, depth):
    topic = '/camera/depth/compressedDepth'
    stub = CameraStub(bench, '-r', f'depth:={topic}', depth_topic=topic, kind=CompressedImage)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene, compressed_depth_message(depth))
    assert rows['z'] == pytest.approx([NEAR] * 2, rel=0.01)
    late = compressed_depth_message(depth)
    late.format = '16UC1; compressedDepth rvl'
    late.data = bytes(100)
    rows, _ = stub.send(scene, late, stamp=2)
    assert np.isnan(rows['z']).all()
    stub.wait_ignored('depth: not compressed as PNG')
    (line,) = stub.log
    assert line.startswith(f'depth: {topic} is ignored: not compressed as PNG (format')


@pytest.mark.parametrize('other', ['/depth/compressedDepth', '/depth/compressed'])
def test_depth_that_is_published_only_with_another_transport_is_reported_once(bench, scene, other):
    bench.tester.create_publisher(CompressedImage, other, 5)
    stub = CameraStub(bench, depth_topic=None)
    bench.wait(lambda: stub.log, 'a line in the log')
    reports = len(bench.received['/diagnostics'])
    bench.wait(lambda: len(bench.received['/diagnostics']) > reports + 1, 'two more reports')
    assert stub.log == [
        f'depth: /depth has no publisher, but {other} is published; use depth:={other}, or name'
        ' this topic in depth_topics'
    ]


def test_depth_with_another_stamp_is_ignored_and_counted(bench, scene, depth):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth), stamp=10)
    rows, _ = stub.send(scene, stamp=9)
    assert np.isnan(rows['z']).all()
    stub.wait_ignored('depth: none at the time of the image')


def test_depth_that_is_published_but_not_received_is_counted_as_ignored(bench, scene):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene)
    assert np.isnan(rows['z']).all()
    stub.wait_ignored('depth: none received')


@pytest.mark.parametrize('value', [0.0, np.nan, -1.0, np.inf])
def test_depth_without_valid_values_gives_no_metres(bench, scene, depth, value):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    rows, _ = stub.send(scene, depth_message(np.full_like(depth, value)))
    assert len(rows) == 2
    assert np.isnan(rows['z']).all()


@pytest.mark.parametrize(
    ('info', 'reason'),
    [
        (camera_info(focal=0.0), 'camera_info: the focal lengths must be above 0, not 0, 0'),
        (camera_info(width=640), 'camera_info: size differs'),
    ],
)
def test_camera_info_that_does_not_fit_the_image_is_ignored_and_counted(
    bench, scene, depth, info, reason
):
    stub = CameraStub(bench)
    stub.send_info(info)
    rows, _ = stub.send(scene, depth_message(depth))
    assert np.isnan(rows['z']).all()
    stub.wait_ignored(reason)
    stub.send(scene, depth_message(depth), stamp=2)
    (line,) = stub.log  # once only
    assert line.startswith(f'camera_info: /camera_info is ignored: {reason.partition(": ")[2]}')


MODELS_OF_DRIVERS = [
    ('equidistant', [0.01, 0.0, 0.0, 0.0, 0.0]),
    ('none', []),
    ('none', [0.0] * 5),
    ('radtan', [0.1, 0.0, 0.0, 0.0]),
    ('fisheye', [0.01, 0.0, 0.0, 0.0]),
    ('kannala_brandt4', [0.01, 0.0, 0.0, 0.0]),
]


def test_camera_info_of_common_drivers_gives_metres(bench, scene, depth):
    infos = [
        CameraInfo(width=64, height=48, distortion_model=model, d=coefficients, k=camera_info().k)
        for model, coefficients in MODELS_OF_DRIVERS
    ]
    stereo = camera_info()
    stereo.p = [FOCAL, 0.0, 31.5, 0.0, 0.0, FOCAL, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    stereo.k = [0.0] * 9
    stub = CameraStub(bench)
    for stamp, info in enumerate([*infos, stereo], 1):
        stub.send_info(info)
        rows, _ = stub.send(scene, depth_message(depth), stamp)
        assert rows['z'] == pytest.approx([NEAR, NEAR], rel=0.01), info.distortion_model
        assert np.isfinite(rows['diameter']).all()
    assert stub.log == []


def test_depth_without_camera_info_is_counted_as_ignored(bench, scene, depth):
    stub = CameraStub(bench)
    rows, _ = stub.send(scene, depth_message(depth))
    assert np.isnan(rows['z']).all()
    stub.wait_ignored('camera_info: none received')


def test_metres_are_available_after_stamps_jumped_back(bench, scene, depth):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    for stamp in (100, 5):
        rows, _ = stub.send(scene, depth_message(depth), stamp=stamp)
        assert np.isfinite(rows['z']).all()


def test_an_image_waits_for_its_depth_while_depth_arrives(bench, scene, depth):
    stub = CameraStub(bench, depth_tolerance=5.0)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth), stamp=1)
    late = depth_message(depth + 1)
    late.header.stamp.sec, late.header.stamp.nanosec = 2, 123456789
    bench.segmenter.go.clear()
    bench.send(scene, stamp=2)
    bench.wait(lambda: len(bench.segmenter.images) == 2, 'the image to be processed')
    bench.segmenter.go.set()
    stub.depths.publish(late)
    cloud = bench.wait(lambda: len(bench.received[ROCKS]) == 2 and bench.received[ROCKS][1], ROCKS)
    assert np.frombuffer(cloud.data, ROCK_POINT)['z'] == pytest.approx([NEAR + 1] * 2, rel=0.01)


@pytest.mark.parametrize('first', ['depth', 'image'])
def test_depth_that_arrives_every_few_seconds_is_used(bench, scene, depth, first):
    stub = CameraStub(bench, depth_tolerance=5.0)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    message = depth_message(depth + 1)
    message.header.stamp.sec, message.header.stamp.nanosec = 3, 123456789
    if first == 'depth':  # and the network is slow
        stub.geometry._on_depth(message)
    stub.geometry._depth_received -= 2
    bench.send(scene, stamp=3)
    bench.wait(lambda: len(bench.segmenter.images) == 2, 'the network to run')
    if first == 'image':
        stub.depths.publish(message)
    cloud = bench.wait(lambda: len(bench.received[ROCKS]) == 2 and bench.received[ROCKS][1], ROCKS)
    assert np.frombuffer(cloud.data, ROCK_POINT)['z'] == pytest.approx([NEAR + 1] * 2, rel=0.01)
    assert stub.log == []


def test_the_mask_is_published_before_the_depth_arrives_and_the_rocks_after_it(
    bench, scene, depth, monkeypatch
):
    monkeypatch.setattr(camera_geometry, 'MAX_DEPTH_SILENCE', 60.0)  # also on a slow machine
    stub = CameraStub(bench, depth_tolerance=10.0)
    topics = [f'/rock_seg/{name}' for name in ('mask', 'class_ids', 'confidence')]
    for topic in topics:
        bench.listen(Image, topic)
    bench.wait_active(*(topic.replace('/rock_seg', '~') for topic in topics))
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    bench.send(scene, stamp=2)
    for topic in topics:
        bench.wait(lambda topic=topic: len(bench.received[topic]) == 2, topic)
    assert len(bench.received[ROCKS]) == 1
    late = depth_message(depth + 1)
    late.header.stamp.sec, late.header.stamp.nanosec = 2, 123456789
    stub.depths.publish(late)
    cloud = bench.wait(lambda: len(bench.received[ROCKS]) == 2 and bench.received[ROCKS][1], ROCKS)
    assert np.frombuffer(cloud.data, ROCK_POINT)['z'] == pytest.approx([NEAR + 1] * 2, rel=0.01)
    assert cloud.header == bench.received[topics[0]][1].header


def test_the_depth_of_an_image_is_kept_while_the_network_runs(bench, scene, depth):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    bench.segmenter.go.clear()
    message = depth_message(depth)
    message.header.stamp.sec, message.header.stamp.nanosec = 1, 123456789
    stub.geometry._on_depth(message)
    bench.send(scene)
    bench.wait(lambda: bench.segmenter.images, 'the network to run')
    for number in range(40):
        later = depth_message(depth + 1)
        later.header.stamp.sec, later.header.stamp.nanosec = 2, number
        stub.geometry._on_depth(later)
    bench.segmenter.go.set()
    (cloud,) = bench.wait(lambda: bench.received[ROCKS], ROCKS)
    assert np.frombuffer(cloud.data, ROCK_POINT)['z'] == pytest.approx(NEAR, rel=0.01)


def test_outputs_in_metres_have_the_unchanged_header_of_the_image(bench, scene, depth):
    stub = CameraStub(bench, target_max_diameter=1.0, target_min_score=0.5)
    kinds = {o.topic.replace('~', '/rock_seg'): o for o in OUTPUTS if o.needs_geometry}
    for topic, output in kinds.items():
        bench.listen(output.message_type, topic)
    bench.wait_active(*(output.topic for output in kinds.values()))
    stub.send_info(camera_info())
    _, cloud = stub.send(scene, depth_message(depth))
    for topic in kinds:
        message = bench.wait(lambda topic=topic: bench.received[topic], topic)[0]
        headers = [m.header for m in getattr(message, 'markers', [message])]
        assert headers == [cloud.header] * len(headers), topic
    assert (cloud.header.stamp.nanosec, cloud.header.frame_id) == (
        123456789,
        'camera_optical_frame',
    )


def test_obstacles_are_the_surface_points_of_rocks(bench, scene, depth):
    stub = CameraStub(bench, obstacle_step=2)
    topic = '/rock_seg/obstacles'
    bench.listen(PointCloud2, topic)
    bench.wait_active('~/obstacles')
    stub.send_info(camera_info())
    stub.send(scene)
    stub.send(scene, depth_message(depth), stamp=2)
    bench.wait(lambda: bench.received[topic], topic)
    (cloud,) = bench.received[topic]  # none of the image without depth
    points = np.frombuffer(cloud.data, SURFACE_POINT)
    assert len(points) == (200 + 120) / 4
    assert np.allclose(points['z'], NEAR)
    assert cloud.is_dense
    assert cloud.header.stamp.sec == 2


def test_no_rocks_are_located_if_only_obstacles_have_a_subscriber(bench, scene, depth):
    bench.start(min_area=1)
    topic = '/rock_seg/obstacles'
    bench.listen(PointCloud2, topic)
    bench.wait_active('~/obstacles')
    (camera,) = bench.node._cameras
    camera.geometry._on_info(camera_info())
    message = depth_message(depth)
    message.header.stamp.sec, message.header.stamp.nanosec = 1, 123456789
    camera.geometry._on_depth(message)
    bench.send(scene)
    bench.wait(lambda: bench.received[topic] and camera.last_analysis, topic)
    assert 'locations' not in vars(camera.last_analysis)


def test_the_target_is_a_rock_of_the_required_size_and_is_marked_in_rocks(bench, scene, depth):
    stub = CameraStub(
        bench, target_min_diameter=0.1, target_max_diameter=0.55, target_min_score=0.5
    )
    topic = '/rock_seg/target'
    bench.listen(PointStamped, topic)
    bench.wait_active('~/target')
    stub.send_info(camera_info())
    (first, second), cloud = stub.send(scene, depth_message(depth))
    assert (first['target'], second['target']) == (0, 1), 'the first one is 0.64 m wide'
    target = bench.wait(lambda: bench.received[topic], topic)[0]
    assert target.header == cloud.header
    point = (target.point.x, target.point.y, target.point.z)
    assert point == pytest.approx([second[name] for name in ('x', 'y', 'z')])
    stub.bench.node.set_parameters([Parameter('target_max_diameter', value=0.2)])
    rows, _ = stub.send(scene, depth_message(depth), stamp=2)
    assert not rows['target'].any()
    assert len(bench.received[topic]) == 1


def markers_of(bench, stub, scene, depth=None):
    topic = '/rock_seg/markers'
    bench.listen(MarkerArray, topic)
    bench.wait_active('~/markers')
    stub.send(scene, depth)
    return bench.wait(lambda: bench.received[topic], topic)[0].markers


def test_markers_are_closed_outlines_at_the_rocks_depth_with_ids_as_text(bench, scene, depth):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    first, *rest = markers_of(bench, stub, scene, depth_message(depth))
    assert first.action == Marker.DELETEALL
    lines = [m for m in rest if m.type == Marker.LINE_STRIP]
    texts = [m for m in rest if m.type == Marker.TEXT_VIEW_FACING]
    assert (len(lines), [m.text for m in texts]) == (2, ['1', '2'])
    assert lines[0].points[0] == lines[0].points[-1]
    assert {round(point.z, 2) for point in lines[0].points} == {NEAR}
    xs = [point.x for point in lines[0].points]
    assert min(xs) == pytest.approx((8 - 31.5) * NEAR / FOCAL, abs=0.01)
    assert max(xs) == pytest.approx((27 - 31.5) * NEAR / FOCAL, abs=0.01)
    assert lines[0].color != lines[1].color
    assert all(m.header.frame_id == 'camera_optical_frame' for m in rest)
    assert len({(m.ns, m.id) for m in rest}) == len(rest)


def test_with_only_camera_info_markers_are_on_the_plane_z_1(bench, scene):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    _, line, *_ = markers_of(bench, stub, scene)
    assert {point.z for point in line.points} == {1.0}


def test_without_camera_info_the_markers_are_only_deleted(bench, scene):
    (only,) = markers_of(bench, CameraStub(bench), scene)
    assert only.action == Marker.DELETEALL


def specks():
    """480×640 RGB: over ten thousand bright pixels that do not touch."""
    image = np.full((480, 640, 3), 60, np.uint8)
    image[::5, ::5] = LIT
    return image


@pytest.mark.parametrize(
    ('image', 'count'), [(specks(), 1000), (np.full((480, 640, 3), LIT, np.uint8), 1)]
)
def test_many_small_rocks_and_one_rock_that_fills_the_image_are_reported(bench, image, count):
    reliable = 'qos_overrides./image.subscription.reliability'
    stub = CameraStub(bench, max_rocks=1000, **{reliable: 'reliable'})
    info = camera_info(640, 480, 500.0)
    stub.send_info(info)
    depth = np.full(image.shape[:2], 3.0)
    for stamp in (1, 2):
        rows, _ = stub.send(image, depth_message(depth), stamp)
        assert len(rows) == count
        assert np.isfinite(rows['z']).all()
        assert len(set(rows['id'].tolist())) == count
    assert not rows['target'].any()


def test_instances_have_the_row_of_each_rock_in_rocks(bench, scene):
    stub = CameraStub(bench)
    topic = '/rock_seg/instances'
    bench.listen(Image, topic)
    bench.wait_active('~/instances')
    rows, _ = stub.send(scene)
    message = bench.wait(lambda: bench.received[topic], topic)[0]
    assert (message.encoding, message.step) == ('mono16', 128)
    pixels = np.frombuffer(message.data, np.uint16).reshape(48, 64)
    assert {int(n): int((pixels == n).sum()) for n in np.unique(pixels)} == {
        0: 48 * 64 - 320, 1: rows['area'][0], 2: rows['area'][1],
    }  # fmt: skip


def test_a_rock_keeps_its_id_in_a_moving_image_until_tracks_are_reset(bench):
    chance = np.random.default_rng(5)
    ground = textured(chance)
    stub = CameraStub(bench)
    ids = []
    for number, shift in enumerate((0, 6, 12)):
        image = np.ascontiguousarray(ground[:, shift : shift + 160])
        rows, _ = stub.send(image, stamp=1 + number)
        ids.append(sorted(zip(rows['area'].tolist(), rows['id'].tolist(), strict=True)))
    assert len(ids[0]) == 2
    assert ids[0] == ids[1] == ids[2]
    answer = bench.call(Trigger, '/rock_seg/reset_tracks', Trigger.Request())
    assert answer.success
    rows, _ = stub.send(image, stamp=4)
    assert min(rows['id']) > max(number for _, number in ids[0])


def test_ids_are_not_reused_after_a_cleanup(bench, scene):
    stub = CameraStub(bench)
    before, _ = stub.send(scene, stamp=50)
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert bench.change_state(transition)
    bench.wait_active('~/rocks')
    after, _ = stub.send(scene, stamp=5)  # an earlier stamp, which resets the tracks
    assert min(after['id']) > max(before['id'])


class LateTf:
    """A fake tf2_ros that has the pose of an image after a number of lookups."""

    TransformException = LookupError

    def __init__(self, lookups, behind=0.01):
        self.lookups, self.behind = lookups, behind
        self.stamps = []

    def Buffer(self):  # noqa: N802  (tf2_ros has it so)
        return self

    def TransformListener(self, *_):  # noqa: N802
        return SimpleNamespace(unregister=lambda: None)

    def lookup_transform(self, target, source, time):
        stamp = time.nanoseconds
        if stamp:
            self.stamps.append(stamp)
            if len(self.stamps) <= self.lookups:
                raise self.TransformException('extrapolation into the future')
        header = Header()
        newest = self.stamps[-1] - int(self.behind * 1e9)
        header.stamp.sec, header.stamp.nanosec = divmod(newest, 10**9)
        return SimpleNamespace(transform=Transform(), header=header)


def test_a_pose_that_arrives_later_than_its_image_is_waited_for(bench, scene, depth, monkeypatch):
    tf = LateTf(lookups=3)
    monkeypatch.setattr(transforms, 'tf2_ros', tf)
    stub = CameraStub(bench, fixed_frame='odom', depth_tolerance=10.0)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    (camera,) = bench.node._cameras
    assert camera.last_analysis.pose is not None
    assert len(tf.stamps) == 4


def test_several_cameras_share_one_deadline_for_waiting(bench, scene, depth, monkeypatch):
    names = ('front', 'middle', 'rear')
    bench.start(
        min_area=1,
        depth_tolerance=10.0,
        image_topics=[f'/{name}/image_raw' for name in names],
        depth_topics=[f'/{name}/depth' for name in names],
    )
    bench.wait(lambda: bench.node.state == 'active', 'active')
    deadlines = []
    view, pose = CameraGeometry.view, CameraGeometry.pose
    monkeypatch.setattr(
        CameraGeometry,
        'view',
        lambda self, h, s, t, d: deadlines.append(d) or view(self, h, s, t, 0.0),
    )
    monkeypatch.setattr(
        CameraGeometry, 'pose', lambda self, h, d: deadlines.append(d) or pose(self, h, d)
    )
    cameras = {camera.name: camera for camera in bench.node._cameras}
    publishers = []
    for name in names:
        bench.listen(PointCloud2, f'/rock_seg/{name}/rocks')
        rocks = next(o for o in cameras[name].outputs if isinstance(o, Rocks))
        bench.wait(lambda rocks=rocks: rocks.has_subscribers, name)
        publishers.append(bench.tester.create_publisher(Image, f'/{name}/image_raw', 5))
        bench.wait(publishers[-1].get_subscription_count, name)
        cameras[name].geometry._on_info(camera_info())
        cameras[name].geometry._on_depth(depth_message(depth))
    image = to_message(scene, 'rgb8', Image().header)
    image.header.frame_id = 'camera_optical_frame'
    bench.segmenter.go.clear()
    publishers[0].publish(image)
    bench.wait(lambda: bench.segmenter.images, 'the network to run')
    for publisher in publishers:
        publisher.publish(image)
    mailbox = bench.node._worker.mailbox
    bench.wait(lambda: len(mailbox._items) == 3, 'all three to wait')
    bench.segmenter.go.set()
    for name in names:
        bench.wait(lambda name=name: bench.received[f'/rock_seg/{name}/rocks'], name)
    bench.wait(lambda: len(deadlines) == 8, 'views and poses')
    assert len(set(deadlines[2:])) == 1
    assert 0 < deadlines[2] - time.monotonic() < 10


def test_the_cached_intrinsics_are_thread_safe(bench, monkeypatch):
    """While one thread compares, another one replaces the cache for an image of another size."""
    stub = CameraStub(bench)
    large, small = camera_info(), camera_info(32, 24)
    monkeypatch.setattr(
        camera_geometry, 'read_image_intrinsics', lambda info, shape, _: f'{info.width} for {shape}'
    )
    assert stub.geometry._intrinsics(large, (48, 64)) == '64 for (48, 64)'
    same, others = camera_geometry._same_intrinsics, [small]

    def compare(one, other):
        if others:
            stub.geometry._intrinsics(others.pop(), (24, 32))
        return same(one, other)

    monkeypatch.setattr(camera_geometry, '_same_intrinsics', compare)
    assert stub.geometry._intrinsics(large, (48, 64)) == '64 for (48, 64)'


def test_with_a_fixed_frame_the_tracker_receives_the_pose_of_the_camera(
    bench, scene, depth, monkeypatch
):
    class Buffer:
        def lookup_transform(self, target, source, time):
            moved = Transform()
            moved.translation.x = time.nanoseconds * 1e-9
            assert (target, source) == ('odom', 'camera_optical_frame')
            return SimpleNamespace(transform=moved)

    class TransformListener:
        def __init__(self, *_):
            pass

        def unregister(self):
            pass

    fake = SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=KeyError
    )
    monkeypatch.setattr(transforms, 'tf2_ros', fake)
    stub = CameraStub(bench, fixed_frame='odom')
    others = [output for output in OUTPUTS if output is not Rocks]
    for output in others:
        bench.listen(output.message_type, output.topic.replace('~', '/rock_seg'))
    bench.wait_active(*(output.topic for output in others))
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    (camera,) = bench.node._cameras
    assert camera.last_analysis.pose[0, 3] == pytest.approx(1.123456789)
    assert camera.tracker._posed_view.pose is camera.last_analysis.pose


def test_without_tracking_ids_count_from_1_in_each_image(bench, scene):
    stub = CameraStub(bench, track=False)
    for number in range(2):
        rows, _ = stub.send(scene[::-1] if number else scene, stamp=1 + 20 * number)
        assert rows['id'].tolist() == [1, 2]


def test_rock_abundance_answers_for_the_last_image(bench, scene, depth):
    stub = CameraStub(bench)
    service = '/rock_seg/rock_abundance'
    assert not bench.call(Trigger, service, Trigger.Request()).success
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    answer = bench.call(Trigger, service, Trigger.Request())
    assert answer.success
    answer_values = json.loads(answer.message)
    assert answer_values['stamp'] == [1, 123456789]
    assert (answer_values['images'], answer_values['rocks']) == (1, 2)
    assert answer_values['pixel_share'] == pytest.approx(320 / (48 * 64))
    assert 0 < answer_values['abundance'] < 1
    stub.send(scene, stamp=50)
    answer_values = json.loads(bench.call(Trigger, service, Trigger.Request()).message)
    assert answer_values['abundance'] is None, 'no metres without depth'
    assert answer_values['rocks'] == 2, 'the number of rocks is known without metres'


def test_rock_abundance_uses_camera_info_and_depth_that_arrived_after_the_image(
    bench, scene, depth
):
    stub = CameraStub(bench)
    stub.send(scene)
    stub.send_info(camera_info())
    message = depth_message(depth)
    message.header.stamp.sec, message.header.stamp.nanosec = 1, 123456789
    stub.geometry._on_depth(message)
    answer = bench.call(Trigger, '/rock_seg/rock_abundance', Trigger.Request())
    answer_values = json.loads(answer.message)
    assert answer_values['rocks'] == 2
    assert answer_values['abundance'] > 0


def test_rock_abundance_does_not_wait_for_depth(bench, scene, depth):
    stub = CameraStub(bench, depth_tolerance=10.0)
    stub.send(scene, stamp=20)
    stub.send_info(camera_info())
    stub.geometry._on_depth(depth_message(depth))
    begun = time.monotonic()
    assert bench.call(Trigger, '/rock_seg/rock_abundance', Trigger.Request()).success
    assert time.monotonic() - begun < 5


def test_deactivate_ends_the_wait_for_depth(bench, scene, depth):
    stub = CameraStub(bench, depth_tolerance=10.0)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    stub.geometry._on_depth(depth_message(depth))
    bench.send(scene, stamp=20)
    bench.wait(lambda: len(bench.segmenter.images) == 2, 'the network to run')
    begun = time.monotonic()
    assert bench.change_state('deactivate')
    assert time.monotonic() - begun < 5


def test_a_node_that_is_deactivated_while_processing_releases_images_and_depth(bench, scene, depth):
    stub = CameraStub(bench)
    stub.send_info(camera_info())
    stub.send(scene, depth_message(depth))
    bench.segmenter.go.clear()
    bench.send(scene, stamp=2)
    bench.wait(lambda: len(bench.segmenter.images) == 2, 'the network to run')
    mailbox = bench.node._worker.mailbox
    bench.ask_for_state('deactivate')
    bench.wait(lambda: not mailbox.is_idle, 'the worker to be stopped')
    bench.segmenter.go.set()
    bench.wait(lambda: bench.node.state == 'inactive', 'inactive')
    assert bench.node._cameras[0].last_analysis is None
    assert stub.geometry._depths.nearest(10**9, tolerance=1.0) is None


def textured(chance):
    """120×200×3 RGB: soft texture below 128, with two bright rocks of 600 and 400 px."""
    coarse = chance.integers(20, 100, (15, 25), np.uint8)
    ground = np.kron(coarse, np.ones((8, 8), np.uint8))
    image = np.repeat(ground[..., None], 3, axis=2)
    image[40:60, 60:90] = LIT
    image[80:100, 110:130] = LIT
    return image


def test_each_of_several_cameras_has_its_own_camera_info_and_depth(bench, scene, depth):
    names, metres = ('front', 'rear'), {'front': 2.0, 'rear': 3.0}
    bench.start(
        min_area=1,
        image_topics=[f'/{name}/image_raw' for name in names],
        depth_topics=[f'/{name}/depth' for name in names],
    )
    bench.wait(lambda: bench.node.state == 'active', 'active')
    cameras = {camera.name: camera for camera in bench.node._cameras}
    for name in names:
        topic = f'/rock_seg/{name}/rocks'
        bench.listen(PointCloud2, topic)
        kinds = ((CameraInfo, 'camera_info'), (Image, 'depth'), (Image, 'image_raw'))
        publishers = [bench.tester.create_publisher(k, f'/{name}/{t}', 5) for k, t in kinds]
        for publisher in publishers:
            bench.wait(publisher.get_subscription_count, publisher.topic)
        rocks = next(o for o in cameras[name].outputs if isinstance(o, Rocks))
        bench.wait(lambda rocks=rocks: rocks.has_subscribers, topic)
        geometry = cameras[name].geometry
        publishers[0].publish(camera_info())
        publishers[1].publish(depth_message(np.full_like(depth, metres[name])))
        bench.wait(
            lambda geometry=geometry: geometry._info and geometry._depth_received > 0,
            'both to arrive',
        )
        image = to_message(scene, 'rgb8', Image().header)
        image.header.frame_id = 'camera_optical_frame'
        publishers[2].publish(image)
        cloud = bench.wait(lambda topic=topic: bench.received[topic], topic)[0]
        z = np.frombuffer(cloud.data, ROCK_POINT)['z']
        assert z == pytest.approx([metres[name]] * 2, rel=0.01)


def test_camera_info_is_read_with_its_region_of_interest_and_binning():
    info = camera_info(width=640, height=480, focal=400.0)
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 10, 4, 320, 240
    info.binning_x = info.binning_y = 2
    intrinsics = read_intrinsics(info)
    assert intrinsics.size == (160, 120)
    assert intrinsics.matrix[0, 0] == 200.0
    assert intrinsics.matrix[:2, 2] == pytest.approx([(31.5 - 10) / 2, (23.5 - 4) / 2])


def test_for_rectified_images_p_is_used_without_distortion():
    info = camera_info()
    info.d = [0.3, 0.0, 0.0, 0.0, 0.0]
    info.p = [40.0, 0.0, 30.0, 0.0, 0.0, 40.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert read_intrinsics(info).distortion[0] == 0.3
    intrinsics = read_intrinsics(info, rectified=True)
    assert intrinsics.matrix[0, 0] == 40.0
    assert not intrinsics.distortion.any()


@pytest.mark.parametrize(('model', 'coefficients'), MODELS_OF_DRIVERS)
def test_the_distortion_models_of_common_drivers_are_read(model, coefficients):
    info = camera_info()
    info.distortion_model, info.d = model, coefficients
    intrinsics = read_intrinsics(info)
    assert intrinsics.rays(np.array([[31.5, 23.5]])) == pytest.approx(np.array([[0, 0, 1]]))


def test_p_is_used_if_k_is_zero():
    info = camera_info(focal=0.0)
    info.k = [0.0] * 9
    info.d = [0.3, 0.0, 0.0, 0.0, 0.0]
    info.p = [40.0, 0.0, 30.0, 0.0, 0.0, 40.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    intrinsics = read_intrinsics(info)
    assert intrinsics.matrix[0, 0] == 40.0
    assert not intrinsics.distortion.any()


def test_k_without_distortion_is_used_for_rectified_images_if_p_is_zero():
    info = camera_info()
    assert read_intrinsics(info, rectified=True).matrix[0, 0] == FOCAL
    info.d[0] = 0.3
    with pytest.raises(ValueError, match='focal lengths'):
        read_intrinsics(info, rectified=True)


def test_depth_in_millimetres_and_in_another_byte_order_is_read():
    millimetres = np.array([[1000, 0], [2500, 65535]])
    message = depth_message(millimetres / 1000, encoding='16UC1')
    assert read_depth(message) == pytest.approx(millimetres / 1000)
    message = Image(height=1, width=2, encoding='32FC1', step=8, is_bigendian=1)
    fill(message, np.array([[1.5, 2.5]], '>f4').view(np.uint8))
    assert read_depth(message).tolist() == [[1.5, 2.5]]
