# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from training.losses import boundary_weights, dice_loss, lovasz_softmax, segmentation_loss


def certain(targets: Tensor) -> Tensor:
    """N×2×H×W scores that leave no doubt."""
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
def test_perfect_scores_cost_nothing(targets: Tensor, region: str) -> None:
    loss = segmentation_loss(certain(targets), targets, region, boundary_weight=2.0)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_opposite_costs_nearly_a_whole_dice(targets: Tensor) -> None:
    assert dice_loss(certain(1 - targets), targets).item() == pytest.approx(1, abs=0.01)


def test_undecided_scores_have_their_known_loss(targets: Tensor) -> None:
    scores = torch.zeros(2, 2, 20, 20)
    # p = 1/2 everywhere; rock 200 of 800 px, ground 600: 2·n·p / (800·p + n), each plus 1
    dice = 1 - ((2 * 300 + 1) / (400 + 600 + 1) + (2 * 100 + 1) / (400 + 200 + 1)) / 2
    assert dice_loss(scores, targets).item() == pytest.approx(dice, abs=1e-6)
    both = segmentation_loss(scores, targets, 'dice', 0.5).item()
    assert both == pytest.approx(math.log(2) + 0.5 * dice, abs=1e-6)
    assert segmentation_loss(scores, targets, 'none').item() == pytest.approx(math.log(2))


def test_pixels_of_a_class_count_by_its_weight(targets: Tensor) -> None:
    scores = torch.zeros(2, 2, 20, 20)
    scores[:, 1] = 1.0  # rock is the cheaper of the two
    ground, rock = math.log(1 + math.e), math.log(1 + 1 / math.e)
    loss = segmentation_loss(scores, targets, 'none', class_weights={1: 3.0}).item()
    assert loss == pytest.approx((600 * ground + 3 * 200 * rock) / (600 + 3 * 200))


def test_lovasz_of_certain_scores_is_one_minus_the_mean_iou(targets: Tensor) -> None:
    predicted = targets.roll((3, -2), (1, 2))
    expected = 1 - (iou(predicted, targets, 0) + iou(predicted, targets, 1)) / 2
    assert 0.1 < expected < 0.9
    assert lovasz_softmax(certain(predicted), targets).item() == pytest.approx(expected, abs=1e-5)


def test_lovasz_is_the_jaccard_losss_extension() -> None:
    # Definition: errors in falling order times what each takes from the Jaccard index.
    torch.manual_seed(0)
    scores, targets = torch.randn(1, 3, 3, 4), torch.randint(0, 2, (1, 3, 4))
    probabilities = scores.softmax(dim=1)[0].flatten(1)
    losses = []
    for class_id in (0, 1):  # class 2 does not occur and so does not count
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
    assert lovasz_softmax(scores, targets).item() == pytest.approx(expected, abs=1e-6)


def test_lovasz_teaches_towards_the_truth(targets: Tensor) -> None:
    scores = torch.zeros(2, 2, 20, 20, requires_grad=True)
    lovasz_softmax(scores, targets).backward()
    assert scores.grad is not None
    # Equal errors are sorted anyhow, so some slopes are tiny; none may point away.
    assert (scores.grad[:, 1][targets == 1] <= 0).all()
    assert (scores.grad[:, 1][targets == 0] >= 0).all()
    assert scores.grad[:, 1][targets == 1].sum() < -0.01


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_ignored_pixels_cost_nothing_and_teach_nothing(targets: Tensor, region: str) -> None:
    scores = certain(targets)
    scores[:, :, :3] *= -1
    targets[:, :3] = 255
    scores.requires_grad_()
    loss = segmentation_loss(scores, targets, region, boundary_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert scores.grad is not None
    assert not scores.grad[:, :, :3].any()


@pytest.mark.parametrize('region', ['dice', 'lovasz'])
def test_ignored_pixels_leave_the_loss_of_the_others_as_it_is(region: str) -> None:
    torch.manual_seed(0)
    scores, targets = torch.randn(1, 2, 8, 8), torch.randint(0, 2, (1, 8, 8))
    targets[:, :, 5:] = 255
    alone = segmentation_loss(scores[..., :5], targets[..., :5], region, boundary_weight=1.0)
    assert segmentation_loss(scores, targets, region, boundary_weight=1.0).item() == pytest.approx(
        alone.item(), abs=1e-6
    )


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_a_batch_that_is_ignored_as_a_whole_gives_no_nan(targets: Tensor, region: str) -> None:
    scores = torch.randn(2, 2, 20, 20, requires_grad=True)
    ignored = torch.full_like(targets, 255)
    loss = segmentation_loss(scores, ignored, region, boundary_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert scores.grad is not None
    assert not scores.grad.any()


def test_a_region_loss_that_does_not_exist_is_named(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="region is 'iou'; legal is 'dice', 'lovasz' or 'none'"):
        segmentation_loss(certain(targets), targets, 'iou')


def test_weights_rise_within_the_width_on_both_sides_of_a_boundary() -> None:
    targets = torch.zeros(1, 6, 10, dtype=torch.int64)
    targets[:, :, 5:] = 1
    assert boundary_weights(targets, 2, 3.0)[0, 2].tolist() == [1, 1, 1, 4, 4, 4, 4, 1, 1, 1]
    assert boundary_weights(targets, 0, 3.0).unique().tolist() == [1]


def test_an_ignored_area_is_no_boundary_and_hides_none_beyond_it() -> None:
    targets = torch.zeros(1, 3, 8, dtype=torch.int64)
    targets[:, :, 2:] = 255
    assert boundary_weights(targets, 3, 1.0).unique().tolist() == [1]
    targets[:, :, 3:] = 2
    assert boundary_weights(targets, 1, 1.0)[0, 1].tolist() == [1] * 8
    assert boundary_weights(targets, 2, 1.0)[0, 1].tolist() == [1, 2, 1, 2, 1, 1, 1, 1]


def test_a_mistake_at_a_boundary_costs_more_than_one_elsewhere(targets: Tensor) -> None:
    def cost(row: int, weight: float) -> float:
        scores = certain(targets)
        scores[0, :, row, 10] *= -1
        return segmentation_loss(scores, targets, 'none', boundary_weight=weight).item()

    assert cost(10, 0.0) == pytest.approx(cost(5, 0.0))
    assert cost(5, 2.0) == pytest.approx(3 * cost(10, 2.0))
