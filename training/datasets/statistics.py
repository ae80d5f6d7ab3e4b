# SPDX-License-Identifier: Apache-2.0
"""Statistics of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.sample import IGNORE, Labelled, Sample

PERCENTILES = {'min': 0, 'p10': 10, 'median': 50, 'p90': 90, 'max': 100}


class Statistics:
    """Accumulates statistics image by image, without storing the images."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Starts with no images; `classes` are the class names, in the order of their ids."""
        self._classes = tuple(classes)
        self._groups: set[str] = set()
        self._sizes: list[tuple[int, int]] = []
        self._pixels = np.zeros(256, np.int64)
        self._with_instances = 0
        self._areas: list[list[NDArray[np.int64]]] = [[] for _ in classes]

    def add(self, sample: Sample, labelled: Labelled) -> None:
        """Adds an image."""
        self._groups.add(sample.group)
        height, width = labelled.classes.shape
        self._sizes.append((width, height))
        self._pixels += np.bincount(labelled.classes.ravel(), minlength=256)
        if labelled.instances is None:
            return
        self._with_instances += 1
        for class_id, areas in enumerate(self._areas):
            counts = np.bincount(labelled.instances[labelled.classes == class_id])[1:]
            areas.append(counts[counts > 0])

    def figures(self) -> dict[str, Any]:
        """Returns the statistics.

        Returns:
            images, groups: Number of images and of groups.
            width, height: min, p10, median, p90 and max, px.
            share: Class name, and 'ignored' → share of the pixels, 0 to 1.
            with_instances: Number of images with instances.
            told_apart: Deprecated name of with_instances.
            instances: Class name → count, and area (min, p10, median, p90 and max, px²); only
                classes with instances.
        """
        sizes = np.asarray(self._sizes).reshape(-1, 2)
        total = max(1, int(self._pixels.sum()))
        share = {name: int(n) / total for name, n in zip(self._classes, self._pixels, strict=False)}
        areas = {
            name: np.concatenate([np.zeros(0, np.int64), *per_image])
            for name, per_image in zip(self._classes, self._areas, strict=True)
        }
        return {
            'images': len(sizes),
            'groups': len(self._groups),
            'width': _percentiles(sizes[:, 0]),
            'height': _percentiles(sizes[:, 1]),
            'share': {**share, 'ignored': int(self._pixels[IGNORE]) / total},
            'with_instances': self._with_instances,
            'told_apart': self._with_instances,
            'instances': {
                name: {'count': len(values), 'area': _percentiles(values)}
                for name, values in areas.items()
                if len(values)
            },
        }


def _percentiles(values: NDArray[np.int64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {name: float(np.percentile(values, p)) for name, p in PERCENTILES.items()}
