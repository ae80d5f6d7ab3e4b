# SPDX-License-Identifier: Apache-2.0
"""Fast classification gives the class ids and the confidence of the plain formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from rock_seg_ros.perception.inference.classification import (
    STRIP_PIXELS,
    classify,
    classify_on_cpu,
    confidence_on_cpu,
)
from rock_seg_ros.perception.inference.metadata import ModelMetadata

FOUR = ModelMetadata(classes=('sky', 'sand', 'rock', 'boulder'), rock_classes=('rock', 'boulder'))
EXAMPLES = {
    'two classes': ModelMetadata(),
    'rims': ModelMetadata(classes=('background', 'rock', 'rim')),
    'two rock classes': FOUR,
    'two rock classes and rims': ModelMetadata(
        classes=('ground', 'rock', 'boulder', 'rim'), rock_classes=('rock', 'boulder')
    ),
    'rock classes first': ModelMetadata(classes=tuple('abcde'), rock_classes=('a', 'b', 'd')),
    'sigmoid': ModelMetadata(activation='sigmoid'),
    'sigmoid of class 0': ModelMetadata(activation='sigmoid', rock_classes=('background',)),
}


def on_cpu(
    logits: Tensor, metadata: ModelMetadata, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns class ids and confidence, and checks the confidence of rock and rim."""
    ids, rock_confidence = classify_on_cpu(logits, metadata, threshold)
    confidence = confidence_on_cpu(logits, metadata, ids)
    is_rock = np.isin(ids, metadata.mask_ids)
    assert rock_confidence.dtype == np.uint8
    assert not rock_confidence[~is_rock].any()
    assert np.abs(rock_confidence[is_rock].astype(int) - confidence[is_rock]).max(initial=0) <= 1
    return ids, confidence


def formula(
    logits: Tensor, metadata: ModelMetadata, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns class ids, unrounded confidence, and the margin of the decision for each pixel."""
    logits = logits.double()
    if metadata.activation == 'sigmoid':
        rock = logits[0].sigmoid()
        probabilities = torch.stack(
            [rock, 1 - rock] if metadata.rock_ids == (0,) else [1 - rock, rock]
        )
    else:
        probabilities = logits.softmax(0)
    rock = probabilities[list(metadata.rock_ids)].sum(0)
    others = [i for i in range(len(probabilities)) if i not in metadata.mask_ids]
    rim = torch.zeros_like(rock) if metadata.rim_id is None else probabilities[metadata.rim_id]
    is_rock = (rock >= threshold) & (rock >= rim)
    is_rim = ~is_rock & (rock + rim >= threshold)
    best_rock, best_other = (ranked(probabilities, ids) for ids in (metadata.rock_ids, others))
    ids = torch.where(is_rock, best_rock[0], best_other[0])
    confidence = torch.where(is_rock, best_rock[1], best_other[1])
    if metadata.rim_id is not None:
        ids[is_rim] = metadata.rim_id
        confidence = torch.where(is_rim, rock + rim, confidence)
    margins = [rock - threshold, rock + rim - threshold, best_rock[2], best_other[2]]
    margins += [] if metadata.rim_id is None else [rock - rim]
    return ids, confidence * 255, torch.stack(margins).abs().min(0).values


def ranked(probabilities: Tensor, ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the most probable of some classes, its probability and its lead over the next."""
    first, *others = probabilities[list(ids)].sort(dim=0, descending=True).values
    winner = torch.tensor(ids)[probabilities[list(ids)].argmax(0)]
    return winner, first, first - others[0] if others else torch.ones_like(first)


@pytest.mark.parametrize('threshold', [0.3, 0.59])
@pytest.mark.parametrize('name', EXAMPLES)
@pytest.mark.parametrize('size', [(1, 1), (37, 53), (3 * STRIP_PIXELS // 1000, 1000)])
def test_class_ids_and_confidence_equal_those_of_the_formula(
    name: str, size: tuple[int, int], threshold: float
) -> None:
    metadata = EXAMPLES[name]
    logits = torch.randn(metadata.channels, *size, generator=torch.Generator().manual_seed(1)) * 4
    class_ids, confidence, margin = formula(logits, metadata, threshold)
    clear = (margin > 1e-6).numpy()
    assert clear.mean() > 0.99
    plain = tuple(part.numpy() for part in classify(logits, metadata, threshold))
    for ids, found in (plain, on_cpu(logits, metadata, threshold)):
        assert ids.dtype == found.dtype == np.uint8
        assert np.array_equal(ids[clear], class_ids.numpy()[clear])
        assert np.abs(found[clear] - confidence.numpy()[clear]).max() <= 1


def test_logits_in_channels_last_memory_give_the_same_result() -> None:
    logits = torch.randn(1, 3, 20, 30).contiguous(memory_format=torch.channels_last)[0]
    metadata = EXAMPLES['rims']
    for ours, theirs in zip(
        on_cpu(logits, metadata, 0.5),
        on_cpu(logits.contiguous(), metadata, 0.5),
        strict=True,
    ):
        assert np.array_equal(ours, theirs)


def test_images_of_a_batch_are_classified_independently() -> None:
    logits, metadata = torch.randn(3, 4, 6, 7), FOUR
    together = classify(logits, metadata, torch.tensor(0.5))
    for number, own in enumerate(logits):
        for batched, alone in zip(together, classify(own, metadata, 0.5), strict=True):
            assert torch.equal(batched[number], alone)


def test_logits_that_would_overflow_the_exponential_are_classified() -> None:
    ids, found = on_cpu(torch.tensor([-3e4, 3e4]).view(2, 1, 1), ModelMetadata(), 0.5)
    assert (ids.item(), found.item()) == (1, 255)


def test_classes_with_very_different_logits_are_classified() -> None:
    logits = torch.tensor([50.0, -40.0, 60.0]).view(3, 1, 1)
    for ids, found in (
        classify(logits, EXAMPLES['rims'], 0.5),
        on_cpu(logits, EXAMPLES['rims'], 0.5),
    ):
        assert (ids.item(), found.item()) == (2, 255)


@pytest.mark.parametrize(('threshold', 'class_id'), [(0.0, 1), (1.0, 0)])
def test_with_threshold_0_all_pixels_are_rock_and_with_1_only_certain_ones(
    threshold: float, class_id: int
) -> None:
    logits = torch.tensor([[9.0, 0.0], [-9.0, 99.0]]).view(2, 1, 2)
    for ids in (
        classify(logits, ModelMetadata(), threshold)[0],
        on_cpu(logits, ModelMetadata(), threshold)[0],
    ):
        assert ids.tolist() == [[class_id, 1]]


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log().view(-1, 1, 1)


@pytest.mark.parametrize(
    ('probabilities', 'threshold', 'class_id', 'confidence'),
    [
        ((0.0, 0.4, 0.35, 0.25), 0.5, 2, 0.35),  # sand is most probable, but all rock is 0.6
        ((0.0, 0.4, 0.35, 0.25), 0.7, 1, 0.4),
        ((0.45, 0.1, 0.0, 0.45), 0.5, 0, 0.45),
        ((0.1, 0.1, 0.1, 0.7), 0.5, 3, 0.7),
        ((0.1, 0.1, 0.1, 0.7), 0.9, 0, 0.1),
    ],
)
def test_the_threshold_applies_to_the_sum_of_the_rock_classes(
    probabilities: tuple[float, ...], threshold: float, class_id: int, confidence: float
) -> None:
    for ids, found in (
        classify(logits_of(*probabilities), FOUR, threshold),
        on_cpu(logits_of(*probabilities), FOUR, threshold),
    ):
        assert ids.item() == class_id
        assert found.item() == pytest.approx(confidence * 255, abs=0.51)


@pytest.mark.parametrize(
    ('probabilities', 'class_id', 'confidence'),
    [
        ((0.1, 0.42, 0.48), 2, 0.9),  # a low threshold keeps the rims between rocks
        ((0.1, 0.46, 0.44), 1, 0.46),
        ((0.5, 0.42, 0.08), 1, 0.42),
        ((0.5, 0.3, 0.2), 2, 0.5),  # only both together reach the threshold
        ((0.5, 0.05, 0.45), 2, 0.5),
        ((0.65, 0.3, 0.05), 0, 0.65),
    ],
)
def test_a_pixel_belongs_to_a_rock_if_rock_and_rim_together_reach_the_threshold(
    probabilities: tuple[float, ...], class_id: int, confidence: float
) -> None:
    logits = logits_of(*probabilities)
    for classify_ in (classify, on_cpu):
        ids, found = classify_(logits, EXAMPLES['rims'], 0.4)
        assert ids.item() == class_id
        assert found.item() == pytest.approx(confidence * 255, abs=0.51)


@pytest.mark.parametrize('rock_first', [False, True])
def test_a_single_channel_is_the_probability_of_rock(rock_first: bool) -> None:
    metadata = ModelMetadata(
        activation='sigmoid', rock_classes=('background' if rock_first else 'rock',)
    )
    rock, other = (0, 1) if rock_first else (1, 0)
    logits = torch.tensor([[[-9.0, 0.0, 2.0]]])
    for ids, found in (classify(logits, metadata, 0.5), on_cpu(logits, metadata, 0.5)):
        assert ids.tolist() == [[other, rock, rock]]
        assert found.tolist() == [[255, 128, 225]]
