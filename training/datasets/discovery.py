# SPDX-License-Identifier: Apache-2.0
"""Lists the images of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from training.datasets.config import DatasetConfig
from training.datasets.formats import FORMATS
from training.datasets.labels import Labels
from training.datasets.sample import DataError, MissingDataError, Sample
from training.datasets.splits import SPLITS, with_splits


def find_samples(config: DatasetConfig, split: str, classes: Sequence[str]) -> list[Sample]:
    """Lists the images of a split without reading them.

    Args:
        config: Configuration of the source.
        split: 'train', 'val' or 'all'.
        classes: Class names; the index is the class id.

    Returns:
        The samples in the order of the source; empty only for the split 'val' with a `val_fraction`
        of 0, and for 'train' with 1.

    Raises:
        MissingDataError: The path does not exist, or the split is empty.
        DataError: The path has no data in this format, or the splits are invalid.
    """
    if split not in SPLITS:
        raise ValueError(f'split {split!r} is unknown; expected: {", ".join(SPLITS)}')
    path = Path(config.path)
    labels = Labels(tuple(classes), config.class_map, config.unlabelled)
    images = (Path(config.images),) if config.images else ()
    try:
        found = FORMATS[config.format].find(path, labels, *images)
    except DataError as error:
        if path.exists():
            raise
        raise MissingDataError(str(error)) from None
    unknown = sorted(set(config.exclude) - {sample.name for sample in found})
    if unknown:
        raise DataError(f'{path}: has no image {unknown[0]!r}, which is listed in exclude')
    duplicates = [name for name, count in Counter(s.name for s in found).items() if count > 1]
    if duplicates:
        raise DataError(f'{path}: has two images with the name {duplicates[0]!r}')
    folder = path if path.is_dir() else path.parent
    found = with_splits(found, folder, config.group, config.val_fraction)
    included = (sample for sample in found if sample.name not in config.exclude)
    selected = [sample for sample in included if split in ('all', sample.split)]
    may_be_empty = (split, config.val_fraction) in (('val', 0), ('train', 1))
    if not selected and (not found or not may_be_empty):
        kind = 'image' if config.format == 'unlabelled' else 'labelled image'
        raise MissingDataError(f'{path}: no {kind} in split {split!r}')
    return selected
