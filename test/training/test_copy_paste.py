# SPDX-License-Identifier: Apache-2.0
"""Copy-paste: pasted rocks are complete, and have aligned labels and new instance ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augmentation import AugmentationConfig
from training.copy_paste import paste_rocks

UNCHANGED = AugmentationConfig(
    paste_count=8, paste_scale=(1.0, 1.0), paste_softness=(0.8, 0.8), paste_tint_p=0.0
)
SAND, ROCK, BOULDER = 0, 1, 2


def ground(grey: int = 50, side: int = 96) -> tuple[Tensor, Tensor]:
    image = torch.full((3, side, side), grey, dtype=torch.uint8)
    return image, torch.zeros(2, side, side, dtype=torch.int32)


def with_rocks(*boxes: tuple[int, int, int, int], numbered: bool = True) -> tuple[Tensor, Tensor]:
    """Rocks (top, left, height, width) of grey 200 on black."""
    image, labels = ground(0)
    for number, (top, left, height, width) in enumerate(boxes, start=11):
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        image[box] = 200
        labels[box] = torch.tensor([ROCK, number if numbered else 0]).view(2, 1, 1).int()
    return image, labels


def pasted(
    target: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor],
    seed: int = 0,
    config: AugmentationConfig = UNCHANGED,
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return paste_rocks(*target, *other, [ROCK, BOULDER], config)


def test_labels_are_aligned_with_the_pasted_rock() -> None:
    other = with_rocks((30, 30, 20, 26))
    for seed in range(10):
        image, labels = pasted(ground(50), other, seed)
        rock = labels[0] == ROCK
        assert 100 <= rock.sum() <= 20 * 26  # the rock may extend over the border
        # The grey value changes from 50 to 200 inside the rock, and towards 0 at its soft border.
        assert image[:, rock].float().mean() > 170
        assert torch.equal(labels[1] > 0, rock)
        assert image[0][rock].min() > 90


def test_a_pasted_rock_has_a_soft_border_and_does_not_change_other_pixels() -> None:
    image, labels = pasted(ground(50), with_rocks((30, 30, 30, 30)), 3)
    rock = (labels[0] == ROCK).float()[None, None]
    near = torch.nn.functional.max_pool2d(rock, 9, stride=1, padding=4)[0, 0] > 0
    assert (image[0][~near] == 50).all()
    assert len(image[0][near].unique()) > 5


def test_a_rock_over_the_upper_border_is_clipped() -> None:
    other = with_rocks((30, 30, 32, 32))
    other[0][:, 30:62] = torch.linspace(100, 224, 32).to(torch.uint8).view(1, 32, 1)
    cut = 0
    for seed in range(40):
        image, labels = pasted(ground(0), other, seed)
        rows = (labels[0] == ROCK).any(1).nonzero().flatten().tolist()
        if rows[0] == 0 and 8 < len(rows) < 30:
            cut += 1
            middle = image[0, : len(rows)][labels[0, : len(rows)] == ROCK].float().mean()
            assert middle == pytest.approx(224 - 2 * len(rows), abs=15)
    assert cut


@pytest.mark.parametrize('as_decoded', [False, True])
def test_the_inputs_are_not_changed(as_decoded: bool) -> None:
    target, other = ground(), with_rocks((30, 30, 20, 20))
    if as_decoded:  # a view of H×W×3 memory
        target = (target[0].permute(1, 2, 0).contiguous().permute(2, 0, 1), target[1])
    copies = [part.clone() for part in (*target, *other)]
    pasted(target, other)
    assert all(torch.equal(a, b) for a, b in zip(copies, (*target, *other), strict=True))


def test_pasted_rocks_get_new_instance_ids_and_cover_other_rocks() -> None:
    target = with_rocks((5, 5, 86, 86))
    before = int((target[1][1] == 11).sum())
    labels = pasted(target, with_rocks((10, 10, 12, 12), (40, 40, 12, 12)), 2)[1]
    numbers = set(labels[1].unique().tolist()) - {0}
    assert 11 in numbers
    assert numbers - {11} <= {12, 13}
    assert len(numbers) >= 2
    assert 0 < (labels[1] == 11).sum() < before


def test_rocks_without_instances_are_connected_components() -> None:
    boxes = [(10, 10, 12, 12), (10, 40, 12, 12), (50, 30, 12, 12)]
    most = 0
    for seed in range(12):
        labels = pasted(ground(), with_rocks(*boxes, numbered=False), seed)[1]
        assert labels[0].sum() <= 3 * 144
        most = max(most, int(labels[1].max()))
    assert most == 3


def test_a_random_number_of_rocks_up_to_paste_count_is_pasted() -> None:
    other = with_rocks(*[(top, left, 9, 9) for top in (5, 35, 65) for left in (5, 35, 65)])
    config = replace(UNCHANGED, paste_count=4)
    counts = {int(pasted(ground(), other, seed, config)[1][1].max()) for seed in range(40)}
    assert counts == {1, 2, 3, 4}


@pytest.mark.parametrize('box', [(0, 30, 20, 20), (76, 30, 20, 20), (30, 0, 20, 20)])
def test_a_rock_at_the_border_is_not_pasted(box: tuple[int, int, int, int]) -> None:
    target = ground()
    image, labels = pasted(target, with_rocks(box))
    assert torch.equal(image, target[0])
    assert torch.equal(labels, target[1])


def test_rocks_next_to_ignored_pixels_and_tiny_rocks_are_not_pasted() -> None:
    other = with_rocks((30, 30, 20, 20), (70, 70, 3, 3))
    other[1][0, 20:60, 50:] = 255
    assert not pasted(ground(), other)[1].any()


def test_other_classes_are_not_pasted() -> None:
    other = with_rocks((30, 30, 20, 20))
    other[1][0][other[1][0] == ROCK] = 7
    assert not pasted(ground(), other)[1].any()
    assert not pasted(ground(), ground(20))[1].any()


def test_a_rock_of_two_classes_keeps_both() -> None:
    other = with_rocks((30, 30, 24, 24))
    other[1][0, 30:54, 42:54] = BOULDER
    labels = pasted(ground(), other, 1)[1]
    assert set(labels[0].unique().tolist()) == {SAND, ROCK, BOULDER}
    shares = [(labels[0] == class_id).sum() / (labels[1] > 0).sum() for class_id in (ROCK, BOULDER)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.1)


def test_the_scale_is_drawn_from_its_range() -> None:
    config = replace(UNCHANGED, paste_scale=(0.5, 1.5))
    other = with_rocks((38, 38, 20, 20))
    areas = [int(pasted(ground(), other, seed, config)[1][0].sum()) for seed in range(60)]
    assert max(areas) <= 1.1 * 30 * 30
    assert max(areas) > 1.5 * 400
    assert min(area for area in areas if area) < 0.6 * 400


def test_a_tinted_rock_is_closer_to_the_colour_of_its_background() -> None:
    other = with_rocks((38, 38, 20, 20))
    tinted = replace(UNCHANGED, paste_tint_p=1.0)
    means = []
    for seed in range(12):
        image, labels = pasted(ground(50), other, seed, tinted)
        means.append(float(image[0][labels[0] == ROCK].float().mean()))
    assert max(means) <= 200
    assert min(means) > 45
    assert min(means) < 100
    assert np.mean(means) < 170


def test_a_rock_pasted_on_ignored_pixels_is_labelled_as_rock() -> None:
    target = ground(0)
    target[1][0] = 255
    labels = pasted(target, with_rocks((38, 38, 20, 20)), 0, replace(UNCHANGED, paste_tint_p=1))[1]
    assert torch.equal(labels[0] == ROCK, labels[1] > 0)
    assert set(labels[0].unique().tolist()) == {ROCK, 255}


def test_the_other_image_may_have_another_size() -> None:
    image, labels = ground(50, 40)
    new_image, new_labels = pasted((image, labels), with_rocks((10, 10, 60, 60)))
    assert new_image.shape == image.shape
    assert new_labels.shape == labels.shape
    assert new_labels[0].any()


def test_the_result_depends_only_on_the_seed() -> None:
    other = with_rocks((10, 10, 12, 12), (40, 40, 20, 12), (70, 20, 12, 30))
    for seed in range(6):
        one, two = (pasted(ground(), other, seed, AugmentationConfig()) for _ in range(2))
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])
    assert not torch.equal(pasted(ground(), other, 0)[1], pasted(ground(), other, 1)[1])
