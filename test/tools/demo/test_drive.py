# SPDX-License-Identifier: Apache-2.0
"""Tests of the demo with the real node in the same process and the test network."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from rock_seg_ros.node.seg_node import SegNode
from rock_seg_ros.tools.bag.files import Bag, BagWriter
from rock_seg_ros.tools.demo import drive as demo_drive
from rock_seg_ros.tools.demo.drive import (
    COMPRESSED,
    IMAGE,
    MARGIN,
    NODE,
    WANTED_MASKS,
    DemoError,
    await_active,
    check_result,
    image_topic,
    measure,
    open_camera,
    play_drive,
    play_rate,
    warm_up,
)
from rock_seg_ros.tools.demo.recorder import OUTPUTS
from rock_seg_ros.tools.demo.report import overlap, pooled_iou


class Process:
    """A substitute for the process of the node.

    Attributes:
        exit_status: None = the process runs.
    """

    def __init__(self):
        self.exit_status = None

    def status(self):
        return self.exit_status

    def last_lines(self):
        return 'its last lines'


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def start_node():
    """Starts the node with a network in a thread, which ends after the test."""
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    started = []

    def start(load):
        node = SegNode(
            load,
            context=context,
            cli_args=['--ros-args', '-r', f'image:={IMAGE}'],
            parameter_overrides=[
                Parameter('image_transport', value='compressed'),
                Parameter(f'qos_overrides.{COMPRESSED}.subscription.reliability', value='reliable'),
            ],
        )
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        started.append((node, thread))

    yield start
    executor.shutdown()
    for node, thread in started:
        thread.join()
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def camera(tmp_path, process):
    with BagWriter(tmp_path / 'recording') as recording, open_camera(process, recording) as made:
        yield made


def test_the_results_of_drive_and_samples_are_complete(
    camera, process, start_node, segmenter, demo_data, monkeypatch, capsys
):
    monkeypatch.setattr(demo_drive, 'WANTED_MASKS', 1)
    start_node(lambda _: segmenter)
    await_active(camera, process)
    assert 0 < warm_up(camera, demo_data / 'mars_drive') < 5
    with Bag(demo_data / 'mars_drive') as bag:
        drive = play_drive(camera, bag, 0.5)
    assert 'masks instead of' not in capsys.readouterr().err
    assert drive.played == 12
    # A newer image may replace the first one before the node reads it; it is then not counted.
    assert len(drive.results) <= drive.counts['frames in'] <= 12
    assert drive.counts['frames out'] == len(drive.results) >= 1
    assert drive.counts['frames dropped'] == drive.counts['frames in'] - len(drive.results)
    assert float(drive.diagnostics['latency total p50 ms']) > 0
    assert [result.rocks for result in drive.results.values()] == [2] * len(drive.results)
    samples = {sample.name: sample for sample in measure(camera, demo_data / 'samples', 0.1)}
    ious = {n: pooled_iou([overlap(s.result.mask, s.truth)]) for n, s in samples.items()}
    assert ious == {'same': 1.0, 'half': pytest.approx(200 / 320)}


def test_fewer_masks_than_wanted_are_reported(
    camera, process, start_node, segmenter, demo_data, monkeypatch, capsys
):
    monkeypatch.setattr(demo_drive, 'WANTED_MASKS', 13)
    start_node(lambda _: segmenter)
    await_active(camera, process)
    with Bag(demo_data / 'mars_drive') as bag:
        play_drive(camera, bag, 1.0)
    assert 'masks instead of 13 arrived' in capsys.readouterr().err


def test_an_image_is_published_again_as_soon_as_the_node_is_idle(
    camera, process, start_node, segmenter, demo_data, capsys
):
    failures = [RuntimeError('out of memory')]

    def fail_once(image, threshold=None):
        if failures:
            raise failures.pop()
        return segmenter.segment(image, threshold)

    start_node(lambda _: SimpleNamespace(**_attributes(segmenter), segment=fail_once))
    await_active(camera, process)
    start = time.monotonic()
    warm_up(camera, demo_data / 'mars_drive')
    assert time.monotonic() - start < demo_drive.MAX_ANSWER_TIMEOUT / 4
    assert capsys.readouterr().err.count('publishing it again') == 1


def test_the_recorder_is_connected_when_all_outputs_have_a_publisher(camera):
    *first, last = (f'{NODE}/{output}' for output in OUTPUTS)
    kinds = {f'{NODE}/{output}': kind for output, (_, kind) in OUTPUTS.items()}
    for topic in first:
        camera.node.create_publisher(kinds[topic], topic, 1)
    recorder = camera.recorder
    assert not recorder.wait_for(recorder.connected, 0.3)
    camera.node.create_publisher(kinds[last], last, 1)
    assert recorder.wait_for(recorder.connected, 10)


def test_outputs_and_diagnostics_are_recorded(process, start_node, segmenter, demo_data, tmp_path):
    start_node(lambda _: segmenter)
    with BagWriter(tmp_path / 'out') as recording, open_camera(process, recording) as camera:
        await_active(camera, process)
        warm_up(camera, demo_data / 'mars_drive')
    with Bag(tmp_path / 'out') as bag:
        counts = {topic.name: topic.count for topic in bag.topics}
    outputs = ('mask', 'overlay/compressed', 'polygon_points', 'rocks')
    assert all(counts[f'/rock_seg/{output}'] >= 3 for output in outputs)
    assert counts['/diagnostics'] >= 1


def test_the_error_for_a_node_that_cannot_be_configured_has_the_reason(camera, process, start_node):
    def fail(_):
        raise ValueError('no weights')

    start_node(fail)
    with pytest.raises(DemoError, match=r'the node is unconfigured: .*no weights'):
        await_active(camera, process)


def test_the_error_for_a_node_that_ended_has_its_last_lines(camera, process):
    process.exit_status = 1
    with pytest.raises(DemoError, match='the node ended with status 1: its last lines'):
        await_active(camera, process)


def test_a_node_that_does_not_become_active_is_an_error(camera, process):
    with pytest.raises(DemoError, match='the node is not active after 0 s: its last lines'):
        await_active(camera, process, timeout=0.2)


def test_the_error_for_a_node_without_results_has_its_diagnostics(
    camera, process, start_node, segmenter, demo_data, monkeypatch
):
    def fail(image, threshold=None):
        raise RuntimeError('out of memory')

    start_node(lambda _: SimpleNamespace(**_attributes(segmenter), segment=fail))
    await_active(camera, process)
    monkeypatch.setattr(demo_drive, 'TRIES', 1)
    start = time.monotonic()
    with pytest.raises(DemoError, match=r'no results for an image.*frames out 0'):
        warm_up(camera, demo_data / 'mars_drive')
    assert time.monotonic() - start < demo_drive.MAX_ANSWER_TIMEOUT / 4
    with (
        Bag(demo_data / 'mars_drive') as bag,
        pytest.raises(DemoError, match=r'results of 0 of 12 images arrived.*frames failed'),
    ):
        play_drive(camera, bag, 1.0)


def _attributes(segmenter):
    names = ('metadata', 'device', 'precision', 'backend', 'warm_up')
    return {name: getattr(segmenter, name) for name in names}


@pytest.fixture
def answered(camera, process, start_node, segmenter, demo_data):
    """An image and its results."""
    start_node(lambda _: segmenter)
    await_active(camera, process)
    warm_up(camera, demo_data / 'mars_drive')
    stamp, image = next(iter(camera.sent.items()))
    return image, camera.recorder.results[stamp]


def test_a_header_or_size_that_differs_is_an_error(answered):
    image, result = answered
    check_result(image, result)
    result.messages['rocks'].header.frame_id = 'elsewhere'
    with pytest.raises(DemoError, match=r'rocks has the header .*elsewhere.* instead of .*warm_up'):
        check_result(image, result)
    result.messages['rocks'].header.frame_id = image.header.frame_id
    result.messages['mask'].width -= 1
    with pytest.raises(
        DemoError, match=r'a mask has the shape \(48, 63\), but its image \(48, 64\)'
    ):
        check_result(image, result)


def test_the_play_rate_is_low_enough_for_the_wanted_number_of_masks():
    for seconds in (1.0, 2.0, 10.0):
        rate = play_rate(12.0, seconds)
        assert 12.0 / rate / seconds == pytest.approx(MARGIN * WANTED_MASKS)
    assert play_rate(12.0, 0.01) == 1.0


def test_a_bag_without_the_image_topic_is_an_error(tmp_path):
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic('/other', 'sensor_msgs/msg/Image')
        writer.write('/other', 1, b'')
    with Bag(tmp_path / 'bag') as bag, pytest.raises(DemoError, match=f'no topic {COMPRESSED}'):
        image_topic(bag)


@pytest.mark.parametrize('missing', ['images', 'masks'])
def test_missing_samples_are_an_error(camera, process, start_node, segmenter, demo_data, missing):
    start_node(lambda _: segmenter)
    await_active(camera, process)
    for path in (demo_data / 'samples' / missing).iterdir():
        path.unlink()
    with pytest.raises((DemoError, FileNotFoundError), match=r'has no images|half\.png'):
        measure(camera, demo_data / 'samples', 0.1)
