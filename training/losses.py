# SPDX-License-Identifier: Apache-2.0
"""Losses on class scores."""

from __future__ import annotations

from collections.abc import Mapping

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


def lovasz_softmax(scores: Tensor, targets: Tensor) -> Tensor:
    """Lovász-Softmax loss (Berman et al. 2018, arXiv:1705.08790): a surrogate of 1 − mean IoU.

    Over the pixels of the whole batch, averaged over the classes that occur in it.

    Args:
        scores: N×C×H×W logits.
        targets: N×H×W class ids, int64; 255 is left out.

    Returns:
        A scalar, 0 to 1.
    """
    probabilities = scores.float().softmax(dim=1).transpose(0, 1).flatten(1)
    ids = torch.arange(len(probabilities), device=targets.device).unsqueeze(1)
    truth = targets.flatten() == ids
    # An ignored pixel has no error, and so counts for nothing wherever it is sorted to.
    errors = (truth.float() - probabilities).abs() * (targets.flatten() != IGNORE)
    errors, order = errors.sort(dim=1, descending=True)
    truth = truth.gather(1, order)
    total = truth.sum(dim=1, keepdim=True)
    missed = total - truth.cumsum(dim=1)
    union = total + (~truth).cumsum(dim=1)
    # What one more wrong pixel takes from the IoU; written out, as differences would cancel.
    found = 1 / union.clamp(min=1)
    slope = torch.where(truth, found, missed / (union * (union - 1)).clamp(min=1))
    present = (total > 0).squeeze(1)
    return ((errors * slope).sum(dim=1) * present).sum() / present.sum().clamp(min=1)


def boundary_weights(targets: Tensor, width: int, weight: float) -> Tensor:
    """Returns weights that are larger where classes meet.

    Args:
        targets: N×H×W class ids, int64; 255 borders on nothing.
        width: How far from a pixel of another class, px along rows and columns, 0 or more.
        weight: What is added there.

    Returns:
        N×H×W float32: 1, or 1 + weight within `width` of a pixel of another class.
    """
    counted = targets != IGNORE
    ids = targets.float()

    def largest(values: Tensor) -> Tensor:
        window = 2 * width + 1  # columns, then rows: a square costs its area
        columns = functional.max_pool2d(values, (window, 1), stride=1, padding=(width, 0))
        return functional.max_pool2d(columns, (1, window), stride=1, padding=(0, width))

    highest = largest(torch.where(counted, ids, -torch.inf))
    lowest = -largest(torch.where(counted, -ids, -torch.inf))
    return 1 + weight * (counted & (highest > lowest)).float()


REGION_LOSSES = {'dice': dice_loss, 'lovasz': lovasz_softmax}


def segmentation_loss(
    scores: Tensor,
    targets: Tensor,
    region: str = 'dice',
    region_weight: float = 1.0,
    boundary_weight: float = 0.0,
    boundary_width: int = 3,
    class_weights: Mapping[int, float] | None = None,
) -> Tensor:
    """Cross-entropy, where wanted weighted by class and boundary, plus a loss of whole regions.

    Args:
        scores: N×C×H×W logits.
        targets: N×H×W class ids, int64; 255 is left out.
        region: 'dice', 'lovasz' or 'none'.
        region_weight: Of the region's loss beside cross-entropy.
        boundary_weight: What `boundary_weights` adds where classes meet; 0 = all pixels alike.
        boundary_width: How far from another class that is, px.
        class_weights: Class id → factor on the weight of its pixels, where that is not 1.

    Returns:
        A scalar, 0 or more; 0 for a batch that is ignored as a whole.

    Raises:
        ValueError: region is none of the above.
    """
    if region != 'none' and region not in REGION_LOSSES:
        raise ValueError(f"region is {region!r}; legal is 'dice', 'lovasz' or 'none'")
    entropy = functional.cross_entropy(scores, targets, ignore_index=IGNORE, reduction='none')
    weights = (targets != IGNORE).float()
    if boundary_weight:
        weights = weights * boundary_weights(targets, boundary_width, boundary_weight)
    for class_id, weight in (class_weights or {}).items():
        weights = torch.where(targets == class_id, weight * weights, weights)
    loss = (entropy * weights).sum() / weights.sum().clamp(min=1)  # all may be ignored
    if region != 'none':
        loss = loss + region_weight * REGION_LOSSES[region](scores, targets)
    return loss
