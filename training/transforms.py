# SPDX-License-Identifier: Apache-2.0
"""What a training does to a picture and, alike, to its mask."""

from __future__ import annotations

from torchvision.transforms import v2

from training.config import Stage


def training_transform(stage: Stage) -> v2.Compose:
    """Returns the joint transform of a stage.

    A crop of random size and shape is scaled to the stage's, perhaps mirrored; brightness,
    contrast, saturation and hue vary, some crops are grey and some are blurred.

    Args:
        stage: Gives the crop's side and the range of its area in the picture.

    Returns:
        A transform of (tv_tensors.Image uint8, tv_tensors.Mask int64).
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(stage.crop, scale=stage.area, ratio=(3 / 4, 4 / 3)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.04),
            v2.RandomGrayscale(0.15),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.3, 1.5))], p=0.15),
        ]
    )
