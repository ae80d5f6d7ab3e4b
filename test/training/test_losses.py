# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from training.losses import boundary_weights, dice_loss, lovasz_softmax, segmentation_loss


def certain(targets: Tensor) -> Tensor:
    """Returns N×2×H×W logits of certain predictions."""
    return torch.where(
        torch.nn.functional.one_hot(targets.clamp(max=1), 2).permute(0, 3, 1, 2) > 0, 50.0, -50.0
    )


def iou(predicted: Tensor, targets: Tensor, class_id: int) -> float:
    found, there = predicted == class_id, targets == class_id
    return float((found & there).sum() / (found | there).sum())


@pytest.fixture
def targets() -> Tensor:
    targets = torch.zeros(2, 20, 20, dtype=torch.int64)
    targets[:, 5:15, 5:15] = 1
    return targets


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_the_loss_of_perfect_logits_is_0(targets: Tensor, region: str) -> None:
    loss = segmentation_loss(certain(targets), targets, region, boundary_weight=2.0)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_dice_loss_of_inverted_logits_is_almost_1(targets: Tensor) -> None:
    assert dice_loss(certain(1 - targets), targets).item() == pytest.approx(1, abs=0.01)


def test_uniform_logits_have_the_expected_loss(targets: Tensor) -> None:
    logits = torch.zeros(2, 2, 20, 20)
    # p = 1/2 everywhere; rock 200 of 800 px, ground 600: 2·n·p / (800·p + n), each plus 1
    dice = 1 - ((2 * 300 + 1) / (400 + 600 + 1) + (2 * 100 + 1) / (400 + 200 + 1)) / 2
    assert dice_loss(logits, targets).item() == pytest.approx(dice, abs=1e-6)
    both = segmentation_loss(logits, targets, 'dice', 0.5).item()
    assert both == pytest.approx(math.log(2) + 0.5 * dice, abs=1e-6)
    assert segmentation_loss(logits, targets, 'none').item() == pytest.approx(math.log(2))


def test_pixels_are_weighted_by_class(targets: Tensor) -> None:
    logits = torch.zeros(2, 2, 20, 20)
    logits[:, 1] = 1.0  # the loss of rock pixels is the lower one
    ground, rock = math.log(1 + math.e), math.log(1 + 1 / math.e)
    loss = segmentation_loss(logits, targets, 'none', class_weights={1: 3.0}).item()
    assert loss == pytest.approx((600 * ground + 3 * 200 * rock) / (600 + 3 * 200))


def test_the_lovasz_loss_of_certain_logits_is_1_minus_the_mean_iou(targets: Tensor) -> None:
    predicted = targets.roll((3, -2), (1, 2))
    expected = 1 - (iou(predicted, targets, 0) + iou(predicted, targets, 1)) / 2
    assert 0.1 < expected < 0.9
    assert lovasz_softmax(certain(predicted), targets).item() == pytest.approx(expected, abs=1e-5)


def test_the_lovasz_loss_is_the_extension_of_the_jaccard_loss() -> None:
    # Definition: errors in descending order times the decrease of the Jaccard index by each.
    torch.manual_seed(0)
    logits, targets = torch.randn(1, 3, 3, 4), torch.randint(0, 2, (1, 3, 4))
    probabilities = logits.softmax(dim=1)[0].flatten(1)
    losses = []
    for class_id in (0, 1):  # class 2 is not present, so it does not contribute
        truth = targets.flatten() == class_id
        errors = (truth.float() - probabilities[class_id]).abs()
        order = errors.argsort(descending=True).tolist()
        wrong, jaccard = torch.zeros_like(truth), [0.0]
        for pixel in order:
            wrong[pixel] = True
            jaccard.append(1 - float((truth & ~wrong).sum() / (truth | wrong).sum()))
        steps = [after - before for before, after in itertools.pairwise(jaccard)]
        losses.append(float(errors[order] @ torch.tensor(steps)))
    expected = sum(losses) / 2
    assert lovasz_softmax(logits, targets).item() == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_the_lovasz_loss_points_towards_the_targets(targets: Tensor) -> None:
    logits = torch.zeros(2, 2, 20, 20, requires_grad=True)
    lovasz_softmax(logits, targets).backward()
    assert logits.grad is not None
    # Equal errors have an arbitrary order, so some gradients are tiny, but none has the wrong sign.
    assert (logits.grad[:, 1][targets == 1] <= 0).all()
    assert (logits.grad[:, 1][targets == 0] >= 0).all()
    assert logits.grad[:, 1][targets == 1].sum() < -0.01


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_ignored_pixels_have_no_loss_and_no_gradient(targets: Tensor, region: str) -> None:
    logits = certain(targets)
    logits[:, :, :3] *= -1
    targets[:, :3] = 255
    logits.requires_grad_()
    loss = segmentation_loss(logits, targets, region, boundary_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert logits.grad is not None
    assert not logits.grad[:, :, :3].any()


@pytest.mark.parametrize('region', ['dice', 'lovasz'])
def test_ignored_pixels_do_not_change_the_loss_of_others(region: str) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(1, 2, 8, 8), torch.randint(0, 2, (1, 8, 8))
    targets[:, :, 5:] = 255
    alone = segmentation_loss(logits[..., :5], targets[..., :5], region, boundary_weight=1.0)
    assert segmentation_loss(logits, targets, region, boundary_weight=1.0).item() == pytest.approx(
        alone.item(), abs=1e-6
    )


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_the_loss_of_a_completely_ignored_batch_is_0(targets: Tensor, region: str) -> None:
    logits = torch.randn(2, 2, 20, 20, requires_grad=True)
    ignored = torch.full_like(targets, 255)
    loss = segmentation_loss(logits, ignored, region, boundary_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_unknown_region_loss_is_rejected(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="region is 'iou'; it must be 'dice', 'lovasz' or 'none'"):
        segmentation_loss(certain(targets), targets, 'iou')


def test_weights_are_larger_on_both_sides_of_a_boundary() -> None:
    targets = torch.zeros(1, 6, 10, dtype=torch.int64)
    targets[:, :, 5:] = 1
    assert boundary_weights(targets, 2, 3.0)[0, 2].tolist() == [1, 1, 1, 4, 4, 4, 4, 1, 1, 1]
    assert boundary_weights(targets, 0, 3.0).unique().tolist() == [1]


def test_ignored_areas_have_no_boundary_and_do_not_hide_one_behind_them() -> None:
    targets = torch.zeros(1, 3, 8, dtype=torch.int64)
    targets[:, :, 2:] = 255
    assert boundary_weights(targets, 3, 1.0).unique().tolist() == [1]
    targets[:, :, 3:] = 2
    assert boundary_weights(targets, 1, 1.0)[0, 1].tolist() == [1] * 8
    assert boundary_weights(targets, 2, 1.0)[0, 1].tolist() == [1, 2, 1, 2, 1, 1, 1, 1]


def test_an_error_at_a_boundary_has_a_larger_loss(targets: Tensor) -> None:
    def cost(row: int, weight: float) -> float:
        logits = certain(targets)
        logits[0, :, row, 10] *= -1
        return segmentation_loss(logits, targets, 'none', boundary_weight=weight).item()

    assert cost(10, 0.0) == pytest.approx(cost(5, 0.0))
    assert cost(5, 2.0) == pytest.approx(3 * cost(10, 2.0))
