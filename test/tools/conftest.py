# SPDX-License-Identifier: Apache-2.0
"""A test network that classifies bright pixels as rock, and a small bag and samples for it."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.tools.bag.files import TYPES, BagWriter

IMAGE = 'sensor_msgs/msg/CompressedImage'
START = 1_391_040_000

WORK = """
import os, signal
from pathlib import Path
from rock_seg_ros.tools.jobs import Outcome

class Work:
    def __init__(self, folder):
        if (folder / 'no network').exists():
            raise ValueError('no network here')
        (folder / f'network {os.getpid()}').touch()
        self.folder = folder

    def __call__(self, task):
        return [self.take(path) for path in task]

    def take(self, path):
        with (self.folder / f'attempts {path}').open('a') as attempts:
            attempts.write(f'{os.getpid()}\\n')
        attempts = (self.folder / f'attempts {path}').read_text().splitlines()
        if path.name == 'fatal' or (path.name == 'fatal once' and len(attempts) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(path, 'is bad' if path.name == 'bad' else '', ('a note',))
"""


class BrightSegmenter:
    """Classifies pixels with red above 127 as rock."""

    metadata = ModelMetadata(output_stride=16)
    device = 'cpu'
    precision = 'fp32'
    backend = 'torch'

    def warm_up(self, height: int, width: int, batch: int = 1) -> None:
        """Does nothing: there is no network to warm up."""

    def capture_pending(self) -> None:
        """Does nothing: there are no CUDA graphs."""

    def segment(self, image, threshold=None):
        rock = image[..., 0] > 255 * (0.5 if threshold is None else threshold)
        return Segmentation(rock.astype(np.uint8), np.full(rock.shape, 200, np.uint8), (1,))


@pytest.fixture
def segmenter():
    return BrightSegmenter()


@pytest.fixture
def scene():
    """48×64 RGB: a bright 20×10 rock with its corner at (8, 4), and a 10×12 one at (40, 30)."""
    image = np.full((48, 64, 3), 60, np.uint8)
    image[4:14, 8:28] = 220
    image[30:42, 40:50] = 230
    return image


def compressed(image, stamp, frame_id='camera_optical_frame', suffix='.png'):
    """Returns a CompressedImage in the classes of rosbags; `stamp` in ns."""
    make = TYPES.types
    time = make['builtin_interfaces/msg/Time'](*divmod(stamp, 10**9))
    header = make['std_msgs/msg/Header'](time, frame_id)
    coded = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].ravel()
    return make[IMAGE](header, suffix[1:], coded)


@pytest.fixture
def demo_data(tmp_path, scene):
    """A folder like demo/: a bag of 12 small images, 20 Hz, and two samples."""
    folder = tmp_path / 'data'
    with BagWriter(folder / 'mars_drive') as writer:
        topic = '/camera/image_raw/compressed'
        writer.add_topic(topic, IMAGE)
        for number in range(12):
            stamp = START * 10**9 + number * 50_000_000
            writer.write_message(topic, stamp, compressed(np.roll(scene, number, 1), stamp))
    for kind in ('images', 'masks'):
        (folder / 'samples' / kind).mkdir(parents=True)
    truth = np.where(scene[..., 0] > 127, 255, 0).astype(np.uint8)
    cv2.imwrite(str(folder / 'samples/images/same.png'), scene)
    cv2.imwrite(str(folder / 'samples/masks/same.png'), truth)
    cv2.imwrite(str(folder / 'samples/images/half.png'), scene)
    truth[:, 32:] = 0
    cv2.imwrite(str(folder / 'samples/masks/half.png'), truth)
    return folder


@pytest.fixture
def make_compressed():
    return SimpleNamespace(type=IMAGE, message=compressed)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a worker that records its processes and attempts, in a module that processes import."""
    (tmp_path / 'work_for_tests.py').write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{Path(__file__).parents[2]}')
    module = importlib.import_module('work_for_tests')
    yield partial(module.Work, tmp_path)
    del sys.modules['work_for_tests']
