# SPDX-License-Identifier: Apache-2.0
"""The node of this package with fixed scores instead of a network.

Run it as `python -m rock_seg_ros.tools.bench.programs.stub_node --rocks 20`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from rock_seg_ros.node import seg_node
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.inference.metadata import RIM, ModelMetadata
from rock_seg_ros.perception.inference.segmenter import BACKENDS, Segmenter
from rock_seg_ros.perception.inference.weights_file import Weights
from rock_seg_ros.tools.bench.programs.stub_scores import fixed_scores

METADATA = ModelMetadata(
    classes=('background', 'rock', RIM), smallest_side=480
)  # like the embedded weights
BACKEND = 'stub'


class StubBackend:
    """A backend that always returns the same rocks."""

    def __init__(self, device: torch.device, rocks: int, seconds: float) -> None:
        """Stores the settings.

        Args:
            device: Device of the scores.
            rocks: Number of rocks.
            seconds: Simulated time per batch, s, in which the backend sleeps.
        """
        self.device, self.precision = device, 'fp32'
        self._rocks, self._seconds = rocks, seconds

    def scores(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×3×H×W logits."""
        if self._seconds:
            time.sleep(self._seconds)
        height, width = images.shape[-2:]
        fixed = torch.from_numpy(fixed_scores(height, width, self._rocks, METADATA.channels))
        return fixed.to(self.device).expand(len(images), -1, -1, -1)


def main() -> int:
    """Runs the node until it is interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(
        description='The node with a stub network.', allow_abbrev=False
    )
    parser.add_argument('--rocks', type=int, default=20, metavar='N')
    parser.add_argument(
        '--network-ms', type=float, default=0.0, metavar='MS', help='time per batch'
    )
    arguments, ros_arguments = parser.parse_known_args()

    def load(parameters: Parameters) -> Segmenter:
        BACKENDS[BACKEND] = lambda weights, device, *how, **parts: StubBackend(
            device, arguments.rocks, arguments.network_ms / 1e3
        )
        return Segmenter(Weights(Path(BACKEND), METADATA, {}), parameters.device, backend=BACKEND)

    return seg_node.main(ros_arguments, load)


if __name__ == '__main__':
    raise SystemExit(main())
