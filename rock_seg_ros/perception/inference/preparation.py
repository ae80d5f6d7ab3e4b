# SPDX-License-Identifier: Apache-2.0
"""How a picture is prepared for the network: the only place that knows."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.inference.card import Card


class Normalization:
    """A card's mean and standard deviation, laid ready on a device."""

    def __init__(self, card: Card, device: torch.device | str) -> None:
        """Copies both to the device, so that nothing is copied while pictures are worked on.

        Args:
            card: Gives mean and standard deviation.
            device: Where the pictures will be.
        """
        self._mean = torch.tensor(card.mean, device=device).view(1, 3, 1, 1) * 255.0
        self._std = torch.tensor(card.std, device=device).view(1, 3, 1, 1) * 255.0

    def __call__(self, pictures: Tensor) -> Tensor:
        """Scales to 0..1, takes the mean off and divides by the standard deviation.

        Args:
            pictures: N×3×H×W RGB, uint8.

        Returns:
            N×3×H×W float32, in the pictures' memory order.
        """
        return (pictures - self._mean).div_(self._std)


def normalize(pictures: Tensor, card: Card) -> Tensor:
    """Normalizes pictures once; see `Normalization`.

    Args:
        pictures: N×3×H×W RGB, uint8, on any device.
        card: Gives mean and standard deviation.

    Returns:
        N×3×H×W float32, on the same device.
    """
    return Normalization(card, pictures.device)(pictures)


class Preparation:
    """Makes pictures ready for a network on a device."""

    def __init__(self, card: Card, device: torch.device) -> None:
        """Looks up what each of the 256 values becomes.

        Args:
            card: Gives mean and standard deviation.
            device: Where the network is.
        """
        self._device = device
        self._normalization = Normalization(card, device)
        every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 1, 256)
        self._tables = normalize(every_value, card)[0].numpy()

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Normalizes pictures of one size.

        Args:
            pictures: H×W×3 uint8 RGB each, any strides.

        Returns:
            N×3×H×W float32 on the device.
        """
        if self._device.type != 'cpu':
            pixels = torch.from_numpy(np.stack(pictures)).to(self._device)
            return self._normalization(pixels.permute(0, 3, 1, 2))
        height, width = pictures[0].shape[:2]
        prepared = np.empty((len(pictures), 3, height, width), np.float32)
        for picture, planes in zip(pictures, prepared, strict=True):
            for values, table, plane in zip(cv2.split(picture), self._tables, planes, strict=True):
                cv2.LUT(values, table, plane)  # the same numbers as by arithmetic, in one pass
        return torch.from_numpy(prepared)
