# SPDX-License-Identifier: Apache-2.0
"""The node of this package with fixed logits instead of a network.

    python -m rock_seg_ros.tools.bench.programs.stub_node MS --ros-args -r image:=/camera/image_raw

MS is the simulated time of the network per batch, in which the node sleeps, ms.
"""

from __future__ import annotations

import sys
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
from rock_seg_ros.tools.bench.programs.plain_node import fixed_logits

# Like those of the embedded weights.
METADATA = ModelMetadata(classes=('background', 'rock', RIM), smallest_side=480)


class StubBackend:
    """A backend that always returns the same rocks."""

    precision = 'fp32'

    def __init__(self, weights: Weights, device: torch.device, *_: Any, **__: Any) -> None:
        """Takes the arguments of a backend; only the device is used."""
        self.device = device

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W to N×3×H×W logits."""
        time.sleep(float(sys.argv[1]) / 1e3)
        fixed = torch.from_numpy(fixed_logits(*images.shape[-2:], METADATA.channels))
        return fixed.to(self.device).expand(len(images), -1, -1, -1)


def load(parameters: Parameters) -> Segmenter:
    """Returns a segmenter with the stub backend."""
    BACKENDS['stub'] = StubBackend
    return Segmenter(Weights(Path('stub'), METADATA, {}), parameters.device, backend='stub')


if __name__ == '__main__':
    raise SystemExit(seg_node.main(sys.argv[2:], load))
