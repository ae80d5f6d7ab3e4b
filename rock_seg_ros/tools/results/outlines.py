# SPDX-License-Identifier: Apache-2.0
"""Conversion of polygons through pixel centres to outlines around pixels, for annotation tools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_MITRE = 1.5  # px; limits spikes at sharp corners


def outline(polygon: Sequence[Sequence[float]]) -> list[list[float]]:
    """Returns the outline around the pixels of a polygon.

    Args:
        polygon: V×2, clockwise as seen, through the centres of the outermost pixels; whole numbers
            are pixel centres.

    Returns:
        V×2, half a pixel further out; (0, 0) is the corner of the image, and (0.5, 0.5) the centre
        of its first pixel.
    """
    points = np.asarray(polygon, np.float64)
    edges = np.roll(points, -1, axis=0) - points
    lengths = np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    outward = np.column_stack([edges[:, 1], -edges[:, 0]]) / lengths
    before = np.roll(outward, 1, axis=0)
    mitre = 0.5 * (before + outward) / np.maximum(1 + (before * outward).sum(axis=1), 1e-9)[:, None]
    reach = np.maximum(np.linalg.norm(mitre, axis=1, keepdims=True), 1e-9)
    moved = points + 0.5 + mitre * np.minimum(1, MAX_MITRE / reach)
    return np.round(moved, 2).tolist()
