# SPDX-License-Identifier: Apache-2.0
"""Batch norm taken into the convolution before it, for inference."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(model: nn.Module) -> None:
    """Folds every batch norm that comes right after a convolution in its parent, in place.

    Args:
        model: In evaluation mode, and of a kind that runs its children in their order, as ResNet,
            EfficientNet and DeepLab do.
    """
    for parent in list(model.modules()):
        for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, name, getattr(norm, 'act', nn.Identity()))  # timm's has one
