# SPDX-License-Identifier: Apache-2.0
"""Scores → class ids and confidence.

A pixel is rock where the rock classes' probabilities add up to the threshold or more; among the
rock classes, or else among the others, the most probable one is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.card import Card

STRIP_PIXELS = 1 << 16  # what a strip's maps take stays in a core's cache


def classify(scores: Tensor, card: Card, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """Turns scores into class ids and confidence, on any device and without waiting for it.

    Args:
        scores: …×channels×H×W float32 logits.
        card: Tells the activation and which classes are rock.
        threshold: 0 to 1; a tensor without dimensions may change under a captured CUDA graph.

    Returns:
        …×H×W uint8 class ids, and …×H×W uint8 probability of that class, 0 to 255.
    """
    probabilities = _logits(scores, card).softmax(dim=-3).unbind(-3)
    rock_ids, other_ids = _groups(card)
    is_rock = reduce(torch.add, (probabilities[i] for i in rock_ids)) >= threshold
    rock, rock_id = _most_probable(probabilities, rock_ids)
    other, other_id = _most_probable(probabilities, other_ids)
    confidence = torch.where(is_rock, rock, other).mul_(255).round_().to(torch.uint8)
    return torch.where(is_rock, rock_id, other_id), confidence


def classify_on_cpu(
    scores: Tensor, card: Card, threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Does what `classify` does for one picture, on one core of a CPU and several times as fast.

    Args:
        scores: channels×H×W float32 logits on the CPU, contiguous or not.
        card: Tells the activation and which classes are rock.
        threshold: 0 to 1.

    Returns:
        H×W uint8 class ids, and H×W uint8 probability of that class, 0 to 255.
    """
    logits = _logits(scores, card).contiguous().numpy()
    _, height, width = logits.shape
    class_ids, confidence = np.empty((2, height, width), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        own = slice(top, top + rows)
        _fill_strip(logits[:, own], _groups(card), threshold, class_ids[own], confidence[own])
    return class_ids, confidence


def _groups(card: Card) -> tuple[list[int], list[int]]:
    """Returns the ids of the rock classes and of the others, both ascending."""
    return list(card.rock_ids), [i for i in range(len(card.classes)) if i not in card.rock_ids]


def _logits(scores: Tensor, card: Card) -> Tensor:
    """Returns …×classes×H×W: one logit a class, for a softmax; a sigmoid is one against 0."""
    if card.activation == 'softmax':
        return scores
    nothing = torch.zeros_like(scores)
    return torch.cat((scores, nothing) if card.rock_ids == (0,) else (nothing, scores), dim=-3)


def _most_probable(probabilities: Sequence[Tensor], ids: list[int]) -> tuple[Tensor, Tensor]:
    """Returns the highest probability among some classes, and which class has it."""
    highest = probabilities[ids[0]]
    winner = torch.full_like(highest, ids[0], dtype=torch.uint8)
    for i in ids[1:]:
        winner = winner.masked_fill(probabilities[i] > highest, i)
        highest = torch.maximum(highest, probabilities[i])
    return highest, winner


def _fill_strip(
    logits: NDArray[np.float32],
    groups: tuple[list[int], list[int]],
    threshold: float,
    class_ids: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
) -> None:
    """Fills class ids and confidence of a strip; see `classify`."""
    rock_ids, other_ids = groups
    highest = reduce(np.maximum, logits)
    powers = [cv2.exp(logit - highest) for logit in logits]
    total = reduce(np.add, powers)
    is_rock = reduce(np.add, [powers[i] for i in rock_ids]) >= total * np.float32(threshold)
    rock_id, rock_confidence = np.empty((2, *class_ids.shape), np.uint8)
    _fill_most_probable(powers, total, other_ids, class_ids, confidence)
    _fill_most_probable(powers, total, rock_ids, rock_id, rock_confidence)
    cv2.copyTo(rock_id, is_rock.view(np.uint8), class_ids)
    cv2.copyTo(rock_confidence, is_rock.view(np.uint8), confidence)


def _fill_most_probable(
    powers: Sequence[NDArray[np.float32]],
    total: NDArray[np.float32],
    ids: list[int],
    winner: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
) -> None:
    """Fills in which of some classes is the most probable, and its probability, 0 to 255."""
    highest = powers[ids[0]]
    winner.fill(ids[0])
    for i in ids[1:]:
        higher = (powers[i] > highest).view(np.uint8)
        np.maximum(winner, higher * np.uint8(i), out=winner)  # ids ascend: the latest winner's
        highest = np.maximum(highest, powers[i])
    cv2.convertScaleAbs(highest / total, confidence, 255)
