# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: pages of thumbnails with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import printable
from training.datasets.sample import IGNORE, Labelled

SIDE = 320
GAP = 4
COLUMNS, ROWS = 4, 5
CAPTION = 18
ALPHA = 0.35
OUTLINE = (255, 220, 0)
LABEL = (255, 255, 255)
# The colour of class id N is TINTS[(N - 1) % len(TINTS)]; background is not tinted.
TINTS = ((0, 200, 255), (0, 200, 80), (255, 140, 0), (200, 90, 255), (255, 80, 80))
IGNORED_TINT = (255, 0, 255)


def thumbnail(labelled: Labelled, name: str) -> NDArray[np.uint8]:
    """Draws a labelled image as a thumbnail.

    Classes are tinted. Ignored pixels are magenta, unless all pixels are ignored. Instances are
    outlined; without instances, the areas of each class are.

    Args:
        labelled: The image.
        name: Caption.

    Returns:
        (SIDE + CAPTION)×SIDE×3 uint8 RGB.
    """
    height, width = labelled.classes.shape
    scale = (SIDE - GAP) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(labelled.image, size, interpolation=cv2.INTER_AREA)
    instances = labelled.classes if labelled.instances is None else labelled.instances
    # OpenCV cannot scale int32; float32 represents the ids exactly.
    small = [
        cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        for part in (labelled.classes, instances)
    ]
    drawn = _draw(image, small[0].astype(np.uint8), small[1])  # type: ignore[arg-type]
    cell = np.zeros((SIDE + CAPTION, SIDE, 3), np.uint8)
    cell[: size[1], : size[0]] = drawn
    origin = (2, SIDE + CAPTION - 5)
    text = printable(name)  # OpenCV crashes on a name that is not UTF-8
    cv2.putText(cell, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.4, LABEL, 1, cv2.LINE_AA)
    return cell


def pages(cells: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yields pages of COLUMNS×ROWS thumbnails, H×W×3 uint8 RGB."""
    for start in range(0, len(cells), COLUMNS * ROWS):
        yield grid(cells[start : start + COLUMNS * ROWS], COLUMNS)


def grid(cells: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Returns at least one thumbnail, all of one size, as rows of `columns`; H×W×3 uint8 RGB."""
    page = [*cells, *([np.zeros_like(cells[0])] * (-len(cells) % columns))]
    return np.vstack([np.hstack(page[n : n + columns]) for n in range(0, len(page), columns)])


def _draw(
    image: NDArray[np.uint8], classes: NDArray[np.uint8], instances: NDArray[np.float32]
) -> NDArray[np.uint8]:
    palette = np.zeros((256, 3), np.uint8)
    palette[1:] = [TINTS[index % len(TINTS)] for index in range(255)]
    palette[IGNORE] = IGNORED_TINT
    tinted = cv2.addWeighted(image, 1 - ALPHA, palette[classes], ALPHA, 0)
    known = classes if (classes != IGNORE).any() else np.zeros_like(classes)
    drawn = np.where(known[..., None] > 0, tinted, image)
    edges = cv2.morphologyEx(instances, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    drawn[edges] = OUTLINE
    return drawn
