# SPDX-License-Identifier: Apache-2.0
"""The node of this package with fixed logits instead of a network.

python -m rock_seg_ros.tools.bench.programs.stub_node --network-ms 100 --ros-args -r image:=I
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rock_seg_ros.node import seg_node
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.inference.metadata import RIM, ModelMetadata
from rock_seg_ros.perception.inference.segmenter import BACKENDS, Segmenter
from rock_seg_ros.perception.inference.weights_file import Weights
from rock_seg_ros.tools.bench.programs.stub_logits import fixed_logits

# Like those of the embedded weights.
METADATA = ModelMetadata(classes=('background', 'rock', RIM), smallest_side=480)


class StubBackend:
    """A backend that always returns the same rocks."""

    precision = 'fp32'
    seconds = 0.0  # simulated time per batch, in which the backend sleeps

    def __init__(self, weights: Weights, device: torch.device, *_: Any, **__: Any) -> None:
        """Takes the arguments of a backend; only the device is used."""
        self.device = device

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×3×H×W logits."""
        time.sleep(self.seconds)
        fixed = torch.from_numpy(fixed_logits(*images.shape[-2:], METADATA.channels))
        return fixed.to(self.device).expand(len(images), -1, -1, -1)


def load(parameters: Parameters) -> Segmenter:
    """Returns a segmenter with the stub backend."""
    BACKENDS['stub'] = StubBackend
    return Segmenter(Weights(Path('stub'), METADATA, {}), parameters.device, backend='stub')


def main() -> int:
    """Runs the node until it is interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(
        description='The node with a stub network.', allow_abbrev=False
    )
    parser.add_argument('--network-ms', type=float, default=0.0, help='time per batch, ms')
    arguments, ros_arguments = parser.parse_known_args()
    StubBackend.seconds = arguments.network_ms / 1e3
    return seg_node.main(ros_arguments, load)


if __name__ == '__main__':
    raise SystemExit(main())
