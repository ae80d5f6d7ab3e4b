# SPDX-License-Identifier: Apache-2.0
"""Computation of class ids and confidence from logits.

A pixel belongs to a rock if the sum of the probabilities of the rock classes and of the rim between
two rocks is at least the threshold. It is rock if the rock classes alone reach the threshold and
are at least as probable as the rim, and rim otherwise: a low threshold finds more rock, but does
not merge rocks. Its class is then the most probable rock class; a pixel that belongs to no rock has
the most probable other class. The confidence is the probability of the class; that of rim is the
probability that the pixel belongs to a rock.
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

STRIP_PIXELS = 1 << 16  # the arrays of a strip fit into the cache of a CPU core


def classify(
    logits: Tensor, metadata: ModelMetadata, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Computes class ids and confidence on any device, without synchronizing with it.

    Args:
        logits: …×channels×H×W float32.
        metadata: The metadata of the weights.
        threshold: 0 to 1. If it is a scalar tensor, it can be changed between the replays of a
            CUDA graph.

    Returns:
        …×H×W uint8 class ids, and …×H×W uint8 probability of that class, 0 to 255.
    """
    probabilities = _of_all_classes(logits, metadata).softmax(dim=-3).unbind(-3)
    rock_ids, other_ids = _groups(metadata)
    all_rock = reduce(torch.add, (probabilities[i] for i in rock_ids))
    is_rock = all_rock >= threshold
    rock, rock_id = _most_probable(probabilities, rock_ids)
    other, other_id = _most_probable(probabilities, other_ids)
    if metadata.rim_id is not None:
        rim = probabilities[metadata.rim_id]
        is_rock &= all_rock >= rim
        whole = all_rock + rim
        other = torch.where(whole >= threshold, whole, other)
        other_id = other_id.masked_fill(whole >= threshold, metadata.rim_id)
    confidence = torch.where(is_rock, rock, other).mul_(255).round_().to(torch.uint8)
    return torch.where(is_rock, rock_id, other_id), confidence


def classify_on_cpu(
    logits: Tensor, metadata: ModelMetadata, threshold: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Computes class ids and the confidence of rocks, much faster than `classify` on one CPU core.

    Args:
        logits: channels×H×W float32 on the CPU, contiguous or not.
        metadata: The metadata of the weights.
        threshold: 0 to 1.

    Returns:
        H×W uint8 class ids, and H×W uint8 confidence, 0 to 255, of pixels that are rock or rim, and
        0 elsewhere. `confidence_on_cpu` computes the confidence of all pixels.
    """
    every = _of_all_classes(logits, metadata).contiguous().numpy()
    class_ids, rock_confidence = np.empty((2, *every.shape[1:]), np.uint8)
    max_odds = np.float32(_max_odds(threshold))
    for rows in _strips(*class_ids.shape):
        _classify_strip(every[:, rows], metadata, max_odds, class_ids[rows], rock_confidence[rows])
    return class_ids, rock_confidence


def confidence_on_cpu(
    logits: Tensor, metadata: ModelMetadata, class_ids: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Returns H×W uint8, the confidence of each pixel's class, 0 to 255.

    Args:
        logits: channels×H×W float32 on the CPU, contiguous or not.
        metadata: The metadata of the weights.
        class_ids: H×W uint8 class ids that `classify_on_cpu` computed from the logits.
    """
    every = _of_all_classes(logits, metadata).contiguous().numpy()
    confidence = np.empty_like(class_ids)
    for rows in _strips(*class_ids.shape):
        highest = reduce(np.maximum, every[:, rows])
        powers = [cv2.exp(logit - highest) for logit in every[:, rows]]
        total = reduce(np.add, powers)
        if metadata.rim_id is not None:
            powers[metadata.rim_id] += reduce(np.add, [powers[i] for i in metadata.rock_ids])
        chosen: NDArray[Any] = powers[0].copy()
        for i, power in enumerate(powers[1:], start=1):
            cv2.copyTo(power, (class_ids[rows] == i).view(np.uint8), chosen)
        np.divide(chosen, total, out=chosen)
        cv2.convertScaleAbs(chosen, confidence[rows], 255)
    return confidence


def _max_odds(threshold: float) -> float:
    """Returns the highest odds against rock at which a pixel is rock, limited by float32."""
    return max((1 - threshold) / threshold, 2.0**-24) if threshold else np.inf


def _strips(height: int, width: int) -> list[slice]:
    """Divides the rows of an image into strips of about `STRIP_PIXELS`."""
    rows = max(1, STRIP_PIXELS // width)
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _groups(metadata: ModelMetadata) -> tuple[list[int], list[int]]:
    """Returns the class ids that are rock, and those that are neither rock nor rim, ascending."""
    others = [i for i in range(len(metadata.classes)) if i not in metadata.mask_ids]
    return list(metadata.rock_ids), others


def _of_all_classes(logits: Tensor, metadata: ModelMetadata) -> Tensor:
    """Returns …×classes×H×W logits for a softmax; for a sigmoid, the other class has 0."""
    if metadata.activation == 'softmax':
        return logits
    other = torch.zeros_like(logits)
    return torch.cat((logits, other) if metadata.rock_ids == (0,) else (other, logits), dim=-3)


def _most_probable(probabilities: Sequence[Tensor], ids: list[int]) -> tuple[Tensor, Tensor]:
    """Returns the highest probability among the given classes, and the class that has it."""
    highest = probabilities[ids[0]]
    winner = torch.full_like(highest, ids[0], dtype=torch.uint8)
    for i in ids[1:]:
        winner = winner.masked_fill(probabilities[i] > highest, i)
        highest = torch.maximum(highest, probabilities[i])
    return highest, winner


def _classify_strip(
    logits: NDArray[np.float32],
    metadata: ModelMetadata,
    max_odds: np.float32,
    class_ids: NDArray[np.uint8],
    rock_confidence: NDArray[np.uint8],
) -> None:
    """Computes the results of `classify_on_cpu` for a strip of rows.

    All probabilities are divided by that of the most probable class among rock classes and rim.

    Args:
        logits: classes×H×W.
        metadata: The metadata of the weights.
        max_odds: Highest odds against rock at which a pixel is rock.
        class_ids: H×W, is filled with the result.
        rock_confidence: H×W, is filled with the result.
    """
    rock_ids, other_ids = _groups(metadata)
    rim_ids = [] if metadata.rim_id is None else [metadata.rim_id]
    highest = reduce(np.maximum, [logits[i] for i in (*rock_ids, *rim_ids)])
    rocks, rims, others = (
        _relative([logits[i] for i in ids], highest) for ids in (rock_ids, rim_ids, other_ids)
    )
    confidence: NDArray[Any] = reduce(np.maximum, rocks).copy()
    rock, against = reduce(_add, rocks), reduce(_add, others)
    _fill_winner(logits, other_ids, class_ids)
    if rim_ids:
        whole = rock + rims[0]
        belongs = against <= whole * max_odds
        is_rock = (rims[0] <= rock) & (against + rims[0] <= rock * max_odds)
        cv2.copyTo(np.full_like(class_ids, rim_ids[0]), belongs.view(np.uint8), class_ids)
        cv2.copyTo(whole, (~is_rock).view(np.uint8), confidence)
    else:
        whole = rock
        belongs = is_rock = against <= rock * max_odds
    rock_id: NDArray[Any] = np.empty_like(class_ids)
    _fill_winner(logits, rock_ids, rock_id)
    cv2.copyTo(rock_id, is_rock.view(np.uint8), class_ids)
    np.divide(confidence, _add(against, whole), out=confidence)
    cv2.convertScaleAbs(confidence, rock_confidence, 255)
    np.multiply(rock_confidence, belongs.view(np.uint8), out=rock_confidence)


def _relative(
    logits: Sequence[NDArray[np.float32]], highest: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Returns the odds of each class relative to the class of the highest logit."""
    odds = [logit - highest for logit in logits]
    for class_odds in odds:
        cv2.exp(class_odds, class_odds)
    return odds


def _add(total: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Adds in place."""
    return np.add(total, other, out=total)


def _fill_winner(logits: NDArray[np.float32], ids: list[int], winner: NDArray[np.uint8]) -> None:
    """Sets `winner` to the class with the highest logit among the given classes."""
    winner.fill(ids[0])
    highest = logits[ids[0]]
    for i in ids[1:]:
        higher = (logits[i] > highest).view(np.uint8)
        np.maximum(winner, higher * np.uint8(i), out=winner)  # the ids ascend
        if i != ids[-1]:
            highest = np.maximum(highest, logits[i])
