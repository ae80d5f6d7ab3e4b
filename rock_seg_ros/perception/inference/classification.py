# SPDX-License-Identifier: Apache-2.0
"""Scores → class ids and confidence.

A pixel is rock where the rock classes' probabilities add up to the threshold or more, and to no
less than the probability of the rim between two rocks: a low threshold finds more rock, but does
not merge rocks. Among the rock classes, or else among the others, the most probable one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata

STRIP_PIXELS = 1 << 16  # what a strip's maps take stays in a core's cache


def classify(
    scores: Tensor, metadata: ModelMetadata, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Turns scores into class ids and confidence, on any device and without waiting for it.

    Args:
        scores: …×channels×H×W float32 logits.
        metadata: Tells the activation and which classes are rock.
        threshold: 0 to 1; a tensor without dimensions may change under a captured CUDA graph.

    Returns:
        …×H×W uint8 class ids, and …×H×W uint8 probability of that class, 0 to 255.
    """
    probabilities = _logits(scores, metadata).softmax(dim=-3).unbind(-3)
    rock_ids, other_ids = _groups(metadata)
    all_rock = reduce(torch.add, (probabilities[i] for i in rock_ids))
    is_rock = all_rock >= threshold
    if metadata.rim_id is not None:
        is_rock &= all_rock >= probabilities[metadata.rim_id]
    rock, rock_id = _most_probable(probabilities, rock_ids)
    other, other_id = _most_probable(probabilities, other_ids)
    confidence = torch.where(is_rock, rock, other).mul_(255).round_().to(torch.uint8)
    return torch.where(is_rock, rock_id, other_id), confidence


def classify_on_cpu(
    scores: Tensor, metadata: ModelMetadata, threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Does most of what `classify` does for one image, on one core of a CPU and much faster.

    Args:
        scores: channels×H×W float32 logits on the CPU, contiguous or not.
        metadata: Tells the activation and which classes are rock.
        threshold: 0 to 1.

    Returns:
        H×W uint8 class ids, and H×W uint8: where there is rock the probability of that class, 0 to
        255, elsewhere 0; `confidence_on_cpu` tells it everywhere.
    """
    logits = _logits(scores, metadata).contiguous().numpy()
    class_ids, sure = np.empty((2, *logits.shape[1:]), np.uint8)
    most = np.float32(_odds_against(threshold))
    for own in _strips(*class_ids.shape):
        _classify_strip(logits[:, own], metadata, most, class_ids[own], sure[own])
    return class_ids, sure


def confidence_on_cpu(
    scores: Tensor, metadata: ModelMetadata, class_ids: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Returns H×W uint8, the probability of each pixel's class, 0 to 255.

    Args:
        scores: channels×H×W float32 logits on the CPU, contiguous or not.
        metadata: Tells the activation.
        class_ids: H×W uint8, what `classify_on_cpu` made of them.
    """
    logits = _logits(scores, metadata).contiguous().numpy()
    confidence = np.empty_like(class_ids)
    for strip in _strips(*class_ids.shape):
        highest = reduce(np.maximum, logits[:, strip])
        powers = [cv2.exp(logit - highest) for logit in logits[:, strip]]
        total = reduce(np.add, powers)
        chosen: NDArray[Any] = powers[0].copy()
        for i, power in enumerate(powers[1:], start=1):
            cv2.copyTo(power, (class_ids[strip] == i).view(np.uint8), chosen)
        np.divide(chosen, total, out=chosen)
        cv2.convertScaleAbs(chosen, confidence[strip], 255)
    return confidence


def _odds_against(threshold: float) -> float:
    """Returns up to which odds against rock a pixel is rock; a probability of 1 is float32's."""
    return max((1 - threshold) / threshold, 2.0**-24) if threshold else np.inf


def _strips(height: int, width: int) -> list[slice]:
    """Returns the rows of strips of about `STRIP_PIXELS`."""
    rows = max(1, STRIP_PIXELS // width)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _groups(metadata: ModelMetadata) -> tuple[list[int], list[int]]:
    """Returns the ids of the rock classes and of the others, both ascending."""
    return list(metadata.rock_ids), [
        i for i in range(len(metadata.classes)) if i not in metadata.rock_ids
    ]


def _logits(scores: Tensor, metadata: ModelMetadata) -> Tensor:
    """Returns …×classes×H×W: one logit a class, for a softmax; a sigmoid is one against 0."""
    if metadata.activation == 'softmax':
        return scores
    nothing = torch.zeros_like(scores)
    return torch.cat((scores, nothing) if metadata.rock_ids == (0,) else (nothing, scores), dim=-3)


def _most_probable(probabilities: Sequence[Tensor], ids: list[int]) -> tuple[Tensor, Tensor]:
    """Returns the highest probability among some classes, and which class has it."""
    highest = probabilities[ids[0]]
    winner = torch.full_like(highest, ids[0], dtype=torch.uint8)
    for i in ids[1:]:
        winner = winner.masked_fill(probabilities[i] > highest, i)
        highest = torch.maximum(highest, probabilities[i])
    return highest, winner


def _classify_strip(
    logits: NDArray[np.float32],
    metadata: ModelMetadata,
    most: np.float32,
    class_ids: NDArray[np.uint8],
    sure: NDArray[np.uint8],
) -> None:
    """Fills in what `classify_on_cpu` returns of a strip.

    Of the rock classes the most probable one is 1 here, and all others are in proportion to it.

    Args:
        logits: classes×H×W.
        metadata: Tells which classes are rock, and which is the rim.
        most: Odds against rock up to which a pixel is rock.
        class_ids: H×W, to be filled.
        sure: H×W, to be filled.
    """
    rock_ids, other_ids = _groups(metadata)
    highest = reduce(np.maximum, [logits[i] for i in rock_ids])
    odds = dict(zip(other_ids, _relative([logits[i] for i in other_ids], highest), strict=True))
    all_rock: Any = np.float32(1)
    if rock_ids[1:]:
        all_rock = reduce(_add, _relative([logits[i] for i in rock_ids], highest))
    is_rock: NDArray[Any] = np.ones_like(class_ids, bool)
    if metadata.rim_id is not None:
        np.less_equal(odds[metadata.rim_id], all_rock, out=is_rock)
    total = reduce(_add, odds.values())
    is_rock &= total <= all_rock * most
    total += all_rock
    rock_id: NDArray[Any] = np.empty_like(class_ids)
    _fill_winner(logits, other_ids, class_ids)
    _fill_winner(logits, rock_ids, rock_id)
    cv2.copyTo(rock_id, is_rock.view(np.uint8), class_ids)
    np.divide(np.float32(1), total, out=total)
    cv2.convertScaleAbs(total, sure, 255)
    np.multiply(sure, is_rock.view(np.uint8), out=sure)


def _relative(
    logits: Sequence[NDArray[np.float32]], highest: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Returns the odds of each class beside the one of the highest logit."""
    odds = [logit - highest for logit in logits]
    for one in odds:
        cv2.exp(one, one)
    return odds


def _add(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Adds to the first."""
    return np.add(one, other, out=one)


def _fill_winner(logits: NDArray[np.float32], ids: list[int], winner: NDArray[np.uint8]) -> None:
    """Fills in which of some classes has the highest logit."""
    winner.fill(ids[0])
    highest = logits[ids[0]]
    for i in ids[1:]:
        higher = (logits[i] > highest).view(np.uint8)
        np.maximum(winner, higher * np.uint8(i), out=winner)  # ids ascend: the latest winner's
        if i != ids[-1]:
            highest = np.maximum(highest, logits[i])
