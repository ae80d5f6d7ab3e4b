# SPDX-License-Identifier: Apache-2.0
"""The view of a running node by its topics, on real DDS."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import rclpy

from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.view.feed import Feed
from rock_seg_ros.tools.view.node_source import NodeSource, read_rocks

ALL = frozenset({'overlay', 'mask', 'confidence'})


@pytest.fixture
def source(bench, tmp_path):
    """A source of the node under test."""
    feed = Feed()
    made = NodeSource(feed, 'rock_seg', tmp_path / 'records', bench.context)
    made.feed = feed
    made.start()
    yield made
    made.stop()
    assert not made._thread.is_alive()


class Camera:
    """Publishes images repeatedly until a condition holds, as a camera does."""

    def __init__(self, bench, image):
        self.bench, self.image, self.stamp = bench, image, 0

    def until(self, happened, what='the condition'):
        def tick():
            self.stamp += 1
            self.bench.send(self.image, stamp=self.stamp)
            return happened()

        return self.bench.wait(tick, what)


@pytest.fixture
def camera(bench, scene):
    bench.start()
    bench.wait_active()
    return Camera(bench, scene)


def test_layers_and_rocks_of_one_image_are_shown_together(source, camera):
    source.want(ALL)
    result = camera.until(lambda: source.feed.result, 'a result')
    mask, confidence = result.layer('mask'), result.layer('confidence')
    assert (mask[8, 16], mask[0, 0], confidence[0, 0]) == (255, 0, 200)
    assert result.layer('overlay').shape == (48, 64, 3)
    assert result.layer('image') is None
    first, second = result.record['rocks']
    assert (first['area'], first['bbox'], first['class_id']) == (200, [8, 4, 20, 10], 1)
    assert [8.0, 4.0] in first['polygon']
    assert (first['diameter'], first['diameter_mm']) == (15.96, None)
    assert second['bbox'] == [40, 30, 10, 12]
    assert (result.record['width'], result.record['height']) == (64, 48)


def test_only_the_shown_layers_are_subscribed_to(source, camera, bench):
    def wanted():
        return {output.topic for output in bench.outputs if output.has_subscribers}

    assert wanted() == set()
    source.want(frozenset({'mask'}))
    bench.wait(lambda: wanted() == {'~/mask', '~/rocks', '~/polygon_points'}, 'the mask')
    result = camera.until(lambda: source.feed.result, 'a result')
    assert result.layer('overlay') is None
    source.want(frozenset())
    bench.wait(lambda: wanted() == {'~/rocks', '~/polygon_points'}, 'the rocks alone')
    source.want(None)
    bench.wait(lambda: wanted() == set(), 'no subscriptions')


def test_a_layer_switched_on_while_a_message_arrives_does_not_stop_the_view(
    source, camera, monkeypatch
):
    source.want(frozenset({'overlay'}))
    camera.until(lambda: source.feed.result, 'a result')
    monkeypatch.setattr(source, '_recording_changed', lambda: None)
    source.want(ALL)
    held = source.feed.result.time
    camera.until(lambda: source.feed.result.time > held + 1)


def test_an_unexpected_error_is_shown_and_does_not_stop_the_view(source, camera, monkeypatch):
    source.want(ALL)
    with monkeypatch.context() as patch:
        patch.setattr(source, '_show', lambda *_: {}['x'])
        camera.until(lambda: source.problem == "KeyError: 'x'")
    camera.until(lambda: source.feed.result)


def test_a_live_parameter_is_set_and_a_rejection_has_the_reason_of_the_node(source, camera, bench):
    bench.wait(source.controls, 'the parameters')
    values = {control['name']: control['value'] for control in source.controls()}
    assert (values['min_area'], values['jpeg_quality'], values['track']) == (50, 80, True)
    source.set('min_area', 150)
    source.set('threshold', 0)  # an integer for a parameter of floats
    assert bench.node.get_parameter('min_area').value == 150
    with pytest.raises(ValueError, match='threshold'):
        source.set('threshold', 7.5)
    with pytest.raises(ValueError, match='device cannot be changed here'):
        source.set('device', 'cpu')
    source.want(ALL)
    camera.until(lambda: source.feed.result and len(source.feed.result.record['rocks']) == 1)


def test_a_parameter_that_another_program_sets_is_shown(source, camera, bench):
    from rclpy.parameter import Parameter

    def shown():
        return {control['name']: control['value'] for control in source.controls()}

    bench.wait(lambda: shown().get('max_rocks') == 200, 'the first value')
    bench.node.set_parameters([Parameter('max_rocks', value=7)])
    bench.wait(lambda: shown()['max_rocks'] == 7, 'the second value')


def test_the_parameters_are_read_again_after_a_node_died_without_an_answer(source, bench):
    dead = rclpy.create_node('rock_seg', context=bench.context)  # does not spin
    bench.wait(lambda: source._asked, 'a request')
    bench.start()
    bench.wait(source.controls, 'the parameters')
    dead.destroy_node()


def test_a_scale_is_rejected_because_sizes_come_from_the_node(source):
    assert not source.status()['measurable']
    with pytest.raises(ValueError, match='the node measures the sizes'):
        source.set_scale((0, 0), (1, 1), 1)


def test_without_a_node_the_status_is_waiting(source, bench):
    assert source.status()['line'] == 'waiting for the node'
    assert source.controls() == []
    with pytest.raises(ValueError, match='the node /rock_seg does not answer'):
        source.set('min_area', 1)


def test_state_latency_and_drops_come_from_the_diagnostics(source, camera, bench):
    source.want(ALL)
    camera.until(lambda: source.feed.samples(0), 'the diagnostics')
    (sample, *_) = source.feed.samples(0)
    assert sample.latency > 0
    assert sample.dropped >= 0
    assert source.line.startswith('active, ')


def test_a_problem_of_the_node_is_shown(source, bench):
    def broken(_):
        raise ValueError('weights x: no such file')

    bench.start(load=broken)
    bench.wait(lambda: source.problem, 'the problem')
    assert source.problem == 'cannot be configured: weights x: no such file'


def test_pause_holds_the_page_and_a_step_shows_one_image(source, camera, bench):
    source.want(ALL)
    camera.until(lambda: source.feed.result, 'a result')
    source.pause()
    held = source.feed.result.time
    camera.until(lambda: camera.stamp > held + 5)
    assert source.feed.result.time <= held + 1  # one image may have been in transit
    held = source.feed.result.time
    source.step()
    camera.until(lambda: source.feed.result.time > held, 'one more image')
    held = source.feed.result.time
    source.play()
    camera.until(lambda: source.feed.result.time > held, 'further images')


def test_a_recording_has_the_topics_without_viewers(source, camera, bench, tmp_path):
    seen = threading.Event()
    source.record()
    write = source._recording.write_message

    def watched(topic, stamp, data):
        write(topic, stamp, data)
        if topic.endswith('/rocks'):
            seen.set()

    source._recording.write_message = watched
    camera.until(seen.is_set, 'rocks')
    source.stop_recording()
    (path,) = (tmp_path / 'records').iterdir()
    with Bag(path) as bag:
        names = {topic.name for topic in bag.topics if topic.count}
    assert '/rock_seg/rocks' in names
    bench.wait(
        lambda: not any(o.has_subscribers for o in bench.outputs), 'the end of the subscriptions'
    )


def test_a_camera_of_a_node_with_several_has_parameters_and_diagnostics(bench, tmp_path):
    feed = Feed()
    source = NodeSource(feed, '/rock_seg/front', tmp_path, bench.context)
    source.start()
    bench.start(image_topics=['/front/image_raw', '/rear/image_raw'])
    bench.wait(source.controls, 'the parameters')
    bench.wait(lambda: source.line.startswith('active'), 'the diagnostics')
    source.stop()


def test_an_invalid_node_name_is_rejected(tmp_path):
    with pytest.raises(UsageError, match='--node a b: '):
        NodeSource(Feed(), 'a b', tmp_path)


def test_rocks_without_polygons_have_a_bounding_box():
    from types import SimpleNamespace

    from rock_seg_ros.node.outputs.clouds import ROCK_POINT

    points = np.zeros(1, ROCK_POINT)
    points['u'], points['v'], points['width'], points['height'] = 10, 20, 4, 6
    points['diameter'] = 0.25
    (rock,) = read_rocks(SimpleNamespace(data=points.tobytes()), None)
    assert rock['bbox'] == [8, 17, 4, 6]
    assert rock['polygon'] == []
    assert rock['diameter_mm'] == 250
    assert read_rocks(None, None) == []
