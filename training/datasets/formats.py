# SPDX-License-Identifier: Apache-2.0
"""The formats that labelled images come in: one file and one line each."""

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
        find: Finds the images at a path, without group and split; after the labels comes the
            folder of the images, where the source says so.
        looks_like: Whether a path looks like this format, by a glance at it.
        labels_in: The labels that the files at a path name, sorted; none where they are numbers.
        has_images_apart: Whether the images may lie in a folder of their own.
    """

    find: Callable[..., list[Sample]]
    looks_like: Callable[[Path], bool]
    labels_in: Callable[[Path], list[str]] = lambda _: []
    has_images_apart: bool = False


# In the order in which they are guessed.
FORMATS = {
    'masks': Format(find_masks, is_mask_folder),
    'coco': Format(find_coco, is_coco, coco_labels, has_images_apart=True),
    'labelme': Format(find_labelme, is_labelme, labelme_labels, has_images_apart=True),
    'unlabelled': Format(find_unlabelled, Path.is_dir),
}


def guess_format(path: Path) -> str:
    """Returns the first format that a path looks like; 'masks' if it looks like none.

    Raises:
        DataError: It would be taken for unlabelled, but there are JSON files, which may be labels.
    """
    if path.suffix.lower() == '.json' and not path.is_dir():
        return 'coco'
    guessed = next((name for name, fmt in FORMATS.items() if fmt.looks_like(path)), 'masks')
    if guessed == 'unlabelled':
        _check_no_json(path)
    return guessed


def _check_no_json(path: Path) -> None:
    folders = [path, *(folder for folder in sorted(path.rglob('*')) if folder.is_dir())]
    found = [file for folder in folders for file in json_files(folder)]
    if found:
        raise DataError(
            f"{path}: has JSON files which are neither one COCO file nor labelme's,"
            f' {join_first(found)}; name the file, or the format'
        )
