# SPDX-License-Identifier: Apache-2.0
"""The committed data of the demo."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.make_bag import IMAGE_TOPIC, INFO_TOPIC
from rock_seg_ros.tools.bag.files import TYPES, Bag

DEMO = Path(__file__).parents[2] / 'demo'
LARGEST_BAG = 2_500_000


@pytest.fixture(scope='module')
def drive():
    """Returns the images and the camera infos of the bag."""
    with Bag(DEMO / 'mars_drive') as bag:
        types = {topic.name: topic.type for topic in bag.topics}
        assert types == {
            IMAGE_TOPIC: 'sensor_msgs/msg/CompressedImage',
            INFO_TOPIC: 'sensor_msgs/msg/CameraInfo',
        }
        found = {name: [] for name in types}
        for message in bag.messages(bag.topics):
            found[message.topic].append(TYPES.deserialize_cdr(message.data, types[message.topic]))
    return found[IMAGE_TOPIC], found[INFO_TOPIC]


def stamp(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_the_bag_is_a_small_mcap():
    files = list((DEMO / 'mars_drive').iterdir())
    assert sorted(path.suffix for path in files) == ['.mcap', '.yaml']
    assert sum(path.stat().st_size for path in files) <= LARGEST_BAG


def test_the_bag_has_at_least_sixty_images_at_5_hz(drive):
    stamps = [stamp(image) for image in drive[0]]
    assert len(stamps) >= 60
    assert set(np.diff(stamps)) == {200_000_000}


def test_every_image_is_640_by_480_and_shows_no_black_border_of_the_panorama(drive):
    for image in drive[0]:
        pixels = cv2.imdecode(image.data, cv2.IMREAD_COLOR)
        assert pixels.shape == (480, 640, 3)
        black = (pixels.max(axis=2) < 8).astype(np.uint8)
        assert not cv2.erode(black, np.ones((9, 9), np.uint8)).any()


def test_every_image_has_a_camera_info_with_its_header_and_size(drive):
    for image, info in zip(*drive, strict=True):
        assert info.header == image.header
        assert (info.width, info.height) == (640, 480)
        fx, _, cx, _, fy, cy = info.k[:6]
        assert fx == fy > 640
        assert (cx, cy) == (319.5, 239.5)


def test_every_sample_image_has_a_mask_of_its_size():
    images = sorted((DEMO / 'samples' / 'images').iterdir())
    masks = sorted((DEMO / 'samples' / 'masks').iterdir())
    assert [path.stem for path in images] == [path.stem for path in masks]
    assert len(images) == 4
    for image, mask in zip(images, masks, strict=True):
        label = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        assert label.shape == cv2.imread(str(image)).shape[:2]
        assert set(np.unique(label)) == {0, 255}


def test_the_sources_of_the_images_are_credited():
    credit = (DEMO / 'README.md').read_text()
    for name in ('NASA/JPL-Caltech', 'InRobots/MarsScapes', 'CVIR-Lab/MarsData', 'CC BY 4.0'):
        assert name in credit
