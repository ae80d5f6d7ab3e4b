# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of the worst images: each with its true and with its found rocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.cases import EVERY_ROCK, Network
from training.datasets import Labelled
from training.datasets.contact_sheet import grid, thumbnail
from training.evaluation import ImageResult, Perturbation, Result
from training.matching import rock_labels, true_labels
from training.report import worst_of

WORST = 12
ACROSS = 4  # two images, each twice


def worst_sheet(
    network: Network, results: Sequence[Result], count: int = WORST
) -> NDArray[np.uint8]:
    """Draws the worst images of all results, each once, the worst first.

    Images that were changed before the network saw them are shown only where there are no others.
    Left is what is true, right what was found; the caption has the IoU, or where the labels are
    incomplete the recall, or where there is no rock the share that is rightly not called rock.

    Args:
        network: That the results are of; it segments those that are shown once more.
        results: Of all cases, at least one image in them.
        count: Of images, at most.

    Returns:
        H×W×3 uint8 RGB.

    Raises:
        DataError: An image can no longer be read.
    """
    shown = [result for result in results if not str(result.conditions)] or results
    of = {id(image_result): result for result in shown for image_result in result.images}
    ranked = worst_of([image_result for result in shown for image_result in result.images], len(of))
    once: dict[tuple[str, str], ImageResult] = {}
    for image_result in ranked:
        once.setdefault((str(image_result.sample.image), image_result.name), image_result)
    cells: list[NDArray[np.uint8]] = []
    for image_result in list(once.values())[:count]:
        cells += _pair(network, of[id(image_result)], image_result)
    return grid(cells or [np.zeros((32, 32, 3), np.uint8)], ACROSS)


def _pair(network: Network, result: Result, image_result: ImageResult) -> list[NDArray[np.uint8]]:
    """Draws what is true and what was found of an image or tile."""
    label = image_result.read()
    rock_ids = network.card.rock_ids
    truth = true_labels(label.classes, label.instances, rock_ids)
    found = _found(network, image_result, result.conditions)
    told = 'recall' if image_result.only_recall else 'IoU' if truth.any() else 'not called rock'
    rock = (found > 0).astype(np.uint8) * np.uint8(rock_ids[0])
    return [
        thumbnail(Labelled(label.image, label.classes, truth), image_result.name),
        thumbnail(
            Labelled(label.image, rock, found), f'{result.name}: {told} {image_result.score:.3f}'
        ),
    ]


def _found(
    network: Network, image_result: ImageResult, conditions: Perturbation
) -> NDArray[np.int32]:
    """Returns the number of the rock that was found at each pixel of an image or tile, 0 = none."""
    whole = rock_labels(network.segment(image_result.sample.read().image, conditions), EVERY_ROCK)
    return whole if image_result.tile is None else whole[image_result.tile]
