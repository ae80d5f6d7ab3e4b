# SPDX-License-Identifier: Apache-2.0
"""Command line options for the settings of a source."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from training.datasets.config import DatasetConfig
from training.datasets.formats import FORMATS, guess_format


def read_class_map(text: str) -> dict[str, str]:
    """Reads a class map '{LABEL: CLASS, ...}' in YAML or JSON.

    Raises:
        argparse.ArgumentTypeError: The text is not such a mapping.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise argparse.ArgumentTypeError(
            f"must be like '{{0: background, 255: rock}}', not {text!r}"
        )
    return {str(label): name for label, name in values.items()}


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Adds options for the fields of `DatasetConfig` except its path; their default is None."""
    parser.add_argument(
        '--format',
        choices=tuple(FORMATS),
        help='format of the data set (default: determined from its files)',
    )
    parser.add_argument(
        '--class-map',
        type=read_class_map,
        help="class of each label in the files: '{LABEL: CLASS or ignore, ...}' (default: in masks"
        ' 0 is background and 255 rock; in other formats, labels are class names)',
    )
    parser.add_argument(
        '--images',
        help='folder of the images of coco and labelme (default: near the label files)',
    )
    parser.add_argument(
        '--unlabelled',
        help='class of the pixels that no polygon covers, or ignore (default: background)',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        help='share of the groups in the split val if there is no manifest.csv, 0 to 1'
        ' (default: 0.2)',
    )
    parser.add_argument(
        '--group',
        help='regular expression whose first group is the name of the scene in the name of an'
        ' image; a scene is in one split only (default: each image is a scene)',
    )


def dataset_from_options(path: Path, given: argparse.Namespace) -> DatasetConfig:
    """Returns the source that the options describe.

    Options that were not given have the defaults of `DatasetConfig`; the format is determined from
    the files.

    Raises:
        ValueError: The value of an option is invalid, or the format cannot be determined.
    """
    names = ('class_map', 'images', 'unlabelled', 'val_fraction', 'group')
    values: dict[str, Any] = {name: getattr(given, name) for name in names}
    settings = {name: value for name, value in values.items() if value is not None}
    return DatasetConfig(str(path), given.format or guess_format(path), **settings)
