# SPDX-License-Identifier: Apache-2.0
"""Scaling and padding of feature maps."""

from __future__ import annotations

import cv2
from torch import Tensor
from torch.nn import functional


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales maps bilinearly, with antialiasing where they shrink.

    Args:
        maps: N×C×h×w float32.
        size: H and W of the result.

    Returns:
        N×C×H×W float32.
    """
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    shrinks = size[0] < height or size[1] < width  # enlarging needs no antialiasing
    if maps.device.type != 'cpu' or shrinks:
        return functional.interpolate(
            maps, size=size, mode='bilinear', align_corners=False, antialias=shrinks
        )
    # OpenCV needs a tenth of the time of torch and OpenVINO for the same values.
    result = maps.new_empty(*maps.shape[:-2], *size)
    pairs = zip(maps.flatten(0, 1).numpy(), result.flatten(0, 1).numpy(), strict=True)
    for source, target in pairs:
        cv2.resize(source, size[::-1], target, interpolation=cv2.INTER_LINEAR)
    return result


def pad(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Mirrors N×C×H×W maps at their lower and right border, up to a size."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    below, right = size[0] - height, size[1] - width
    # A border of the size of the maps or more cannot be mirrored.
    mode = 'reflect' if below < height and right < width else 'replicate'
    return functional.pad(maps, (0, right, 0, below), mode=mode)
