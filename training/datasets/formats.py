# SPDX-License-Identifier: Apache-2.0
"""Registry of the formats of labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from training.datasets.coco import coco_labels, find_coco, is_coco
from training.datasets.json_file import json_files
from training.datasets.labelme import find_labelme, is_labelme, labelme_labels
from training.datasets.masks import find_masks, is_mask_folder
from training.datasets.sample import DataError, Sample
from training.datasets.selection import join_first
from training.datasets.unlabelled import find_unlabelled


class Format(NamedTuple):
    """A format of labelled images.

    Attributes:
        find: Lists the images at a path, without group and split. Arguments: path, labels, and the
            folder of the images if the source has one.
        matches: Returns whether a path seems to have this format, without reading all files.
        labels_in: Returns the sorted labels in the files at a path; empty if labels are numbers.
        has_image_folder: Whether the setting `images` may name a separate folder of the images.
    """

    find: Callable[..., list[Sample]]
    matches: Callable[[Path], bool]
    labels_in: Callable[[Path], list[str]] = lambda _: []
    has_image_folder: bool = False


# In the order in which guess_format tries them.
FORMATS = {
    'masks': Format(find_masks, is_mask_folder),
    'coco': Format(find_coco, is_coco, coco_labels, has_image_folder=True),
    'labelme': Format(find_labelme, is_labelme, labelme_labels, has_image_folder=True),
    'unlabelled': Format(find_unlabelled, Path.is_dir),
}


def guess_format(path: Path) -> str:
    """Returns the first format that matches a path; 'masks' if none does.

    Raises:
        DataError: Only 'unlabelled' matches, but there are JSON files, which may be labels.
    """
    if path.suffix.lower() == '.json' and not path.is_dir():
        return 'coco'
    guessed = next((name for name, fmt in FORMATS.items() if fmt.matches(path)), 'masks')
    if guessed == 'unlabelled':
        _check_no_json(path)
    return guessed


def _check_no_json(path: Path) -> None:
    folders = [path, *(folder for folder in sorted(path.rglob('*')) if folder.is_dir())]
    found = [file for folder in folders for file in json_files(folder)]
    if found:
        raise DataError(
            f'{path}: has JSON files in neither COCO nor labelme format:'
            f' {join_first(found)}; give the path of the file, or the format'
        )
