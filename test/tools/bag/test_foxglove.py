# SPDX-License-Identifier: Apache-2.0
"""The results bag with annotations, as a reader that knows only the file sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from rock_seg_ros.tools.bag import command, foxglove
from rock_seg_ros.tools.bag.files import BagWriter
from rock_seg_ros.tools.main import main

ROOT = Path(__file__).parents[3]
FRAME = 'camera_optical_frame'
ANNOTATIONS = '/rock_seg/annotations'
SCENE = '/rock_seg/scene'


@pytest.fixture
def write_source(tmp_path, scene):
    """Writes a bag with an image, and its camera_info and depth (2 m) if metres are wanted."""

    def write(metres):
        header = Header(frame_id=FRAME)
        header.stamp.sec, header.stamp.nanosec = 7, 9
        image = Image(header=header, encoding='rgb8', height=48, width=64, step=192)
        image.data.frombytes(scene.tobytes())
        depth = Image(header=header, encoding='32FC1', height=48, width=64, step=256)
        depth.data.frombytes(np.full((48, 64), 2, np.float32).tobytes())
        info = CameraInfo(header=header, height=48, width=64, distortion_model='plumb_bob')
        info.k, info.d = np.array([60.0, 0, 31.5, 0, 60, 23.5, 0, 0, 1]), [0.0] * 5
        messages = {'/camera/image_raw': image}
        if metres:
            messages |= {'/camera/camera_info': info, '/camera/depth': depth}
        with BagWriter(tmp_path / 'in') as writer:
            for topic, message in messages.items():
                writer.add_topic(topic, f'sensor_msgs/msg/{type(message).__name__}')
                writer.write(topic, 7 * 10**9, serialize_message(message))
        return tmp_path / 'in'

    return write


@pytest.fixture
def annotate(monkeypatch, segmenter, tmp_path, write_source):
    """Runs `rock_seg bag --annotations`; returns the mcap file."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)

    def run(metres=True):
        source, output = write_source(metres), tmp_path / 'out'
        assert main(['bag', str(source), '-o', str(output), '--annotations', '--copy']) == 0
        (file,) = output.glob('*.mcap')
        return file

    return run


def decoded(file):
    """Topic → messages, decoded with nothing but the definitions in the file."""
    found = {}
    with file.open('rb') as stream:
        for schema, channel, message in make_reader(stream).iter_messages():
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(schema.data.decode(), schema.name))
            made = store.deserialize_cdr(message.data, schema.name)
            found.setdefault(channel.topic, []).append(made)
    return found


def test_every_channel_has_its_complete_definition(annotate):
    with annotate().open('rb') as stream:
        summary = make_reader(stream).get_summary()
    assert {ANNOTATIONS, SCENE, '/rock_seg/rocks', '/camera/image_raw'} <= {
        channel.topic for channel in summary.channels.values()
    }
    for channel in summary.channels.values():
        schema = summary.schemas[channel.schema_id]
        assert (schema.encoding, channel.message_encoding) == ('ros2msg', 'cdr')
        text = schema.data.decode()
        defined = {schema.name, *re.findall(r'^MSG: (\S+)$', text, re.MULTILINE)}
        defined = {name.replace('/msg/', '/') for name in defined}
        used = set(re.findall(r'^(\w+/(?:msg/)?\w+)', text, re.MULTILINE))
        assert {name.replace('/msg/', '/') for name in used} <= defined, channel.topic


def test_each_rock_has_a_polygon_and_a_label_in_the_image(annotate):
    (message,) = decoded(annotate(metres=False))[ANNOTATIONS]
    first, second = message.points
    assert (first.timestamp.sec, first.timestamp.nanosec) == (7, 9)
    assert first.type == first.LINE_LOOP == 2
    corners = {(point.x, point.y) for point in first.points}
    assert {(8, 4), (27, 4), (27, 13), (8, 13)} == corners
    assert [text.text.partition(':')[0] for text in message.texts] == ['1', '2']
    assert message.texts[0].text == '1: 16 px'
    assert (message.texts[0].position.x, message.texts[0].position.y) == (8, 4)
    assert second.outline_color.a == 1


def test_where_metres_are_known_the_scene_has_an_entity_for_each_rock(annotate):
    found = decoded(annotate())
    (update,) = found[SCENE]
    assert [deletion.type for deletion in update.deletions] == [1]
    entity, _ = update.entities
    assert (entity.frame_id, entity.id) == (FRAME, 'rock 1')
    assert {point.z for point in entity.lines[0].points} == {2}
    metadata = {pair.key: pair.value for pair in entity.metadata}
    assert float(metadata['diameter_m']) == pytest.approx(2 * 16 / 60, rel=0.05)
    text = f'1: {float(metadata["diameter_m"]):.2f} m'
    assert entity.texts[0].text == found[ANNOTATIONS][0].texts[0].text == text


def test_without_camera_info_there_is_no_scene(annotate):
    assert SCENE not in decoded(annotate(metres=False))


def test_a_bag_without_the_option_has_neither(monkeypatch, segmenter, tmp_path, write_source):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    assert main(['bag', str(write_source(True)), '-o', str(tmp_path / 'out')]) == 0
    (file,) = (tmp_path / 'out').glob('*.mcap')
    assert not {ANNOTATIONS, SCENE} & set(decoded(file))


def panels(layout):
    """The ids of the panels in a split layout."""
    if isinstance(layout, str):
        return [layout]
    return panels(layout['first']) + panels(layout['second'])


def test_the_layout_shows_topics_that_exist():
    from rock_seg_ros.node.outputs import OUTPUTS

    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())
    assert sorted(panels(layout['layout'])) == sorted(layout['configById'])
    named = set(re.findall(r'"(/[\w/]+)', json.dumps(layout)))
    own = {output.topic.replace('~', '/rock_seg') for output in OUTPUTS}
    own |= {f'/rock_seg/{name}' for name in foxglove.TOPICS}
    others = {'/camera/camera_info', '/diagnostics', '/local_costmap/costmap'}
    assert named <= own | others
    assert {ANNOTATIONS, SCENE, '/rock_seg/markers', '/rock_seg/overlay/compressed'} <= named


def test_the_plots_show_values_of_the_diagnostics():
    from rock_seg_ros.node import diagnostics

    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())
    (plot,) = (made for name, made in layout['configById'].items() if name.startswith('Plot'))
    keys = [re.search(r'key=="([^"]+)"', path['value'])[1] for path in plot['paths']]
    percentiles = '|'.join(map(str, diagnostics.PERCENTILES))
    assert keys
    assert all(re.fullmatch(rf'latency total p({percentiles}) ms', key) for key in keys)
