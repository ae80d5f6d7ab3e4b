# SPDX-License-Identifier: Apache-2.0
"""Losses on class scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.datasets import IGNORE


def dice_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016), averaged over the classes of the batch.

    Args:
        scores: N×C×H×W logits.
        targets: N×H×W class ids, int64; 255 is left out.

    Returns:
        A scalar, 0 to 1.
    """
    probabilities = scores.softmax(dim=1)
    counted = (targets != IGNORE).unsqueeze(1)
    truth = functional.one_hot(torch.where(targets == IGNORE, 0, targets), scores.shape[1])
    truth = truth.permute(0, 3, 1, 2) * counted
    probabilities = probabilities * counted
    both = (probabilities * truth).sum(dim=(0, 2, 3))
    either = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return 1 - ((2 * both + 1) / (either + 1)).mean()


def segmentation_loss(scores: Tensor, targets: Tensor, dice_weight: float) -> Tensor:
    """Returns cross-entropy plus weighted Dice; arguments as for `dice_loss`."""
    entropy = functional.cross_entropy(scores, targets, ignore_index=IGNORE, reduction='sum')
    counted = (targets != IGNORE).sum().clamp(min=1)  # a batch may be ignored as a whole
    return entropy / counted + dice_weight * dice_loss(scores, targets)
