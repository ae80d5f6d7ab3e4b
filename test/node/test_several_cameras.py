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
    """A node with a front and a rear camera, and a subscriber to their masks."""

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
        """Blocks the network with an image of the front camera until `go` is set."""
        self.bench.segmenter.go.clear()
        self.send(FRONT, image)
        self.bench.wait(lambda: self.bench.segmenter.images, 'processing of the first image')

    def waits(self, *topics):
        """Waits until the mailbox holds an image of each of these cameras."""
        items = self.bench.node._worker.mailbox._items
        numbers = {(FRONT, REAR).index(topic) for topic in topics}
        self.bench.wait(lambda: set(items) == numbers, 'the images to wait')

    def masks(self, name, count=1):
        got = self.bench.received[f'/rock_seg/{name}/mask']
        return self.bench.wait(lambda: len(got) >= count and got, f'{count} masks of {name}')

    def statuses(self, happened, what):
        """Waits for diagnostics that satisfy a condition; returns the values by camera."""

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


def test_each_camera_has_its_own_outputs_with_its_headers_and_sizes(bench, rig, scene):
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


def test_waiting_images_of_one_size_are_one_batch(bench, rig):
    rig.start()
    rig.hold()
    rig.send(FRONT, SMALL, 2)
    rig.send(REAR, SMALL, 3)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    assert rig.masks('rear')[0].header.stamp.sec == 3
    assert [mask.header.stamp.sec for mask in rig.masks('front', 2)] == [1, 2]
    assert bench.segmenter.batches == [1, 2]


def test_new_weights_are_warmed_up_for_batches_of_as_many_images_as_cameras_have_one_size(
    bench, rig, scene
):
    rig.start()
    assert bench.segmenter.warmed_up == [(480, 640, 2)]
    rig.send(FRONT, SMALL)
    rig.send(REAR, SMALL)
    rig.masks('front')
    rig.masks('rear')
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    rig.send(REAR, scene)
    rig.masks('rear', 2)
    assert bench.call(Trigger, '/rock_seg/reload_weights', Trigger.Request()).success
    assert bench.segmenter.warmed_up[1:] == [(24, 32, 2), (24, 32, 1), (48, 64, 1)]


def test_the_masks_of_all_cameras_are_published_before_any_camera_waits_for_depth(
    bench, rig, monkeypatch
):
    order, publish = [], Output.publish

    def record(output, *arguments):
        order.append(output.topic)
        publish(output, *arguments)

    rig.start()
    for name, camera in zip(('front', 'rear'), bench.node._cameras, strict=True):
        bench.listen(PointCloud2, f'/rock_seg/{name}/rocks')
        bench.wait(
            lambda camera=camera: camera.outputs[-1].has_subscribers, 'the rocks to be matched'
        )
    monkeypatch.setattr(Output, 'publish', record)
    rig.hold()
    rig.send(FRONT, SMALL, 2)
    rig.send(REAR, SMALL, 3)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    got = bench.received['/rock_seg/rear/rocks']
    bench.wait(lambda: got, 'the rocks of rear')
    assert order[-4:] == ['~/mask', '~/mask', '~/rocks', '~/rocks']


def test_an_infrequent_camera_is_processed_before_a_frequent_one(bench, rig, scene):
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


def test_an_invalid_image_does_not_affect_the_other_camera(bench, rig):
    rig.start()
    rig.hold()
    bad = to_message(SMALL, 'rgb8', Image().header)
    bad.encoding = 'nonsense'
    rig.send(FRONT, bad)
    rig.send(REAR, SMALL)
    rig.waits(FRONT, REAR)
    bench.segmenter.go.set()
    rig.masks('rear')
    values = rig.statuses(lambda v: v['front']['frames rejected'] == '1', 'the rejected image')
    assert (values['rear']['frames rejected'], values['rear']['frames out']) == ('0', '1')


def test_the_images_of_a_batch_that_failed_are_processed_one_by_one(bench, rig):
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


def test_each_camera_has_its_own_counters_and_status(bench, rig):
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


def test_a_camera_without_images_has_a_warning_in_its_status(bench, monkeypatch):
    bench.start(image_topics=[FRONT, '/no/publisher'])
    monkeypatch.setattr('rock_seg_ros.node.camera.IMAGE_TIMEOUT', 0.0)

    def silent():
        for report in bench.received['/diagnostics']:
            messages = [status.message for status in report.status]
            if 'no images: /no/publisher has no publisher' in messages:
                return messages
        return None

    assert len(bench.wait(silent, 'the warning')) == 2


def test_max_rate_applies_to_each_camera(bench, rig):
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


def test_each_camera_may_have_its_own_ignore_mask(bench, rig, tmp_path):
    valid_mask = np.zeros((24, 32), np.uint8)
    valid_mask[:, :8] = 255
    cv2.imwrite(str(tmp_path / 'front.png'), valid_mask)
    cv2.imwrite(str(tmp_path / 'rear.png'), 255 - valid_mask)
    rig.start(ignore_mask=str(tmp_path / '{camera}.png'))
    for topic, name, pixels in ((FRONT, 'front', 24 * 8), (REAR, 'rear', 24 * 24)):
        rig.send(topic, SMALL)
        assert np.frombuffer(rig.masks(name)[0].data, np.uint8).sum() == 255 * pixels


def test_the_compressed_transport_applies_to_each_camera(bench, rig):
    rig.start(kind=CompressedImage, suffix='/compressed', image_transport='compressed')
    for topic, name in ((FRONT, 'front'), (REAR, 'rear')):
        message = CompressedImage(format='png')
        fill(message, cv2.imencode('.png', SMALL)[1])
        rig.send(topic, message)
        assert rig.masks(name)[0].header == message.header


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
@pytest.mark.parametrize('count', [1, 3])
def test_swapped_cameras_keep_their_names_images_and_camera_info(bench, transport, count):
    names = ('image_raw', 'image_raw/compressed', 'camera_info')[:count]
    swapped = [(a, b, name) for a, b in (('front', 'rear'), ('rear', 'front')) for name in names]
    rules = [word for a, b, name in swapped for word in ('-r', f'/{a}/{name}:=/{b}/{name}')]
    bench.start(*rules, image_topics=[FRONT, REAR], image_transport=transport)
    bench.wait(lambda: bench.node.state == 'active', 'active')
    for name, camera in zip(('rear', 'front'), bench.node._cameras, strict=True):
        images = f'/{name}/image_raw' + ('/compressed' if transport == 'compressed' else '')
        assert (camera.name, camera.topic) == (name, images)
        subscribed = camera.subscription, *camera.geometry._subscriptions
        assert [each.topic_name for each in subscribed] == [images, f'/{name}/camera_info']


def test_cameras_of_the_same_name_are_a_configuration_error_of_one_line(bench, capfd):
    bench.start('-r', 'a/image:=/x/image', image_topics=['a/image', '/x/image'], autostart=False)
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert 'image_topics /x/image and /x/image would both be camera' in line


def test_an_invalid_topic_is_a_configuration_error_that_names_it(bench, capfd):
    bench.start(image_topics=[FRONT, '/rear//image'], autostart=False)
    assert not bench.change_state('configure')
    (line,) = [line for line in capfd.readouterr().err.splitlines() if '[ERROR]' in line]
    assert "image_topics has '/rear//image': topic name must not contain repeated '/'" in line


def test_a_failed_configure_leaves_no_publishers(bench):
    override = 'qos_overrides./rock_seg/rear/mask.publisher.reliability:=perhaps'
    bench.start('-p', override, image_topics=[FRONT, REAR], autostart=False)
    before = {publisher.topic_name for publisher in bench.node.publishers}
    assert not bench.change_state('configure')
    assert bench.get_state() == 'unconfigured'
    assert {publisher.topic_name for publisher in bench.node.publishers} == before


def test_the_counters_of_a_camera_continue_after_a_reconfiguration(bench, rig):
    rig.start()
    rig.send(REAR, SMALL)
    rig.masks('rear')
    for label in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert bench.change_state(label)
    rig.statuses(lambda v: v['rear']['frames out'] == '1', 'the earlier count')


def test_the_network_is_warmed_up_for_a_batch_of_cameras_whose_last_images_had_one_size(
    bench, rig, scene
):
    rig.start()
    assert bench.segmenter.warmed_up == [(480, 640, 2)]
    rig.send(FRONT, SMALL)
    rig.masks('front')
    reload = Trigger, '/rock_seg/reload_weights', Trigger.Request()
    assert bench.call(*reload).success
    assert bench.segmenter.warmed_up[1:] == [(24, 32, 1), (480, 640, 1)], 'rear had no image yet'
    rig.send(REAR, scene)
    rig.masks('rear')
    assert bench.call(*reload).success
    assert bench.segmenter.warmed_up[3:] == [(24, 32, 1), (48, 64, 1)]
    rig.send(REAR, SMALL)
    rig.masks('rear', 2)
    for label in ('deactivate', 'cleanup', 'configure'):
        assert bench.change_state(label)
    assert bench.segmenter.warmed_up[5:] == [(24, 32, 2)]
