# SPDX-License-Identifier: Apache-2.0
"""Backends, which run the network. Each is a file here and an entry of `segmenter.BACKENDS`."""

from __future__ import annotations

import os
from typing import Protocol

import torch
from torch import Tensor


class Backend(Protocol):
    """Runs the network on prepared images.

    Attributes:
        device: The device of the images and of the logits.
        precision: 'fp32', 'fp16', 'bf16' or 'int8'.
    """

    device: torch.device
    precision: str

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 logits."""


class TilingBackend(Backend, Protocol):
    """A backend that also runs the parts of the network separately, for tiling; see `DeepLabV3`."""

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""

    def context(self, deep: Tensor) -> Tensor:
        """Maps the output of `deep` to N×context_channels×h×w, or N×channels×h×w, float32."""

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their scaled context to N×channels×H/4×W/4 float32 logits."""


def threads_from_environment() -> int:
    """Returns OMP_NUM_THREADS, which some runtimes do not read; 0 = not set."""
    given = os.environ.get('OMP_NUM_THREADS', '')
    return int(given) if given.isdecimal() else 0
