# SPDX-License-Identifier: Apache-2.0
"""Several cameras in one node, on real DDS."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger

from rock_seg_ros.node.images import fill, to_message
from rock_seg_ros.node.outputs import OUTPUTS, Output

FRONT, REAR = '/front/image_raw', '/rear/image_raw'
SMALL = np.full((24, 32, 3), 200, np.uint8)


class Rig:
    """A node with a front and a rear camera, whose masks are listened to."""

    def __init__(self, bench):
        self.bench = bench
        self.publishers = {}

    def start(self, *ros_args, kind=Image, suffix='', **parameters):
        bench = self.bench
        bench.start(*ros_args, image_topics=[FRONT, REAR], **parameters)
        for topic in (FRONT, REAR):
            self.publishers[topic] = bench.tester.create_publisher(kind, topic + suffix, 1)
        bench.wait(lambda: bench.node.state == 'active', 'active')
        for camera, publisher in zip(bench.node._cameras, self.publishers.values(), strict=True):
            bench.listen(Image, f'/rock_seg/{camera.name}/mask')
            bench.wait(publisher.get_subscription_count, 'the subscription')
            bench.wait(
                lambda camera=camera: camera.outputs[0].has_subscribers, 'the mask to be matched'
            )

    def send(self, topic, image, stamp=1):
        message = image
        if isinstance(image, np.ndarray):
            message = to_message(image, 'rgb8', Image().header)
        message.header.stamp.sec = stamp
        message.header.frame_id = topic.split('/')[1]
        self.publishers[topic].publish(message)
        return message

    def hold(self, image=SMALL):
        """Has the network work on an image of the front camera until it is let go."""
        self.bench.segmenter.go.clear()
        self.send(FRONT, image)
        self.bench.wait(lambda: self.bench.segmenter.images, 'the first image to be in work')

    def waits(self, *topics):
        """Waits until an image of each of these cameras lies in the mailbox."""
        items = self.bench.node._worker.mailbox._items
        numbers = {(FRONT, REAR).index(topic) for topic in topics}
        self.bench.wait(lambda: set(items) == numbers, 'the images to wait')

    def masks(self, name, count=1):
        got = self.bench.received[f'/rock_seg/{name}/mask']
        return self.bench.wait(lambda: len(got) >= count and got, f'{count} masks of {name}')

    def statuses(self, happened, what):
        """Waits for a report of both cameras in which this happened; returns values by camera."""

        def latest():
            for report in self.bench.received['/diagnostics'][-1:]:
                values = {
                    status.name.split()[-1]: {v.key: v.value for v in status.values}
                    for status in report.status
                }
                if set(values) == {'front', 'rear'} and happened(values):
                    return values
            return None

        return self.bench.wait(latest, what)


@pytest.fixture
def rig(bench):
    return Rig(bench)


def test_each_camera_has_outputs_of_its_own_with_its_own_headers_and_sizes(bench, rig, scene):
    rig.start()
    sent = {'front': rig.send(FRONT, scene, 7), 'rear': rig.send(REAR, SMALL, 9)}
    for name, message in sent.items():
        mask = rig.masks(name)[0]
        assert mask.header == message.header
        assert (mask.height, mask.width) == (message.height, message.width)
    topics = {name for name, _ in bench.node.get_topic_names_and_types()}
    for name in sent:
        assert {o.topic.replace('~', f'/rock_seg/{name}') for o in OUTPUTS} <= topics
    assert '/rock_seg/mask' not in topics
    assert '/image' not in {s.topic_name for s in bench.node.subscriptions}


def test_images_of_one_size_that_wait_together_are_one_batch(bench, rig):
    rig.start()
    rig.hold()
    rig.send(FRONT, SMALL, 2)
    rig.send(REAR, SMALL, 3)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    assert rig.masks('rear')[0].header.stamp.sec == 3
    assert [mask.header.stamp.sec for mask in rig.masks('front', 2)] == [1, 2]
    assert bench.segmenter.batches == [1, 2]


def test_new_weights_are_warmed_for_as_many_images_of_one_size_as_there_are_cameras(
    bench, rig, scene
):
    rig.start()
    assert bench.segmenter.warmed == [(480, 640, 2)]
    rig.send(FRONT, SMALL)
    rig.send(REAR, SMALL)
    rig.masks('front')
    rig.masks('rear')
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    rig.send(REAR, scene)
    rig.masks('rear', 2)
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    assert bench.segmenter.warmed[1:] == [(24, 32, 2), (24, 32, 1), (48, 64, 1)]


def test_masks_of_all_cameras_go_out_before_one_of_them_may_wait_for_depth(bench, rig, monkeypatch):
    order, publish = [], Output.publish

    def noted(output, *of):
        order.append(output.topic)
        publish(output, *of)

    rig.start()
    for name, camera in zip(('front', 'rear'), bench.node._cameras, strict=True):
        bench.listen(PointCloud2, f'/rock_seg/{name}/rocks')
        bench.wait(
            lambda camera=camera: camera.outputs[-1].has_subscribers, 'the rocks to be matched'
        )
    monkeypatch.setattr(Output, 'publish', noted)
    rig.hold()
    rig.send(FRONT, SMALL, 2)
    rig.send(REAR, SMALL, 3)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    got = bench.received['/rock_seg/rear/rocks']
    bench.wait(lambda: got, 'the rocks of rear')
    assert order[-4:] == ['~/mask', '~/mask', '~/rocks', '~/rocks']


def test_a_camera_that_is_seldom_heard_is_next_after_one_that_always_sends(bench, rig, scene):
    rig.start()
    rig.hold()
    rig.send(REAR, scene, 3)
    rig.waits(REAR)
    rig.send(FRONT, SMALL, 2)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    rig.masks('front', 2)
    rig.masks('rear')
    assert bench.segmenter.batches == [1, 1, 1]
    assert bench.segmenter.images[1].shape == scene.shape


def test_a_bad_image_costs_its_own_camera_only(bench, rig):
    rig.start()
    rig.hold()
    bad = to_message(SMALL, 'rgb8', Image().header)
    bad.encoding = 'nonsense'
    rig.send(FRONT, bad)
    rig.send(REAR, SMALL)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    rig.masks('rear')
    values = rig.statuses(lambda v: v['front']['frames refused'] == '1', 'the refusal')
    assert (values['rear']['frames refused'], values['rear']['frames out']) == ('0', '1')


def test_images_that_do_not_go_together_are_tried_one_by_one(bench, rig):
    rig.start()
    rig.hold()
    rig.send(FRONT, SMALL, 2)
    rig.send(REAR, SMALL, 3)
    rig.waits(FRONT, REAR)
    bench.segmenter.error_of_batch = MemoryError('too little memory')
    bench.segmenter.go.set()
    rig.masks('front', 2)
    rig.masks('rear')
    assert bench.segmenter.batches == [1, 2, 1, 1]


def test_each_camera_counts_its_own_images_and_has_a_status_of_its_own(bench, rig):
    rig.start()
    for stamp in (1, 2, 3):
        rig.send(FRONT, SMALL, stamp)
        rig.masks('front', stamp)
    rig.send(REAR, SMALL)
    rig.masks('rear')
    values = rig.statuses(lambda v: v['rear']['frames out'] == '1', 'the image of rear')
    assert (values['front']['frames in'], values['front']['frames out']) == ('3', '3')
    assert values['rear']['frames in'] == '1'
    assert values['rear']['state'] == 'active'


def test_a_camera_that_is_not_heard_is_told_in_its_own_status(bench, monkeypatch):
    bench.start(image_topics=[FRONT, '/nobody/here'])
    monkeypatch.setattr('rock_seg_ros.node.camera.IMAGE_TIMEOUT', 0.0)

    def silent():
        for report in bench.received['/diagnostics']:
            messages = [status.message for status in report.status]
            if 'no images: nobody publishes /nobody/here' in messages:
                return messages
        return None

    assert len(bench.wait(silent, 'the warning')) == 2


def test_max_rate_holds_for_each_camera(bench, rig):
    rig.start(max_rate=1.0)
    rig.send(FRONT, SMALL, 1)
    rig.masks('front')
    rig.send(REAR, SMALL, 1)
    rig.masks('rear')
    first, second = bench.segmenter.starts
    rig.send(FRONT, SMALL, 2)
    rig.masks('front', 2)
    assert second - first < 0.95
    assert bench.segmenter.starts[2] - first >= 0.95


def test_each_camera_may_have_an_ignore_mask_of_its_own(bench, rig, tmp_path):
    keep = np.zeros((24, 32), np.uint8)
    keep[:, :8] = 255
    cv2.imwrite(str(tmp_path / 'front.png'), keep)
    cv2.imwrite(str(tmp_path / 'rear.png'), 255 - keep)
    rig.start(ignore_mask=str(tmp_path / '{camera}.png'))
    for topic, name, pixels in ((FRONT, 'front', 24 * 8), (REAR, 'rear', 24 * 24)):
        rig.send(topic, SMALL)
        assert np.frombuffer(rig.masks(name)[0].data, np.uint8).sum() == 255 * pixels


def test_compressed_transport_holds_for_each_camera(bench, rig):
    rig.start(kind=CompressedImage, suffix='/compressed', image_transport='compressed')
    for topic, name in ((FRONT, 'front'), (REAR, 'rear')):
        message = CompressedImage(format='png')
        fill(message, cv2.imencode('.png', SMALL)[1])
        rig.send(topic, message)
        assert rig.masks(name)[0].header == message.header


def test_cameras_of_the_same_name_keep_the_node_unconfigured_with_one_line(bench, capfd):
    bench.start('-r', 'a/image:=/x/image', image_topics=['a/image', '/x/image'], autostart=False)
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert 'image_topics /x/image and /x/image would both be camera' in line


def test_a_topic_that_stands_for_none_keeps_the_node_unconfigured_and_is_named(bench, capfd):
    bench.start(image_topics=[FRONT, '/rear//image'], autostart=False)
    assert not bench.change_state('configure')
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert "image_topics has '/rear//image': topic name must not contain repeated '/'" in line


def test_a_failure_in_the_middle_of_configure_leaves_no_topics_behind(bench):
    override = 'qos_overrides./rock_seg/rear/mask.publisher.reliability:=perhaps'
    bench.start('-p', override, image_topics=[FRONT, REAR], autostart=False)
    before = {publisher.topic_name for publisher in bench.node.publishers}
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'
    assert {publisher.topic_name for publisher in bench.node.publishers} == before


def test_counts_of_a_camera_outlive_its_being_configured_anew(bench, rig):
    rig.start()
    rig.send(REAR, SMALL)
    rig.masks('rear')
    for label in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert bench.change_state(label)
    rig.statuses(lambda v: v['rear']['frames out'] == '1', 'the count of before')


def test_cameras_are_warmed_for_together_where_their_last_images_were_of_one_size(
    bench, rig, scene
):
    rig.start()
    assert bench.segmenter.warmed == [(480, 640, 2)]
    rig.send(FRONT, SMALL)
    rig.masks('front')
    reload = Trigger, '/rock_seg/reload_weights', Trigger.Request()
    assert bench.call(*reload).success
    assert bench.segmenter.warmed[1:] == [(24, 32, 1), (480, 640, 1)], 'rear was not seen yet'
    rig.send(REAR, scene)
    rig.masks('rear')
    assert bench.call(*reload).success
    assert bench.segmenter.warmed[3:] == [(24, 32, 1), (48, 64, 1)]
    rig.send(REAR, SMALL)
    rig.masks('rear', 2)
    for label in ('deactivate', 'cleanup', 'configure'):
        assert bench.change_state(label)
    assert bench.segmenter.warmed[5:] == [(24, 32, 2)]
