# SPDX-License-Identifier: Apache-2.0
"""Prepared images → scores of their own size, whatever size the network sees."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.inference.backends import Backend
from rock_seg_ros.perception.inference.card import Card

MAX_ENLARGEMENT = 2.0
MAX_NETWORK_PIXELS = (
    3840 * 2160
)  # of an enlarged image; a thin one would cost the network gigabytes


def enlargement(height: int, width: int, card: Card) -> float:
    """Returns by how much an image is enlarged for the network of a card, 1 to 2."""
    wanted = card.smallest_side / min(height, width)
    room = (MAX_NETWORK_PIXELS / (height * width)) ** 0.5
    return min(MAX_ENLARGEMENT, max(1.0, min(wanted, room)))


class Scorer:
    """Shows the network images in the size that it should see.

    Attributes:
        runner: The network.
        card: Of its weights.
    """

    def __init__(self, runner: Backend, card: Card, input_size: tuple[int, int] = (0, 0)) -> None:
        """Takes the network in.

        Args:
            runner: The network.
            card: Of its weights.
            input_size: Width and height in px that it sees; 0 = the image's own; both 0:
                enlarged where the card wants it.
        """
        self.runner = runner
        self.card = card
        self._input_size = input_size

    def scores(self, prepared: Tensor) -> Tensor:
        """Runs the network.

        Args:
            prepared: N×3×H×W normalised float32 RGB, on the network's device.

        Returns:
            N×channels×H×W float32 logits.
        """
        height, width = prepared.shape[-2:]
        if any(self._input_size):
            seen = (self._input_size[1] or height, self._input_size[0] or width)
        else:
            scale = enlargement(height, width, self.card)
            seen = (round(height * scale), round(width * scale))
        return resize(self.runner.scores(resize(prepared, seen)), (height, width))


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales N×C×H×W maps bilinearly, with antialiasing where they shrink."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    shrinks = size[0] < height or size[1] < width  # else antialiasing only costs time
    return functional.interpolate(
        maps, size=size, mode='bilinear', align_corners=False, antialias=shrinks
    )
