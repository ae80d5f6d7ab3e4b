# SPDX-License-Identifier: Apache-2.0
"""Counts what is in labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.sample import IGNORE, Labelled, Sample

PERCENTILES = {'min': 0, 'p10': 10, 'median': 50, 'p90': 90, 'max': 100}


class Statistics:
    """Grows by an image at a time and keeps none."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Takes the class names; the place is the class id."""
        self._classes = tuple(classes)
        self._groups: set[str] = set()
        self._sizes: list[tuple[int, int]] = []
        self._pixels = np.zeros(256, np.int64)
        self._told_apart = 0
        self._areas: list[list[NDArray[np.int64]]] = [[] for _ in classes]

    def add(self, sample: Sample, labelled: Labelled) -> None:
        """Counts an image."""
        self._groups.add(sample.group)
        height, width = labelled.classes.shape
        self._sizes.append((width, height))
        self._pixels += np.bincount(labelled.classes.ravel(), minlength=256)
        if labelled.instances is None:
            return
        self._told_apart += 1
        for class_id, areas in enumerate(self._areas):
            counts = np.bincount(labelled.instances[labelled.classes == class_id])[1:]
            areas.append(counts[counts > 0])

    def figures(self) -> dict[str, Any]:
        """Returns what was counted.

        Returns:
            images, groups: How many.
            width, height: min, p10, median, p90 and max, px.
            share: Class name, and 'ignored' → share of the pixels, 0 to 1.
            told_apart: Images whose rocks have numbers.
            instances: Class name → count, and area as width is told, px; without the classes
                that have none.
        """
        sizes = np.asarray(self._sizes).reshape(-1, 2)
        total = max(1, int(self._pixels.sum()))
        share = {name: int(n) / total for name, n in zip(self._classes, self._pixels, strict=False)}
        areas = {
            name: np.concatenate([np.zeros(0, np.int64), *own])
            for name, own in zip(self._classes, self._areas, strict=True)
        }
        return {
            'images': len(sizes),
            'groups': len(self._groups),
            'width': _spread(sizes[:, 0]),
            'height': _spread(sizes[:, 1]),
            'share': {**share, 'ignored': int(self._pixels[IGNORE]) / total},
            'told_apart': self._told_apart,
            'instances': {
                name: {'count': len(own), 'area': _spread(own)}
                for name, own in areas.items()
                if len(own)
            },
        }


def _spread(values: NDArray[np.int64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {name: float(np.percentile(values, p)) for name, p in PERCENTILES.items()}
