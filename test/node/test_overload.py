# SPDX-License-Identifier: Apache-2.0
"""A higher image rate than the network can process."""

from __future__ import annotations

import time
import weakref

import numpy as np
import pytest
from rclpy.clock import ROSClock
from sensor_msgs.msg import Image

from rock_seg_ros.node import camera as camera_module
from rock_seg_ros.node.images import to_message

NETWORK = 0.1
IMAGE = np.full((48, 64, 3), 200, np.uint8)


@pytest.fixture
def held(monkeypatch):
    """Returns a function that returns the number of images that the node holds."""
    references = []
    make = camera_module.IncomingImage

    def make_and_record(*parts):
        incoming = make(*parts)
        references.append(weakref.ref(incoming))
        return incoming

    monkeypatch.setattr(camera_module, 'IncomingImage', make_and_record)
    return lambda: sum(reference() is not None for reference in references)


def overload(bench, topics, held, seconds):
    """Publishes at ten times the network's rate; returns the maximum number of images held."""
    publishers = [bench.tester.create_publisher(Image, topic, 1) for topic in topics]
    for publisher in publishers:
        bench.wait(publisher.get_subscription_count, 'the subscription')
    most, until = 0, time.monotonic() + seconds
    while (now := time.monotonic()) < until:
        for publisher in publishers:
            message = to_message(IMAGE, 'rgb8', Image().header)
            message.header.stamp = ROSClock().now().to_msg()
            publisher.publish(message)
        most = max(most, held())
        time.sleep(max(0.0, now + NETWORK / 10 - time.monotonic()))
    return most


def listen_to_ages(bench, topic):
    ages = []

    def note(message):
        stamp = message.header.stamp
        ages.append(time.time() - stamp.sec - stamp.nanosec / 1e9)

    bench.tester.create_subscription(Image, topic, note, 5)
    return ages


@pytest.mark.parametrize('names', [[], ['front', 'rear']])
def test_results_are_as_old_as_one_network_run_and_images_do_not_accumulate(bench, held, names):
    bench.segmenter.seconds = NETWORK
    bench.start(**({'image_topics': [f'/{name}/image' for name in names]} if names else {}))
    bench.wait(lambda: bench.node.state == 'active', 'active')
    ages = [listen_to_ages(bench, f'/rock_seg/{n}/mask') for n in names] or [
        listen_to_ages(bench, '/rock_seg/mask')
    ]
    for camera in bench.node._cameras:
        bench.wait(
            lambda camera=camera: camera.outputs[0].has_subscribers, 'the mask to be matched'
        )
    topics = [f'/{name}/image' for name in names] or ['/image']
    most = overload(bench, topics, held, seconds=20 * NETWORK)
    for of_camera in ages:
        assert len(of_camera) > 8
        # One run of the network and 20 ms; an image that waited for another run has two.
        assert np.median(of_camera) < 1.6 * NETWORK
    assert 1 <= most <= 3 * len(topics)  # being processed, waiting, and being put in
