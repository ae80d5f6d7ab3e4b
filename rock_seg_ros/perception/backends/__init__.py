# SPDX-License-Identifier: Apache-2.0
"""What runs the network. A backend is one file here and one line in `segmenter.BACKENDS`."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """Runs the network on prepared pictures.

    Attributes:
        device: Where the pictures have to be, and the scores are.
        precision: 'fp32', 'fp16', 'bf16' or 'int8'.
    """

    device: torch.device
    precision: str

    def scores(self, pictures: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
