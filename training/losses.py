# SPDX-License-Identifier: Apache-2.0
"""Segmentation losses on logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from training.datasets import IGNORE


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016), averaged over the classes of the batch.

    Args:
        logits: N×C×H×W.
        targets: N×H×W class ids, int64; 255 is ignored.

    Returns:
        A scalar, 0 to 1.
    """
    probabilities = logits.softmax(dim=1)
    valid = (targets != IGNORE).unsqueeze(1)
    truth = functional.one_hot(torch.where(targets == IGNORE, 0, targets), logits.shape[1])
    truth = truth.permute(0, 3, 1, 2) * valid
    probabilities = probabilities * valid
    intersection = (probabilities * truth).sum(dim=(0, 2, 3))
    cardinality = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return 1 - ((2 * intersection + 1) / (cardinality + 1)).mean()


def lovasz_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """Lovász-Softmax loss (Berman et al. 2018, arXiv:1705.08790), a surrogate of 1 − mean IoU.

    It is computed over the pixels of the whole batch and averaged over the classes present in it.

    Args:
        logits: N×C×H×W.
        targets: N×H×W class ids, int64; 255 is ignored.

    Returns:
        A scalar, 0 to 1.
    """
    probabilities = logits.float().softmax(dim=1).transpose(0, 1).flatten(1)
    ids = torch.arange(len(probabilities), device=targets.device).unsqueeze(1)
    truth = targets.flatten() == ids
    # Ignored pixels get the error 0, so they do not contribute, wherever they are sorted to.
    errors = (truth.float() - probabilities).abs() * (targets.flatten() != IGNORE)
    errors, order = errors.sort(dim=1, descending=True)
    truth = truth.gather(1, order)
    total = truth.sum(dim=1, keepdim=True)
    intersection = total - truth.cumsum(dim=1)
    union = total + (~truth).cumsum(dim=1)
    # The decrease of IoU per additional wrong pixel, in closed form to avoid cancellation.
    false_negative = 1 / union.clamp(min=1)
    false_positive = intersection / (union * (union - 1)).clamp(min=1)
    gradient = torch.where(truth, false_negative, false_positive)
    present = (total > 0).squeeze(1)
    return ((errors * gradient).sum(dim=1) * present).sum() / present.sum().clamp(min=1)


def boundary_weights(targets: Tensor, width: int, weight: float) -> Tensor:
    """Returns pixel weights that are larger near class boundaries.

    Args:
        targets: N×H×W class ids, int64; ignored pixels (255) have no boundary.
        width: Largest distance from a pixel of another class, px along rows and columns, 0 or more.
        weight: Value added to the weight of these pixels.

    Returns:
        N×H×W float32: 1 + weight within `width` of a pixel of another class, else 1.
    """
    valid = targets != IGNORE
    ids = targets.float()

    def largest(values: Tensor) -> Tensor:
        window = 2 * width + 1  # columns, then rows, because it is faster than a square window
        columns = functional.max_pool2d(values, (window, 1), stride=1, padding=(width, 0))
        return functional.max_pool2d(columns, (1, window), stride=1, padding=(0, width))

    highest = largest(torch.where(valid, ids, -torch.inf))
    lowest = -largest(torch.where(valid, -ids, -torch.inf))
    return 1 + weight * (valid & (highest > lowest)).float()


REGION_LOSSES = {'dice': dice_loss, 'lovasz': lovasz_softmax}


def segmentation_loss(
    logits: Tensor,
    targets: Tensor,
    region: str = 'dice',
    region_weight: float = 1.0,
    boundary_weight: float = 0.0,
    boundary_width: int = 3,
    class_weights: Mapping[int, float] | None = None,
) -> Tensor:
    """Returns cross-entropy, weighted by class and boundary, plus a region loss.

    Args:
        logits: N×C×H×W.
        targets: N×H×W class ids, int64; 255 is ignored.
        region: 'dice', 'lovasz' or 'none'.
        region_weight: Weight of the region loss.
        boundary_weight: Value that `boundary_weights` adds near boundaries; 0 = uniform weights.
        boundary_width: Largest distance from a pixel of another class, px.
        class_weights: Class id → factor on the weight of its pixels; 1 for other classes.

    Returns:
        A scalar, 0 or more; 0 for a batch whose pixels are all ignored.

    Raises:
        ValueError: The region loss is unknown.
    """
    if region != 'none' and region not in REGION_LOSSES:
        raise ValueError(f"region is {region!r}; it must be 'dice', 'lovasz' or 'none'")
    entropy = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction='none')
    weights = (targets != IGNORE).float()
    if boundary_weight:
        weights = weights * boundary_weights(targets, boundary_width, boundary_weight)
    for class_id, weight in (class_weights or {}).items():
        weights = torch.where(targets == class_id, weight * weights, weights)
    loss = (entropy * weights).sum() / weights.sum().clamp(min=1)  # all pixels may be ignored
    if region != 'none':
        loss = loss + region_weight * REGION_LOSSES[region](logits, targets)
    return loss
