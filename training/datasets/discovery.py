# SPDX-License-Identifier: Apache-2.0
"""A source's configuration → its images."""

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
    """Finds the images of a split, without reading them.

    Args:
        config: The source.
        split: 'train', 'val' or 'all'.
        classes: Class names; the place is the class id.

    Returns:
        Sorted as the source has them; empty only where `val_fraction` is 0 and 'val' is asked
        for, or 1 and 'train'.

    Raises:
        MissingDataError: There is no such path, or the split is empty.
        DataError: The path holds no such source, or its split does not hold.
    """
    if split not in SPLITS:
        raise ValueError(f'split {split!r} is unknown; legal is {", ".join(SPLITS)}')
    path = Path(config.path)
    labels = Labels(tuple(classes), config.class_map, config.unlabelled)
    images = (Path(config.images),) if config.images else ()
    try:
        found = FORMATS[config.format].find(path, labels, *images)
    except DataError as error:
        if path.exists():
            raise
        raise MissingDataError(str(error)) from None
    strangers = sorted(set(config.exclude) - {sample.name for sample in found})
    if strangers:
        raise DataError(f'{path}: has no image {strangers[0]!r}, which exclude names')
    twice = [name for name, count in Counter(s.name for s in found).items() if count > 1]
    if twice:
        raise DataError(f'{path}: has two images of the name {twice[0]!r}')
    folder = path if path.is_dir() else path.parent
    found = with_splits(found, folder, config.group, config.val_fraction)
    wanted = (sample for sample in found if sample.name not in config.exclude)
    chosen = [sample for sample in wanted if split in ('all', sample.split)]
    asked_for_none = (split, config.val_fraction) in (('val', 0), ('train', 1))
    if not chosen and (not found or not asked_for_none):
        kind = 'image' if config.format == 'unlabelled' else 'labelled image'
        raise MissingDataError(f'{path}: no {kind} in split {split!r}')
    return chosen
