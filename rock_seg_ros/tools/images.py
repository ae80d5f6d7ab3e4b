# SPDX-License-Identifier: Apache-2.0
"""`rock_seg images`: rocks in picture files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.decoding import read_rgb
from rock_seg_ros.perception.segmenter import Segmenter
from rock_seg_ros.tools.main import FAILED, UsageError, reason
from rock_seg_ros.tools.network_options import add_network_options, segmenter_of, settings_of
from rock_seg_ros.tools.picture_files import (
    find_pictures,
    result_paths,
    write_results,
)

# RuntimeError: torch has no memory left.
_PICTURE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, cv2.error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg images`."""
    parser.add_argument('inputs', nargs='+', metavar='IN', help='picture, folder or glob')
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='OUT',
        help='folder for NAME_mask.png, NAME_overlay.jpg and NAME.json',
    )  # fmt: skip
    add_network_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Works on every picture; one that cannot be read is told, and the others go on."""
    pictures = find_pictures(arguments.inputs)
    _refuse_collisions(pictures, arguments.output)
    settings = settings_of(arguments)
    segmenter = segmenter_of(arguments)
    whole = [
        _work_on(picture, arguments.output, segmenter, settings)
        for picture in tqdm(pictures, unit='picture', file=sys.stderr)
    ]
    return 0 if all(whole) else FAILED


def _work_on(path: Path, output: Path, segmenter: Segmenter, settings: Settings) -> bool:
    try:
        analysis = Analysis(read_rgb(path), segmenter, settings)
        write_results(output / path.stem, path.name, analysis)
    except _PICTURE_ERRORS as error:
        told = reason(error)
        told = told if str(path) in told else f'{path}: {told}'
        tqdm.write(f'rock_seg images: {told}', file=sys.stderr)
        return False
    return True


def _refuse_collisions(pictures: Sequence[Path], output: Path) -> None:
    """Refuses work that would write a file twice, or over one of its own inputs."""
    inputs = {picture.resolve() for picture in pictures}
    writers: dict[Path, Path] = {}
    for picture in pictures:
        for result in result_paths((output / picture.stem).resolve()):
            if result in inputs:
                raise UsageError(f'{picture}: its result would overwrite the input {result}')
            other = writers.setdefault(result, picture)
            if other != picture:
                raise UsageError(
                    f'{picture}: its result would overwrite that of {other}; use two folders'
                )
