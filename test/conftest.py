# SPDX-License-Identifier: Apache-2.0
"""Settings of every test process (DDS on loopback with its own domain), and shared fixtures."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.tools.local_domain import use_local_domain

if TYPE_CHECKING:
    import torch

    from rock_seg_ros.perception.inference.metadata import ModelMetadata
    from rock_seg_ros.perception.inference.segmenter import Segmenter

use_local_domain()
# Two test processes share the cores; threads that wait for each other would slow both down.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'
# A shell starts background jobs with Ctrl-C ignored, and so would every child of theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)


def save_random_weights(file: Path, metadata: ModelMetadata) -> Path:
    """Saves random weights of a network as int8, always the same ones."""
    import torch

    from rock_seg_ros.perception.inference.model import build
    from rock_seg_ros.perception.inference.weights_file import save_weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_weights(file, build(metadata).state_dict(), metadata, int8=True)
    return file


@pytest.fixture(scope='session')
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the ResNet-50 network; output stride 16 is the faster one."""
    from rock_seg_ros.perception.inference.metadata import ModelMetadata

    metadata = ModelMetadata(
        output_stride=16, metrics={'val_iou': 0.25}, data='noise', licence='Apache-2.0'
    )
    return save_random_weights(tmp_path_factory.mktemp('weights') / 'random.safetensors', metadata)


@pytest.fixture(scope='session')
def light_weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the light network, for tests of what holds for any network."""
    from rock_seg_ros.perception.inference.metadata import ModelMetadata

    metadata = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    return save_random_weights(tmp_path_factory.mktemp('weights') / 'light.safetensors', metadata)


@pytest.fixture(scope='session')
def rim_weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the light network with the class rim."""
    from rock_seg_ros.perception.inference.metadata import RIM, ModelMetadata

    classes = ('background', 'rock', RIM)
    metadata = ModelMetadata(classes, architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    return save_random_weights(tmp_path_factory.mktemp('weights') / 'rim.safetensors', metadata)


@pytest.fixture(scope='session')
def small_image() -> NDArray[np.uint8]:
    """64×80×3 uint8 RGB: a noisy gradient, which differs from each of its mirror images."""
    rng = np.random.default_rng(0)
    gradient = np.linspace(0, 180, 80)[None, :, None] + np.linspace(0, 40, 64)[:, None, None]
    image = (gradient + rng.integers(0, 36, (64, 80, 3))).astype(np.uint8)
    image.flags.writeable = False
    return image


@pytest.fixture
def white_corner(scene: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The scene with white pixels, for which `nan_segmenter` fails."""
    image = scene.copy()
    image[:8, :8] = 255
    return image


@pytest.fixture
def nan_segmenter(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """A segmenter whose network returns NaN for images with white pixels."""
    from rock_seg_ros.perception.inference.metadata import ModelMetadata
    from rock_seg_ros.perception.inference.segmenter import BACKENDS, Segmenter
    from rock_seg_ros.perception.inference.weights_file import Weights

    class NanBackend:
        precision = 'fp32'

        def __init__(self, weights: Weights, device: torch.device, *_: object, **__: object):
            self.device = device

        def logits(self, images: torch.Tensor) -> torch.Tensor:
            white = images.amax(dim=(1, 2, 3), keepdim=True) > 2.5  # normalised; 2.2 is 230
            return images[:, :2].masked_fill(white, float('nan'))

    monkeypatch.setitem(BACKENDS, 'nan', NanBackend)
    return Segmenter(Weights(Path('w'), ModelMetadata(), {}), 'cpu', backend='nan')


@pytest.fixture
def colours() -> NDArray[np.uint8]:
    """32×48 RGB with a different colour in each quarter."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:] = (200, 40, 40), (40, 200, 40)
    image[16:, :24], image[16:, 24:] = (40, 40, 200), (200, 200, 200)
    return image
