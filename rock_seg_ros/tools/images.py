# SPDX-License-Identifier: Apache-2.0
"""`rock_seg images`: finds rocks in image files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.tools.image_results import (
    MAX_LISTED_FILES,
    describe_skipped_files,
    find_images,
    is_result_file,
    result_paths,
    write_results,
)
from rock_seg_ros.tools.main import FAILED, UsageError, print_message, reason
from rock_seg_ros.tools.network_options import (
    BITS_HINT,
    add_network_options,
    segmenter_of,
    settings_of,
)
from rock_seg_ros.tools.results.exports import add_export_options, check_exports, write_exports
from rock_seg_ros.tools.results.recorder import Recorder, add_scale_options, scale_problem
from rock_seg_ros.tools.results.results import Results, StoredRecords

# torch raises RuntimeError when it is out of memory.
_IMAGE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, cv2.error)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg images`."""
    parser.add_argument(
        'inputs', nargs='+', metavar='IN', help='image file, folder or glob pattern'
    )
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='OUT',
        help='output folder for NAME_mask.png, NAME_overlay.jpg and NAME.json',
    )  # fmt: skip
    add_export_options(parser)
    add_scale_options(parser)
    add_network_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Processes every image. An image that fails is reported, and the others are processed."""
    for line in describe_skipped_files(arguments.inputs):
        print_message('images', line)
    images = find_images(arguments.inputs)
    _refuse_collisions(images, arguments.output)
    check_exports(arguments, images, _written_files(images, arguments.output))
    processor = _ImageProcessor(arguments, segmenter_of(arguments), settings_of(arguments))
    succeeded = [processor.process(image) for image in tqdm(images, unit='image', file=sys.stderr)]
    problems = write_exports(_results(processor.recorded, arguments), arguments)
    for line in problems:
        print_message('images', line)
    return 0 if all(succeeded) and not problems else FAILED


class _ImageProcessor:
    """Segments images one by one, writes their results and reports failures.

    Attributes:
        recorded: The images that have a record.
    """

    def __init__(
        self, arguments: argparse.Namespace, segmenter: Segmenter, settings: Settings
    ) -> None:
        self._arguments = arguments
        self.recorded: list[Path] = []
        self._recorder = Recorder(arguments, segmenter)
        self._segmenter = segmenter
        self._settings = settings
        self._scaled = 0  # number of files whose bit depth was guessed

    def process(self, path: Path) -> bool:
        """Processes an image; returns whether all its results were written."""
        depth = BitDepth(
            self._arguments.significant_bits, lambda text: self._report_bit_depth(f'{path}: {text}')
        )
        try:
            image = read_rgb(path, depth, self._arguments.max_pixels)
            analysis = Analysis(image, self._segmenter, self._settings)
            record = self._recorder.record(path.name, analysis)
            record['made_by'] = self._recorder.made_by
            problem = write_results(self._arguments.output / path.stem, record, analysis)
            problem = problem or scale_problem(record)
            self.recorded.append(path)
        except _IMAGE_ERRORS as error:
            problem = reason(error)
        if problem:
            print_message('images', problem if str(path) in problem else f'{path}: {problem}')
        return not problem

    def _report_bit_depth(self, text: str) -> None:
        self._scaled += 1
        if self._scaled <= MAX_LISTED_FILES:
            print_message('images', f'{text}; {BITS_HINT}')
        elif self._scaled == MAX_LISTED_FILES + 1:
            print_message('images', 'the same holds for other files, which are not listed')


def _written_files(images: Sequence[Path], output: Path) -> Iterator[Path]:
    for image in images:
        yield from result_paths(output / image.stem)


def _results(images: Sequence[Path], arguments: argparse.Namespace) -> Results:
    """Returns the results of images, as their files in the output folder tell."""
    paths = [result_paths(arguments.output / image.stem) for image in images]

    def overlays(places: Sequence[int]) -> Iterator[NDArray[np.uint8] | None]:
        for place in places:
            overlay = paths[place][1]
            yield read_rgb(overlay) if overlay.exists() else None

    records = StoredRecords([record for *_, record in paths])
    return Results(', '.join(arguments.inputs), records, images, overlays)


def _refuse_collisions(images: Sequence[Path], output: Path) -> None:
    """Raises UsageError if a result file would overwrite an input or another result."""
    inputs = {image.resolve() for image in images}
    writers: dict[Path, Path] = {}
    for image in images:
        for result in result_paths((output / image.stem).resolve()):
            if result in inputs:
                raise UsageError(f'{image}: its result would overwrite the input {result}')
            if result.suffix == '.json' and result.is_file() and not is_result_file(result):
                raise UsageError(
                    f'{image}: its result would overwrite {result}, which rock_seg did not write'
                )
            other = writers.setdefault(result, image)
            if other != image:
                raise UsageError(
                    f'{image}: its result would overwrite that of {other}; '
                    'use a separate output folder for each'
                )
