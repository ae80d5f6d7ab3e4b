# SPDX-License-Identifier: Apache-2.0
"""Folding of batch norms into the convolutions before them, for inference."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(model: nn.Module) -> None:
    """Folds each batch norm that directly follows a convolution in its parent, in place.

    Args:
        model: A network in evaluation mode whose modules run their children in order, such as
            ResNet, EfficientNet and DeepLab.
    """
    for parent in list(model.modules()):
        for (before, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                # The batch norm of timm contains the activation.
                setattr(parent, name, getattr(norm, 'act', nn.Identity()))
