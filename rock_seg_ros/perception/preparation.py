# SPDX-License-Identifier: Apache-2.0
"""How a picture is prepared for the network: the only place that knows."""

from __future__ import annotations

import torch
from torch import Tensor

from rock_seg_ros.perception.card import Card


def normalize(pictures: Tensor, card: Card, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scales to 0..1, takes the card's mean off and divides by its standard deviation.

    Args:
        pictures: N×3×H×W RGB, uint8, on any device.
        card: Gives mean and standard deviation.
        dtype: Floating type of the result.

    Returns:
        N×3×H×W, of `dtype`, on the same device.
    """
    mean = torch.tensor(card.mean, device=pictures.device).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(card.std, device=pictures.device).view(1, 3, 1, 1) * 255.0
    return ((pictures.float() - mean) / std).to(dtype)
