# SPDX-License-Identifier: Apache-2.0
"""The formats that labelled pictures come in: one file and one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from training.sources.coco import coco_labels, find_coco, is_coco
from training.sources.labelme import find_labelme, is_labelme, labelme_labels
from training.sources.labels import Labels
from training.sources.masks import find_masks, is_mask_folder
from training.sources.sample import Sample
from training.sources.unlabelled import find_unlabelled


class Format(NamedTuple):
    """A format of labelled pictures.

    Attributes:
        find: Finds the pictures at a path, without group and split.
        looks_like: Whether a path looks like this format, by a glance at it.
        labels_in: The labels that the files at a path name, sorted; none where they are numbers.
    """

    find: Callable[[Path, Labels], list[Sample]]
    looks_like: Callable[[Path], bool]
    labels_in: Callable[[Path], list[str]] = lambda _: []


# In the order in which they are guessed.
FORMATS = {
    'masks': Format(find_masks, is_mask_folder),
    'coco': Format(find_coco, is_coco, coco_labels),
    'labelme': Format(find_labelme, is_labelme, labelme_labels),
    'unlabelled': Format(find_unlabelled, Path.is_dir),
}


def guess_format(path: Path) -> str:
    """Returns the first format that a path looks like; 'masks' if it looks like none."""
    return next((name for name, fmt in FORMATS.items() if fmt.looks_like(path)), 'masks')
