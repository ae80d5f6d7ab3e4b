# SPDX-License-Identifier: Apache-2.0
"""A source's settings as options of a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from training.datasets.config import DatasetConfig
from training.datasets.formats import FORMATS, guess_format


def read_class_map(text: str) -> dict[str, str]:
    """Reads '{LABEL: CLASS, ...}' in YAML or JSON, as the training's configuration writes it.

    Raises:
        argparse.ArgumentTypeError: It is no such mapping.
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
    """Adds options for the fields of `DatasetConfig` but its path; those not given are None."""
    parser.add_argument('--format', choices=tuple(FORMATS), help='(default: as the data look)')
    parser.add_argument(
        '--class-map', type=read_class_map, help='{label in the files: class or ignore, ...}'
    )
    parser.add_argument('--images', help='folder of the images that coco and labelme name')
    parser.add_argument('--unlabelled', help='class of what no outline covers, or ignore')
    parser.add_argument('--val-fraction', type=float, help='share that is val without a manifest')
    parser.add_argument('--group', help='regular expression; its first bracket names the scene')


def dataset_from_options(path: Path, given: argparse.Namespace) -> DatasetConfig:
    """Returns the source that options describe.

    What was not given has `DatasetConfig`'s default; the format is guessed.

    Raises:
        ValueError: An option's value is not legal, or the format cannot be guessed.
    """
    names = ('class_map', 'images', 'unlabelled', 'val_fraction', 'group')
    asked: dict[str, Any] = {name: getattr(given, name) for name in names}
    settings = {name: value for name, value in asked.items() if value is not None}
    return DatasetConfig(str(path), given.format or guess_format(path), **settings)
