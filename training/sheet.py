# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of the worst images, each with its true and its predicted rocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.cases import ALL_ROCKS, Network
from training.datasets import Labelled
from training.datasets.contact_sheet import grid, thumbnail
from training.evaluation import ImageResult, Perturbation, Result
from training.matching import rock_labels, true_labels
from training.report import worst_of

WORST = 12
COLUMNS = 4  # two images, each with labels and with predictions


def worst_sheet(
    network: Network, results: Sequence[Result], count: int = WORST
) -> NDArray[np.uint8]:
    """Draws the worst images of all results, each once, the worst first.

    Images with a perturbation are shown only if there are no others. The labels are on the left,
    the predictions on the right. The caption has the IoU; the recall, if the labels are incomplete;
    or the true negative rate, if there is no rock.

    Args:
        network: The network of the results, which segments the images again.
        results: Results of all cases, with at least one image.
        count: Maximum number of images.

    Returns:
        H×W×3 uint8 RGB.

    Raises:
        DataError: An image can no longer be read.
    """
    shown = [result for result in results if not str(result.perturbation)] or results
    result_of = {id(image_result): result for result in shown for image_result in result.images}
    all_images = [image_result for result in shown for image_result in result.images]
    ranked = worst_of(all_images, len(all_images))
    unique: dict[tuple[str, str], ImageResult] = {}
    for image_result in ranked:
        unique.setdefault((str(image_result.sample.image), image_result.name), image_result)
    cells: list[NDArray[np.uint8]] = []
    for image_result in list(unique.values())[:count]:
        cells += _pair(network, result_of[id(image_result)], image_result)
    return grid(cells or [np.zeros((32, 32, 3), np.uint8)], COLUMNS)


def _pair(network: Network, result: Result, image_result: ImageResult) -> list[NDArray[np.uint8]]:
    """Draws the labels and the predictions of an image or tile."""
    label = image_result.read()
    rock_ids = network.metadata.rock_ids
    truth = true_labels(label.classes, label.instances, rock_ids)
    found = _predicted_rocks(network, image_result, result.perturbation)
    metric = 'recall' if image_result.only_recall else 'IoU' if truth.any() else 'true negatives'
    rock = (found > 0).astype(np.uint8) * np.uint8(rock_ids[0])
    return [
        thumbnail(Labelled(label.image, label.classes, truth), image_result.name),
        thumbnail(
            Labelled(label.image, rock, found), f'{result.name}: {metric} {image_result.score:.3f}'
        ),
    ]


def _predicted_rocks(
    network: Network, image_result: ImageResult, perturbation: Perturbation
) -> NDArray[np.int32]:
    """Returns the H×W instance ids of the predicted rocks of an image or tile, 0 = none."""
    image = image_result.sample.read().image
    rocks = rock_labels(network.segment(image, perturbation), ALL_ROCKS)
    return rocks if image_result.tile is None else rocks[image_result.tile]
