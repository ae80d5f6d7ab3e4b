# SPDX-License-Identifier: Apache-2.0
"""The messages of the outputs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from rock_seg_ros.node.outputs import OverlayCompressed, Rocks
from rock_seg_ros.node.outputs.clouds import POLYGON_POINT, ROCK_POINT, to_cloud
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.geometry.location import Location

try:
    from vision_msgs.msg import Detection2DArray, LabelInfo
except ImportError:
    Detection2DArray = LabelInfo = None

needs_vision_msgs = pytest.mark.skipif(LabelInfo is None, reason='vision_msgs is not installed')


@pytest.mark.parametrize('kind', [POLYGON_POINT, ROCK_POINT])
def test_the_fields_of_a_cloud_describe_its_data(kind):
    points = np.zeros(3, kind)
    points['id'] = (7, 8, 9)
    points['x'] = (0.5, 1.5, 2.5)
    cloud = to_cloud(points, Header(frame_id='camera'), dense=True)
    assert (cloud.height, cloud.width, cloud.is_dense, cloud.is_bigendian) == (1, 3, True, False)
    assert cloud.row_step == 3 * cloud.point_step == len(cloud.data)
    sizes = {PointField.FLOAT32: 'f4', PointField.UINT32: 'u4', PointField.UINT8: 'u1'}
    data = np.frombuffer(cloud.data, np.uint8).reshape(3, cloud.point_step)
    for field in cloud.fields:
        form = np.dtype(sizes[field.datatype])
        stored = data[:, field.offset : field.offset + form.itemsize].copy().view(form)[:, 0]
        assert np.array_equal(stored, points[field.name]), field.name
        assert field.offset % form.itemsize == 0


def test_the_padding_between_the_fields_of_a_rock_is_zero():
    rock = SimpleNamespace(
        centroid=(4.5, 3.5), box=(1, 2, 8, 4), area=32, score=0.75, class_id=1, id=7
    )
    locations = [Location.unknown()] * 300
    analysis = SimpleNamespace(
        rocks=[rock] * 300, locations=locations, target=None, header=Header()
    )
    garbage = [np.full(300 * ROCK_POINT.itemsize, 255, np.uint8) for _ in range(20)]
    del garbage  # the memory of the message's points is likely to be taken from this
    (cloud,) = Rocks.messages(analysis, Parameters())
    points = np.frombuffer(cloud.data, ROCK_POINT)
    assert (points['area'] == 32).all()
    assert (points['id'] == 7).all()
    after, following = (ROCK_POINT.fields[name][1] for name in ('target', 'id'))
    padding = np.frombuffer(cloud.data, np.uint8).reshape(300, -1)[:, after + 1 : following]
    assert padding.size
    assert not padding.any()


def test_an_overlay_too_large_for_jpeg_raises_an_error(bench):
    bench.start(autostart=False)
    bench.change_state('configure')
    output = next(o for o in bench.outputs if isinstance(o, OverlayCompressed))
    analysis = type('Wide', (), {'overlay': np.zeros((1, 70_000, 3), np.uint8), 'header': Header()})
    with pytest.raises(ValueError, match='70000×1'):
        output.messages(analysis, Parameters())


@needs_vision_msgs
def test_label_info_is_transient_local_and_has_the_current_threshold(bench):
    bench.start()
    bench.wait_active()
    qos = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = '/rock_seg/label_info'
    bench.listen(LabelInfo, topic, qos)
    info = bench.wait(lambda: bench.received[topic], topic)[0]
    assert [(c.class_id, c.class_name) for c in info.class_map] == [(0, 'background'), (1, 'rock')]
    assert info.threshold == 0.5
    assert bench.node.set_parameters([Parameter('threshold', value=0.75)])[0].successful
    bench.wait(lambda: bench.received[topic][-1].threshold == 0.75, 'the new threshold')


@needs_vision_msgs
def test_detections_have_the_box_class_and_score_of_each_rock(bench, scene):
    bench.start(min_area=1)
    topic = '/rock_seg/detections'
    bench.listen(Detection2DArray, topic)
    bench.wait_active('~/detections')
    sent = bench.send(scene)
    message = bench.wait(lambda: bench.received[topic], topic)[0]
    assert message.header == sent.header
    first = message.detections[0]
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (17.5, 8.5)
    assert (first.bbox.size_x, first.bbox.size_y, first.id) == (20.0, 10.0, '1')
    assert first.results[0].hypothesis.class_id == '1'
    assert first.results[0].hypothesis.score == pytest.approx(200 / 255)
