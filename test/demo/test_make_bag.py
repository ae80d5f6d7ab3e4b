# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from demo.make_bag import IMAGE_TOPIC, INFO_TOPIC, SIZE, STEP, make_bag, windows
from rock_seg_ros.tools.bag.files import TYPES, Bag

CORNER = (10, 5)


@pytest.fixture
def panorama(tmp_path):
    """Returns a smooth image with space for four windows, and its file."""
    width, height = CORNER[0] + SIZE[0] + 3 * STEP, CORNER[1] + SIZE[1]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.dstack([x % 256, y % 256, (x + y) // 5 % 256]).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    cv2.imwrite(str(tmp_path / 'panorama.png'), image)
    return image, tmp_path / 'panorama.png'


@pytest.fixture
def read(panorama, tmp_path):
    """Returns the messages of the bag by topic, with their stamps in the bag."""
    make_bag(panorama[1], tmp_path / 'bag', CORNER, 4, 95)
    with Bag(tmp_path / 'bag') as bag:
        types = {topic.name: topic.type for topic in bag.topics}
        messages = {name: [] for name in types}
        for message in bag.messages(bag.topics):
            value = TYPES.deserialize_cdr(message.data, types[message.topic])
            messages[message.topic].append((message.stamp, value))
    return messages


def test_each_image_shows_the_panorama_six_pixels_further(read, panorama):
    assert len(read[IMAGE_TOPIC]) == 4
    for number, (_, message) in enumerate(read[IMAGE_TOPIC]):
        image = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        left, top = CORNER[0] + number * STEP, CORNER[1]
        window = panorama[0][top : top + SIZE[1], left : left + SIZE[0]]
        assert image.shape == window.shape
        assert np.abs(image.astype(int) - window).mean() < 4


def test_images_have_5_hz_stamps_and_a_camera_info_with_the_same_header(read):
    stamps = [stamp for stamp, _ in read[IMAGE_TOPIC]]
    assert np.diff(stamps).tolist() == [200_000_000] * 3
    for (stamp, image), (info_stamp, info) in zip(read[IMAGE_TOPIC], read[INFO_TOPIC], strict=True):
        header = image.header.stamp
        assert stamp == info_stamp == header.sec * 10**9 + header.nanosec
        assert info.header == image.header
        assert image.header.frame_id == 'camera_optical_frame'
        assert (info.width, info.height) == SIZE


def test_the_bag_of_a_panorama_is_reproducible(panorama, tmp_path):
    for folder in ('one', 'two'):
        make_bag(panorama[1], tmp_path / folder / 'bag', CORNER, 4, 80)
    for name in ('bag.mcap', 'metadata.yaml'):
        one, two = (tmp_path / folder / 'bag' / name for folder in ('one', 'two'))
        assert one.read_bytes() == two.read_bytes()


def test_an_existing_bag_is_replaced_without_leftover_files(panorama, tmp_path):
    for frames in (4, 2):
        make_bag(panorama[1], tmp_path / 'new' / 'bag', CORNER, frames, 80)
    with Bag(tmp_path / 'new' / 'bag') as bag:
        assert [topic.count for topic in bag.topics] == [2, 2]
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['bag']


@pytest.mark.parametrize(('corner', 'frames'), [((10, 5), 5), ((10, 6), 4), ((-1, 0), 1)])
def test_windows_beyond_the_panorama_are_rejected(panorama, corner, frames):
    with pytest.raises(ValueError, match='need a panorama of'):
        list(windows(panorama[0], corner, frames))


def test_a_file_that_is_not_an_image_is_rejected(tmp_path):
    with pytest.raises(ValueError, match='no image'):
        make_bag(tmp_path / 'none.jpg', tmp_path / 'bag', CORNER, 1, 80)
    assert not (tmp_path / 'bag').exists()
