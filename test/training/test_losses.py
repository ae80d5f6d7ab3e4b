# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from training.losses import dice_loss, segmentation_loss


def certain(targets: torch.Tensor) -> torch.Tensor:
    """N×2×H×W scores that leave no doubt."""
    return torch.where(
        torch.nn.functional.one_hot(targets.clamp(max=1), 2).permute(0, 3, 1, 2) > 0, 50.0, -50.0
    )


@pytest.fixture
def targets() -> torch.Tensor:
    targets = torch.zeros(2, 20, 20, dtype=torch.int64)
    targets[:, 5:15, 5:15] = 1
    return targets


def test_perfect_scores_cost_nothing(targets: torch.Tensor) -> None:
    assert segmentation_loss(certain(targets), targets, 1.0).item() == pytest.approx(0, abs=1e-5)


def test_the_opposite_costs_nearly_a_whole_dice(targets: torch.Tensor) -> None:
    assert dice_loss(certain(1 - targets), targets).item() == pytest.approx(1, abs=0.01)


def test_undecided_scores_have_their_known_loss(targets: torch.Tensor) -> None:
    scores = torch.zeros(2, 2, 20, 20)
    # p = 1/2 everywhere; rock 200 of 800 px, ground 600: 2·n·p / (800·p + n), each plus 1
    dice = 1 - ((2 * 300 + 1) / (400 + 600 + 1) + (2 * 100 + 1) / (400 + 200 + 1)) / 2
    assert dice_loss(scores, targets).item() == pytest.approx(dice, abs=1e-6)
    both = segmentation_loss(scores, targets, 0.5).item()
    assert both == pytest.approx(math.log(2) + 0.5 * dice, abs=1e-6)


def test_ignored_pixels_cost_nothing_and_teach_nothing(targets: torch.Tensor) -> None:
    scores = certain(targets)
    scores[:, :, :3] *= -1
    targets[:, :3] = 255
    scores.requires_grad_()
    loss = segmentation_loss(scores, targets, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert scores.grad is not None
    assert not scores.grad[:, :, :3].any()


def test_a_batch_that_is_ignored_as_a_whole_gives_no_nan(targets: torch.Tensor) -> None:
    scores = torch.randn(2, 2, 20, 20, requires_grad=True)
    loss = segmentation_loss(scores, torch.full_like(targets, 255), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert not scores.grad.any()
