# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.preparation import normalize


def test_mean_and_deviation_of_the_card_are_applied_to_their_own_channels() -> None:
    card = Card(mean=(0.0, 0.2, 1.0), std=(1.0, 0.5, 0.25))
    pictures = torch.full((2, 3, 4, 5), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    prepared = normalize(pictures, card)
    assert prepared.dtype == torch.float32
    expected = torch.tensor([0.2, 0.0, -3.2]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(prepared, expected)
