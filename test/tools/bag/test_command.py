# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from collections import defaultdict

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PointStamped
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from rock_seg_ros.node.images import ENCODINGS
from rock_seg_ros.tools.bag import command
from rock_seg_ros.tools.bag.files import TYPES, Bag, BagError, BagWriter
from rock_seg_ros.tools.main import main

FRAME = 'camera_optical_frame'
NS = 10**9
RESULTS = {
    '/rock_seg/mask': Image,
    '/rock_seg/overlay/compressed': CompressedImage,
    '/rock_seg/polygon_points': PointCloud2,
    '/rock_seg/rocks': PointCloud2,
}
IMAGE = 'sensor_msgs/msg/Image'


@pytest.fixture
def find_rocks(monkeypatch, segmenter, tmp_path):
    """Runs `rock_seg bag` with the test network; the new bag is `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    return lambda source, *more: main(
        ['bag', str(source), '-o', str(tmp_path / 'out'), *map(str, more)]
    )


@pytest.fixture
def write_bag(tmp_path):
    """Writes messages given as topic, time of recording (ns), and message or its bytes."""

    def write(*messages, name='in'):
        with BagWriter(tmp_path / name) as writer:
            for topic, kind in {topic: type_of(message) for topic, _, message in messages}.items():
                writer.add_topic(topic, kind)
            for topic, recorded, message in messages:
                data = message if isinstance(message, bytes) else serialize_message(message)
                writer.write(topic, recorded, data)
        return tmp_path / name

    return write


def type_of(message):
    return IMAGE if isinstance(message, bytes) else f'sensor_msgs/msg/{type(message).__name__}'


def header(stamp, frame_id=FRAME):
    made = Header(frame_id=frame_id)
    made.stamp.sec, made.stamp.nanosec = divmod(stamp, NS)
    return made


def raw(image, stamp, encoding='rgb8', frame_id=FRAME):
    message = Image(header=header(stamp, frame_id), encoding=encoding)
    message.height, message.width = image.shape[:2]
    message.step = image[0].nbytes
    message.data.frombytes(image.tobytes())
    return message


def png(image, stamp):
    message = CompressedImage(header=header(stamp), format='png')
    message.data.frombytes(cv2.imencode('.png', image[..., ::-1])[1].tobytes())
    return message


def info(stamp, focal=60.0):
    message = CameraInfo(header=header(stamp), height=48, width=64, distortion_model='plumb_bob')
    message.k = np.array([focal, 0, 31.5, 0, focal, 23.5, 0, 0, bool(focal)], float)
    message.d = [0.0] * 5
    return message


def depth(stamp, metres=2.0):
    return raw(np.full((48, 64), metres, np.float32), stamp, '32FC1')


def read(path):
    """Returns the messages of a bag: topic → time of recording and bytes."""
    found = defaultdict(list)
    with Bag(path) as bag:
        for message in bag.messages(bag.topics):
            found[message.topic].append((message.stamp, message.data))
    return found


def read_results(path):
    """Returns the results in a bag: topic → time of recording and message."""
    found = read(path)
    return {
        topic: [(stamp, deserialize_message(data, kind)) for stamp, data in found[topic]]
        for topic, kind in RESULTS.items()
    }


def rocks(path):
    """Returns the rocks of each image as a structured array with the fields of the cloud."""
    clouds = [deserialize_message(data, PointCloud2) for _, data in read(path)['/rock_seg/rocks']]
    kinds = {2: 'u1', 6: 'u4', 7: 'f4'}
    return [
        np.frombuffer(
            cloud.data,
            np.dtype(
                {
                    'names': [field.name for field in cloud.fields],
                    'formats': [kinds[field.datatype] for field in cloud.fields],
                    'offsets': [field.offset for field in cloud.fields],
                    'itemsize': cloud.point_step,
                }
            ),
        )
        for cloud in clouds
    ]


def printed_lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if 'rock_seg bag' in line]


def test_every_image_has_results_with_its_header_and_its_time_of_recording(
    find_rocks, demo_data, tmp_path
):
    assert find_rocks(demo_data / 'mars_drive') == 0
    ((_, images),) = read(demo_data / 'mars_drive').items()
    assert set(read(tmp_path / 'out')) == set(RESULTS)
    sources = [(stamp, deserialize_message(data, CompressedImage)) for stamp, data in images]
    for results in read_results(tmp_path / 'out').values():
        assert [(at, result.header) for at, result in results] == [
            (at, source.header) for at, source in sources
        ]
    assert all(len(found) == 2 for found in rocks(tmp_path / 'out'))


def test_the_mask_has_the_rocks_of_the_image(find_rocks, write_bag, scene, tmp_path):
    assert find_rocks(write_bag(('/image', 5, raw(scene, 7)))) == 0
    ((_, data),) = read(tmp_path / 'out')['/rock_seg/mask']
    mask = deserialize_message(data, Image)
    expected = np.where(scene[..., 0] > 127, 255, 0)
    np.testing.assert_array_equal(np.array(mask.data).reshape(48, 64), expected)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_that_the_node_reads_is_read(find_rocks, write_bag, tmp_path, encoding):
    channels, size, _ = ENCODINGS[encoding]
    image = np.zeros((48, 64, channels), f'u{size}')
    # The topic is named, because 16UC1 may be depth.
    bag = write_bag(('/image', 5, raw(image, 7, encoding)))
    assert find_rocks(bag, '--image', '/image') == 0
    assert len(read(tmp_path / 'out')['/rock_seg/mask']) == 1


def test_a_guess_of_the_significant_bits_is_reported_once(find_rocks, write_bag, tmp_path, capsys):
    bright, dark = (np.full((48, 64, 1), value, np.uint16) for value in (4000, 400))
    bag = write_bag(*(('/image', n, raw(p, n, 'mono16')) for n, p in enumerate((bright, dark), 5)))
    assert find_rocks(bag) == 0
    (line,) = printed_lines(capsys)
    assert '/image: 16-bit values up to 4000 are scaled as 12 bits' in line
    assert '--significant-bits' in line
    masks = [m for _, m in read_results(tmp_path / 'out')['/rock_seg/mask']]
    assert [max(mask.data) for mask in masks] == [255, 0]


def test_significant_bits_and_max_pixels_apply_to_a_bag(find_rocks, write_bag, capsys):
    bag = write_bag(('/image', 5, raw(np.full((48, 64, 1), 4000, np.uint16), 7, 'mono16')))
    assert find_rocks(bag, '--significant-bits', '16', '--max-pixels', '3000') == 1
    (line,) = printed_lines(capsys)
    assert line.endswith('too large: 64×48; max_pixels is 3000')


def test_nv12_and_jpegs_without_end_marker_are_read(find_rocks, write_bag, tmp_path):
    nv12 = raw(np.full((72, 64), 128, np.uint8), 7, 'nv12')
    nv12.height = 48
    assert find_rocks(write_bag(('/image', 5, nv12), name='nv12')) == 0
    coded = cv2.imencode('.jpg', np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    unended = CompressedImage(header=header(7), format='jpeg', data=coded.removesuffix(b'\xff\xd9'))
    (tmp_path / 'out').rename(tmp_path / 'first')
    assert find_rocks(write_bag(('/image/compressed', 5, unended), name='jpeg')) == 0


def test_a_sqlite3_bag_has_the_same_results(find_rocks, demo_data, tmp_path):
    ((topic, messages),) = read(demo_data / 'mars_drive').items()
    kind = 'sensor_msgs/msg/CompressedImage'
    path = tmp_path / 'in'
    with Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(topic, kind, typestore=TYPES)
        for stamp, data in messages:
            writer.write(connection, stamp, data)
    assert find_rocks(path) == 0
    expected = read_results(tmp_path / 'out')
    (tmp_path / 'out').rename(tmp_path / 'of sqlite3')
    assert find_rocks(demo_data / 'mars_drive') == 0
    assert read_results(tmp_path / 'out') == expected


def test_a_rosbag1_is_read(find_rocks, tmp_path, scene):
    store = get_typestore(Stores.ROS1_NOETIC)
    make = store.types
    with Rosbag1Writer(tmp_path / 'in.bag') as writer:
        connection = writer.add_connection('/image', IMAGE, typestore=store)
        for number in range(3):
            stamp = make['builtin_interfaces/msg/Time'](12, number)
            head = make['std_msgs/msg/Header'](5, stamp, 'camera')
            image = make[IMAGE](head, 48, 64, 'rgb8', 0, 64 * 3, scene.ravel())
            writer.write(connection, 900 + number, store.serialize_ros1(image, IMAGE))
    assert find_rocks(tmp_path / 'in.bag', '--copy') == 0
    results = read(tmp_path / 'out')
    assert [stamp for stamp, _ in results['/rock_seg/mask']] == [900, 901, 902]
    head = deserialize_message(results['/rock_seg/mask'][2][1], Image).header
    assert (head.stamp.sec, head.stamp.nanosec, head.frame_id) == (12, 2, 'camera')
    copied = deserialize_message(results['/image'][0][1], Image)
    np.testing.assert_array_equal(np.array(copied.data).reshape(scene.shape), scene)


def test_rejected_images_are_reported_and_counted_and_the_others_are_processed(
    find_rocks, write_bag, scene, tmp_path, capsys
):
    source = write_bag(
        ('/image', 1, raw(scene, 1)),
        ('/image', 2, raw(scene, 2, 'nonsense')),
        ('/image', 3, raw(scene, 3, 'nonsense')),
        ('/image', 4, serialize_message(raw(scene, 4))[:500]),
        ('/image', 5, raw(scene, 5)),
    )
    assert find_rocks(source) == 1
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if 'rock_seg bag' in line]
    assert len(lines) == 2
    assert "image 2 (0.000 s): unknown encoding: 'nonsense'" in lines[0]
    assert 'image 4 (0.000 s): damaged message: 500 bytes' in lines[1]
    assert (
        '2 images with results; rejected: unknown encoding (2), damaged message (1)' in output.out
    )
    assert {
        topic: [stamp for stamp, _ in got] for topic, got in read(tmp_path / 'out').items()
    } == {topic: [1, 5] for topic in RESULTS}


@pytest.mark.parametrize('folder', [True, False])
def test_all_intact_images_of_a_truncated_recording_are_processed_and_the_status_is_an_error(
    find_rocks, write_bag, scene, tmp_path, capsys, folder
):
    chance = np.random.default_rng(0)  # noise, so that the last image lies in several blocks
    source = write_bag(
        ('/camera_info', 1, info(1)),
        *(('/image', stamp, raw(chance.integers(0, 99, scene.shape, np.uint8), stamp))
          for stamp in range(1, 5)),
    )  # fmt: skip
    (source / 'metadata.yaml').unlink()
    (file,) = source.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 5])
    assert find_rocks(source if folder else file) == 1
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if 'rock_seg bag' in line]
    assert len(lines) == 1
    assert lines[0].endswith(
        f'rock_seg bag: {f"{source}: in.mcap" if folder else file}: the end'
        ' of the recording is missing; the results before the damage are kept'
    )
    stamps = [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/rocks']]
    assert stamps in ([1], [1, 2])
    assert f'{len(stamps)} images with results' in output.out


def test_an_error_of_the_network_affects_only_its_image(
    find_rocks, write_bag, scene, tmp_path, segmenter, monkeypatch
):
    segment, errors = segmenter.segment, [RuntimeError('out of memory')]

    def fail_once(image, threshold=None):
        if errors:
            raise errors.pop()
        return segment(image, threshold)

    monkeypatch.setattr(segmenter, 'segment', fail_once)
    source = write_bag(('/image', 1, raw(scene, 1)), ('/image', 2, raw(scene, 2)))
    assert find_rocks(source) == 1
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/rocks']] == [2]


def test_raw_images_are_preferred_to_compressed_ones_of_the_same_name(
    find_rocks, write_bag, scene, tmp_path
):
    source = write_bag(
        ('/image/compressed', 1, png(scene, 1)),
        ('/image', 2, raw(scene, 1)),
        ('/rock_seg/mask', 3, raw(scene[..., 0], 1, 'mono8')),
        ('/depth', 4, depth(1)),
    )
    assert find_rocks(source) == 0
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/mask']] == [2]


def test_a_bag_with_several_cameras_needs_the_image_topic(
    find_rocks, write_bag, scene, tmp_path, capsys
):
    source = write_bag(
        ('/left/image', 1, raw(scene, 1)), ('/right/image/compressed', 2, png(scene, 2))
    )
    assert find_rocks(source) == 2
    (line,) = printed_lines(capsys)
    assert 'choose one with --image: /left/image, /right/image/compressed' in line
    assert not (tmp_path / 'out').exists()
    assert find_rocks(source, '--image', '/right/image') == 0
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/mask']] == [2]


@pytest.mark.parametrize('option', ['--image', '--depth', '--camera-info'])
def test_an_unknown_topic_is_a_usage_error_of_one_line(find_rocks, demo_data, capsys, option):
    assert find_rocks(demo_data / 'mars_drive', option, '/none') == 2
    (line,) = printed_lines(capsys)
    assert 'mars_drive: has no sensor_msgs/msg/' in line
    assert ' /none; ' in line


@pytest.mark.parametrize('message', [depth(1), info(1)])
def test_a_bag_without_images_gives_an_error_of_one_line(find_rocks, write_bag, capsys, message):
    assert find_rocks(write_bag(('/some/topic', 1, message))) == 1
    assert printed_lines(capsys)[0].endswith('in: has no images')


def test_with_camera_info_and_depth_rocks_have_metres(find_rocks, write_bag, scene, tmp_path):
    source = write_bag(
        ('/camera/image', 1 * NS, raw(scene, 1 * NS)),
        ('/camera/camera_info', 1 * NS, info(1 * NS)),
        ('/camera/image', 2 * NS, raw(scene, 2 * NS)),
        ('/camera/depth', 2 * NS + 1, depth(1 * NS + NS // 100, metres=3.0)),
        ('/camera/depth', 2 * NS + 2, depth(2 * NS, metres=4.0)),
        ('/camera/image', 3 * NS, raw(scene, 3 * NS)),
    )
    assert find_rocks(source) == 0
    first, second, third = rocks(tmp_path / 'out')
    assert first['z'] == pytest.approx([3.0, 3.0], abs=1e-3)
    assert second['z'] == pytest.approx([4.0, 4.0], abs=1e-3)
    assert second['diameter'][0] == pytest.approx((200 * 4 / np.pi) ** 0.5 * 4 / 60, rel=0.02)
    assert np.isnan(third['z']).all()


def test_all_outputs_can_be_written(find_rocks, write_bag, scene, tmp_path):
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)),
        ('/camera/camera_info', 1, info(1)),
        ('/camera/depth', 1, depth(1)),
    )
    assert find_rocks(source, '--outputs', *command.CHOICES) == 0
    results = read(tmp_path / 'out')
    assert set(results) == {f'/rock_seg/{name}' for name in command.CHOICES}
    assert {'target', 'markers', 'obstacles', 'instances'} <= set(command.CHOICES)
    target = deserialize_message(results['/rock_seg/target'][0][1], PointStamped)
    assert target.point.z == pytest.approx(2.0, abs=1e-3)


def test_an_empty_depth_option_disables_depth(find_rocks, write_bag, scene, tmp_path):
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)),
        ('/camera/camera_info', 1, info(1)),
        ('/camera/depth', 1, depth(1)),
    )
    assert find_rocks(source, '--depth', '') == 0
    assert np.isnan(rocks(tmp_path / 'out')[0]['z']).all()


def test_a_known_camera_height_gives_metres_without_depth(find_rocks, write_bag, scene, tmp_path):
    source = write_bag(('/camera/image', 1, raw(scene, 1)), ('/camera/camera_info', 1, info(1)))
    assert find_rocks(source, '--camera-height', 1.5, '--camera-tilt', 1.2) == 0
    assert (rocks(tmp_path / 'out')[0]['z'] > 1).all()


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        (
            info(1, focal=0.0),
            'without depth or camera_info: camera_info: the focal lengths must be above 0',
        ),
        (depth(1, metres=np.nan), '1 images with results\n'),
        (raw(np.ones((24, 32), np.float32), 1, '32FC1'), 'depth: size differs'),
        (raw(np.ones((48, 64), np.float32), NS, '32FC1'), 'depth: none at the time of the image'),
    ],
)
def test_images_with_unusable_camera_info_or_depth_have_results_without_metres(
    find_rocks, write_bag, scene, tmp_path, capsys, given, reason
):
    at = '/camera/camera_info' if isinstance(given, CameraInfo) else '/camera/depth'
    messages = {'/camera/camera_info': info(1), '/camera/depth': depth(1), at: given}
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)), *((topic, 2, made) for topic, made in messages.items())
    )
    assert find_rocks(source) == 0
    (found,) = rocks(tmp_path / 'out')
    assert len(found) == 2
    assert np.isnan(found['z']).all()
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    ('topic', 'make', 'reason'),
    [
        ('/camera_info', info, 'without depth or camera_info: camera_info: damaged message (1)'),
        ('/depth', depth, 'without depth or camera_info: depth: damaged message (1)'),
    ],
)
def test_a_damaged_camera_info_or_depth_affects_the_metres_of_only_its_image(
    find_rocks, write_bag, scene, tmp_path, capsys, topic, make, reason
):
    messages = [
        (name, second * NS, what(second * NS))
        for second in (1, 2, 3)
        for name, what in (
            ('/image', lambda stamp: raw(scene, stamp)),
            ('/camera_info', info),
            ('/depth', depth),
        )
    ]
    cut = serialize_message(make(2 * NS))[:60]
    damaged = [
        (name, at, cut if (name, at) == (topic, 2 * NS) else what) for name, at, what in messages
    ]
    assert find_rocks(write_bag(*damaged)) == 0
    known = [np.isfinite(found['z']).tolist() for found in rocks(tmp_path / 'out')]
    assert known == [[True] * 2, [False] * 2, [True] * 2]
    assert reason in capsys.readouterr().out


def test_depth_without_camera_info_is_reported(find_rocks, write_bag, scene, capsys):
    source = write_bag(('/camera/image', 1, raw(scene, 1)), ('/camera/depth', 1, depth(1)))
    assert find_rocks(source) == 0
    assert 'without depth or camera_info: camera_info: missing (1)' in capsys.readouterr().out


def test_depth_in_another_frame_is_ignored_unless_it_is_chosen(
    find_rocks, write_bag, scene, tmp_path, capsys
):
    other = raw(np.ones((48, 64), np.float32), 1, '32FC1', frame_id='depth_frame')
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)),
        ('/camera/camera_info', 1, info(1)),
        ('/camera/depth', 1, other),
    )
    assert find_rocks(source) == 0
    assert np.isnan(rocks(tmp_path / 'out')[0]['z']).all()
    (line,) = printed_lines(capsys)
    assert line.startswith(
        'rock_seg bag: depth: /camera/depth is ignored, because its frame_id is depth_frame '
    )
    assert 'use --depth /camera/depth if' in line
    (tmp_path / 'out').rename(tmp_path / 'without')
    assert find_rocks(source, '--depth', '/camera/depth') == 0
    assert rocks(tmp_path / 'out')[0]['z'] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert printed_lines(capsys) == []


@pytest.mark.parametrize(
    ('topic', 'kind', 'header_bytes'),
    [
        ('/camera/depth/compressedDepth', '16UC1; compressedDepth png', 12),
        ('/camera/depth/compressed', '16UC1; png compressed ', 0),
    ],
)
def test_compressed_depth_gives_metres_and_is_not_taken_for_an_image(
    find_rocks, write_bag, scene, tmp_path, topic, kind, header_bytes
):
    message = CompressedImage(header=header(1), format=kind)
    coded = cv2.imencode('.png', np.full((48, 64), 1500, np.uint16))[1].tobytes()
    message.data.frombytes(bytes(header_bytes) + coded)
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)),
        ('/camera/camera_info', 1, info(1)),
        (topic, 1, message),
    )
    assert find_rocks(source) == 0
    assert rocks(tmp_path / 'out')[0]['z'] == pytest.approx([1.5, 1.5], abs=1e-3)


def test_the_reason_for_ignored_depth_is_reported_once_with_its_topic(
    find_rocks, write_bag, scene, capsys
):
    small = raw(np.ones((24, 32), np.float32), 1, '32FC1')
    source = write_bag(
        ('/camera/camera_info', 1, info(1)),
        *(('/camera/image', stamp, raw(scene, stamp)) for stamp in (1, 2)),
        *(('/camera/depth', stamp, small) for stamp in (1, 2)),
    )
    assert find_rocks(source) == 0
    assert printed_lines(capsys) == [
        'rock_seg bag: depth: /camera/depth is ignored: size differs (32×24, the images are'
        ' 64×48; depth must be registered to them)'
    ]


def test_rocks_keep_their_ids_from_image_to_image_unless_tracking_is_off(
    find_rocks, write_bag, scene, tmp_path
):
    """The second image has only the smaller rock. Without tracking, its id changes to 1."""
    without = scene.copy()
    without[4:14, 8:28] = 60
    source = write_bag(('/image', 1, raw(scene, NS)), ('/image', 2, raw(without, NS + NS // 10)))
    assert find_rocks(source) == 0
    first, second = (found['id'].tolist() for found in rocks(tmp_path / 'out'))
    assert second == first[1:]
    (tmp_path / 'out').rename(tmp_path / 'tracked')
    assert find_rocks(source, '--no-track') == 0
    assert [found['id'].tolist() for found in rocks(tmp_path / 'out')] == [[1, 2], [1]]


def test_the_target_stays_the_same_when_another_rock_is_nearer(
    find_rocks, write_bag, scene, tmp_path
):
    left, right = np.full((48, 64), 1.2, np.float32), np.full((48, 64), 1.2, np.float32)
    left[:, :32] = right[:, 32:] = 1.0
    source = write_bag(
        ('/image', 1, raw(scene, NS)),
        ('/camera_info', 1, info(NS)),
        ('/depth', 1, raw(left, NS, '32FC1')),
        ('/image', 2, raw(scene, 2 * NS)),
        ('/depth', 2, raw(right, 2 * NS, '32FC1')),
    )
    assert find_rocks(source) == 0
    assert [found['target'].tolist() for found in rocks(tmp_path / 'out')] == [[1, 0], [1, 0]]


def test_only_the_chosen_outputs_are_written(find_rocks, demo_data, tmp_path):
    assert find_rocks(demo_data / 'mars_drive', '--outputs', 'rocks', 'class_ids') == 0
    assert sorted(read(tmp_path / 'out')) == ['/rock_seg/class_ids', '/rock_seg/rocks']


def test_an_unknown_output_is_a_usage_error(find_rocks, demo_data):
    assert find_rocks(demo_data / 'mars_drive', '--outputs', 'gold') == 2


def test_copy_writes_all_messages_of_the_input_unchanged(find_rocks, write_bag, scene, tmp_path):
    source = write_bag(
        ('/camera/image', 1, raw(scene, 1)),
        ('/camera/camera_info', 2, info(1)),
        ('/other/camera_info', 3, info(2)),
        ('/camera/image', 4, raw(scene, 2)),
    )
    assert find_rocks(source, '--copy') == 0
    results = read(tmp_path / 'out')
    assert sorted(results) == sorted([*read(source), *RESULTS])
    assert {topic: results[topic] for topic in read(source)} == read(source)


def test_copy_does_not_copy_topics_of_the_results(find_rocks, demo_data, tmp_path, capsys):
    assert find_rocks(demo_data / 'mars_drive', '--copy') == 0
    (tmp_path / 'out').rename(tmp_path / 'first')
    assert find_rocks(tmp_path / 'first', '--copy') == 0
    assert len(read(tmp_path / 'out')['/rock_seg/mask']) == 12
    assert any('/rock_seg/mask is not copied' in line for line in printed_lines(capsys))


def test_an_existing_bag_is_not_overwritten(find_rocks, demo_data, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    assert find_rocks(demo_data / 'mars_drive') == 1
    assert printed_lines(capsys) == [
        f'rock_seg bag: {tmp_path / "out"}: exists; choose another output or delete it'
    ]
    assert list((tmp_path / 'out').iterdir()) == []


def test_a_missing_bag_gives_an_error_of_one_line(find_rocks, tmp_path, capsys):
    assert find_rocks(tmp_path / 'none') == 1
    assert printed_lines(capsys) == [f'rock_seg bag: {tmp_path / "none"}: the bag does not exist']


def remaining_files(folder):
    """Returns the names of the files and folders that are not inputs."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ('data', 'in'))


def test_no_output_remains_of_a_damaged_bag(find_rocks, demo_data, tmp_path, capsys):
    (storage,) = (demo_data / 'mars_drive').glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[:100])
    assert find_rocks(demo_data / 'mars_drive') == 1
    assert len(printed_lines(capsys)) == 1
    assert remaining_files(tmp_path) == []


def damage_after(monkeypatch, count, damaged):
    """Simulates damage after a number of messages of a bag."""
    original = Bag.messages

    def messages(bag, topics):
        if bag.path != damaged:
            yield from original(bag, topics)
            return
        for _, message in zip(range(count), original(bag, topics), strict=False):
            yield message
        raise BagError(f'{bag.path}: damaged (nonsense)')

    monkeypatch.setattr(Bag, 'messages', messages)


@pytest.mark.parametrize('with_depth', [False, True])
def test_results_before_damage_are_kept_and_the_status_is_an_error(
    find_rocks, write_bag, scene, tmp_path, capsys, monkeypatch, with_depth
):
    """Images that wait for depth when the damage is found have results too."""
    source = write_bag(
        *(('/image', stamp, raw(scene, stamp)) for stamp in (1, 2, 3)),
        *([('/depth', 4, depth(3))] if with_depth else []),
    )
    damage_after(monkeypatch, 2, source)
    assert find_rocks(source, '--report', tmp_path / 'report.html') == 1
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/rocks']] == [1, 2]
    output = capsys.readouterr()
    assert f'{tmp_path / "out"}: 2 images with results' in output.out
    assert (
        f'rock_seg bag: {source}: damaged (nonsense); the results before the damage are kept'
        in output.err
    )
    assert f'{source}: damaged (nonsense)' in (tmp_path / 'report.html').read_text()


def test_damage_after_images_that_are_all_rejected_leaves_an_output_and_is_reported(
    find_rocks, write_bag, scene, tmp_path, capsys, monkeypatch
):
    source = write_bag(*(('/image', stamp, raw(scene, stamp, 'nonsense')) for stamp in (1, 2)))
    damage_after(monkeypatch, 1, source)
    assert find_rocks(source, '--table', tmp_path / 'rocks.csv') == 1
    output = capsys.readouterr()
    assert f'{source}: damaged (nonsense); the results before the damage are kept' in output.err
    assert '0 images with results; rejected: unknown encoding (1)' in output.out
    assert not any(read(tmp_path / 'out').values())
    assert len((tmp_path / 'rocks.csv').read_text().splitlines()) == 1


def test_no_output_remains_after_damage_before_the_first_image(
    find_rocks, write_bag, scene, tmp_path, capsys, monkeypatch
):
    source = write_bag(('/image', 1, raw(scene, 1)))
    damage_after(monkeypatch, 0, source)
    assert find_rocks(source) == 1
    assert printed_lines(capsys) == [f'rock_seg bag: {source}: damaged (nonsense)']
    assert remaining_files(tmp_path) == []


def test_a_bag_with_a_truncated_last_file_has_the_results_of_the_other_files(
    find_rocks, write_bag, scene, tmp_path, capsys
):
    folder = tmp_path / 'recording'
    folder.mkdir()
    for number in (1, 2):
        part = write_bag(('/image', number, raw(scene, number)), name=f'part{number}')
        (storage,) = part.glob('*.mcap')
        content = storage.read_bytes()
        (folder / f'recording_{number}.mcap').write_bytes(content[: None if number == 1 else 900])
    assert find_rocks(folder) == 1
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/rocks']] == [1]
    (line,) = printed_lines(capsys)
    assert line.startswith(f'rock_seg bag: {folder}: recording_2.mcap: ')


def test_each_damaged_file_of_a_bag_is_named_on_its_own_line(
    find_rocks, write_bag, scene, tmp_path, capsys
):
    folder = tmp_path / 'recording'
    folder.mkdir()
    for number in (1, 2, 3):
        part = write_bag(('/image', number, raw(scene, number)), name=f'part{number}')
        (storage,) = part.glob('*.mcap')
        content = storage.read_bytes()
        (folder / f'{number}.mcap').write_bytes(content[: None if number == 2 else -400])
    assert find_rocks(folder) == 1
    assert [stamp for stamp, _ in read(tmp_path / 'out')['/rock_seg/rocks']] == [1, 2, 3]
    assert printed_lines(capsys) == [
        f'rock_seg bag: {folder}: {number}.mcap: the end of the recording is missing;'
        ' the results before the damage are kept'
        for number in (1, 3)
    ]


@pytest.mark.parametrize(
    ('error', 'status', 'lines'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 1, 1),
        (KeyboardInterrupt(), 130, 0),
    ],
)
def test_no_output_remains_after_an_error_or_an_interruption(
    find_rocks, demo_data, tmp_path, capsys, monkeypatch, error, status, lines
):
    write = BagWriter.write
    left = [10]

    def fail(writer, topic, stamp, data):
        left[0] -= 1
        if not left[0]:
            raise error
        write(writer, topic, stamp, data)

    monkeypatch.setattr(BagWriter, 'write', fail)
    assert find_rocks(demo_data / 'mars_drive') == status
    expected = [f'rock_seg bag: {tmp_path / "out"}: No space left on device'][:lines]
    assert printed_lines(capsys) == expected
    assert remaining_files(tmp_path) == []
