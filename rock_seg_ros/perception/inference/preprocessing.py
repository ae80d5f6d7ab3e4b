# SPDX-License-Identifier: Apache-2.0
"""Preprocessing of images for the network; training and inference share it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata

BRIGHT = 200  # an image is dark if 99 % of its values are below this
MAX_GAIN = 8.0
LIGHT = 170  # an image is overexposed if half of its values are above this
SAMPLED_SIDE = 60  # px; the values are counted on about this many rows or columns


def correct_exposure(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightens a dark image and darkens an overexposed one; networks find fewer rocks in both.

    Args:
        image: H×W×3 uint8 RGB, any strides.

    Returns:
        H×W×3 uint8 RGB: the image times a gain. It brings the 99th percentile of a dark image to
        `BRIGHT`, is at most `MAX_GAIN`, and keeps the median at or below `LIGHT`. With a gain of 1,
        the image itself.
    """
    step = max(1, min(image.shape[:2]) // SAMPLED_SIDE)
    values = image[::step, ::step].ravel()
    cumulated = np.bincount(values, minlength=256).cumsum()
    median, percentile = np.searchsorted(cumulated, [0.5 * values.size, 0.99 * values.size])
    brightening = max(BRIGHT / max(percentile, 1), 1.0)
    gain = float(min(brightening, MAX_GAIN, LIGHT / max(median, 1)))
    if gain == 1.0:
        return image
    return cv2.convertScaleAbs(image, alpha=gain)  # type: ignore[return-value]


class Normalization:
    """Normalization with the mean and standard deviation of the metadata, on a device."""

    def __init__(self, metadata: ModelMetadata, device: torch.device | str) -> None:
        """Copies both to the device, so that nothing is copied later.

        Args:
            metadata: The metadata of the weights.
            device: The device of the images.
        """
        self._mean = torch.tensor(metadata.mean, device=device).view(1, 3, 1, 1) * 255.0
        self._std = torch.tensor(metadata.std, device=device).view(1, 3, 1, 1) * 255.0

    def __call__(self, images: Tensor) -> Tensor:
        """Scales to 0..1, subtracts the mean and divides by the standard deviation.

        Args:
            images: N×3×H×W RGB, uint8.

        Returns:
            N×3×H×W float32, in the images' memory order.
        """
        return (images - self._mean).div_(self._std)


def normalize(images: Tensor, metadata: ModelMetadata) -> Tensor:
    """Normalizes images once; see `Normalization`.

    Args:
        images: N×3×H×W RGB, uint8, on any device.
        metadata: The metadata of the weights.

    Returns:
        N×3×H×W float32, on the same device.
    """
    return Normalization(metadata, images.device)(images)


class Preprocessing:
    """Converts images to the normalized input of a network on a device."""

    def __init__(self, metadata: ModelMetadata, device: torch.device) -> None:
        """Computes a lookup table of the 256 values.

        Args:
            metadata: The metadata of the weights.
            device: The device of the network.
        """
        self._device = device
        self._normalization = Normalization(metadata, device)
        every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 1, 256)
        self._tables = normalize(every_value, metadata)[0].numpy()

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Normalizes images of one size.

        Args:
            images: H×W×3 uint8 RGB each, any strides.

        Returns:
            N×3×H×W float32 on the device.
        """
        if self._device.type != 'cpu':
            pixels = torch.from_numpy(np.stack(images)).to(self._device)
            return self._normalization(pixels.permute(0, 3, 1, 2))
        height, width = images[0].shape[:2]
        prepared = np.empty((len(images), 3, height, width), np.float32)
        for image, planes in zip(images, prepared, strict=True):
            for values, table, plane in zip(cv2.split(image), self._tables, planes, strict=True):
                cv2.LUT(values, table, plane)  # the same values as `normalize`, in one pass
        return torch.from_numpy(prepared)
