# SPDX-License-Identifier: Apache-2.0
"""Drawing of the rocks onto the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.instances.rocks import Rock

TINT = (0, 200, 255)
OUTLINE = (255, 220, 0)
LABEL = (255, 255, 255)
BAND = 64  # rows


def draw_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], rocks: Sequence[Rock], alpha: float
) -> NDArray[np.uint8]:
    """Tints the mask, outlines the rocks and writes their ids.

    Args:
        image: H×W×3 uint8 RGB, any strides; it is not changed.
        mask: H×W uint8, 255 where there is rock.
        rocks: The rocks in this image.
        alpha: Opacity of the tint, 0 (none) to 1 (opaque).

    Returns:
        H×W×3 uint8 RGB, contiguous.
    """
    canvas = np.array(image, order='C')
    _tint(canvas, mask, alpha)
    outlines = [np.rint(rock.polygon).astype(np.int32) for rock in rocks]
    cv2.polylines(canvas, outlines, True, OUTLINE, 1, cv2.LINE_AA)
    for rock in rocks:
        _write_id(canvas, rock)
    return canvas


def _tint(canvas: NDArray[np.uint8], mask: NDArray[np.uint8], alpha: float) -> None:
    """Tints the canvas in place, in bands of rows that fit into the CPU cache."""
    row = np.full((canvas.shape[1], 3), TINT, np.uint8)
    tint = np.repeat(row[None], BAND, axis=0)
    for top in range(0, len(canvas), BAND):
        band, rock = canvas[top : top + BAND], mask[top : top + BAND]
        if cv2.countNonZero(rock):
            cv2.copyTo(cv2.addWeighted(band, 1 - alpha, tint[: len(band)], alpha, 0), rock, band)


def _write_id(canvas: NDArray[np.uint8], rock: Rock) -> None:
    text = str(rock.id)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    if rock.box[2] < width or rock.box[3] < height:
        return
    origin = (round(rock.centroid[0] - width / 2), round(rock.centroid[1] + height / 2))
    for colour, thickness in (((0, 0, 0), 3), (LABEL, 1)):
        cv2.putText(
            canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thickness, cv2.LINE_AA
        )
