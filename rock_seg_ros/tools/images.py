# SPDX-License-Identifier: Apache-2.0
"""`rock_seg images`: finds rocks in image files."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis, segment_together
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.weights_file import auto_device
from rock_seg_ros.tools.image_results import (
    MAX_LISTED_FILES,
    describe_skipped_files,
    find_images,
    is_result_file,
    result_paths,
    write_results,
)
from rock_seg_ros.tools.jobs import Outcome, add_job_options, positive, run_tasks
from rock_seg_ros.tools.main import FAILED, UsageError, print_message
from rock_seg_ros.tools.network_options import (
    BITS_HINT,
    add_network_options,
    segmenter_of,
    settings_of,
)
from rock_seg_ros.tools.progress import progress
from rock_seg_ros.tools.results.exports import add_export_options, check_exports, write_exports
from rock_seg_ros.tools.results.recorder import Recorder, add_scale_options, scale_problem
from rock_seg_ros.tools.results.results import Results, StoredRecords
from rock_seg_ros.tools.resume import MadeBy, add_resume_option, check_same, finished_images

# torch raises RuntimeError when it is out of memory.
_IMAGE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, cv2.error)
GPU_BATCH = 8  # images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg images`."""
    parser.add_argument(
        'inputs', nargs='+', metavar='IN', help='image file, folder or glob pattern'
    )
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='OUT',
        help='output folder for NAME_mask.png, NAME_overlay.jpg and NAME.json',
    )  # fmt: skip
    parser.add_argument(
        '--batch', type=positive, metavar='N',
        help='number of images of one size that the network processes at once;'
        f' reduce it if memory runs out (default: {GPU_BATCH} on a GPU, 1 on a CPU)',
    )  # fmt: skip
    add_resume_option(parser)
    add_job_options(parser, 'image')
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
    finished, made_by = (
        finished_images(images, arguments.output) if arguments.resume else (set(), None)
    )
    if finished:
        print_message('images', f'{len(finished)} of {len(images)} images are finished already')
    report = _Report()
    make = partial(ImageWorker, arguments, made_by)
    with progress(total=len(images), done=len(finished), unit='image') as bar:
        for outcome in run_tasks(make, _tasks(images, finished, arguments), arguments):
            report.take(outcome)
            bar.update()
    done = report.recorded | finished
    recorded = [image for image in images if image in done]
    problems = write_exports(_results(recorded, arguments), arguments)
    for line in problems:
        print_message('images', line)
    return FAILED if report.failed or problems else 0


def _tasks(
    images: Sequence[Path], finished: Collection[Path], arguments: argparse.Namespace
) -> list[list[Path]]:
    """Returns the batches; one without images if all are finished, which checks the settings."""
    left = [image for image in images if image not in finished]
    size = arguments.batch or (GPU_BATCH if _on_gpu(arguments) else 1)
    return [left[start : start + size] for start in range(0, len(left), size)] or [[]]


def _on_gpu(arguments: argparse.Namespace) -> bool:
    device = arguments.device
    if device == 'auto':
        device = auto_device(arguments.backend, arguments.precision)
    return device != 'cpu'


class ImageWorker:
    """Segments images with its own network and writes their results."""

    def __init__(self, arguments: argparse.Namespace, made_by: MadeBy | None = None) -> None:
        """Loads the network.

        Args:
            arguments: The options of the command.
            made_by: How the results were made that are kept; None if there are none.

        Raises:
            ValueError: The weights, the scale or the ignore mask cannot be used, or the results
                that are kept were made with other settings.
        """
        self._arguments = arguments
        self._segmenter = segmenter_of(arguments)
        self._settings = settings_of(arguments)
        self._recorder = Recorder(arguments, self._segmenter)
        if made_by is not None:
            check_same(arguments.output, made_by, self._recorder.made_by)

    def __call__(self, paths: Sequence[Path]) -> list[Outcome]:
        """Processes images, those of one size together in the network.

        Returns:
            One outcome per image, in their order.
        """
        read = [self._read(path) for path in paths]
        analyses = [analysis for analysis, _ in read if isinstance(analysis, Analysis)]
        if len(analyses) > 1:
            # Below, each image is processed alone, so that only an invalid one fails.
            with suppress(*_IMAGE_ERRORS):
                segment_together(analyses)
        return [self._write(path, *found) for path, found in zip(paths, read, strict=True)]

    def _read(self, path: Path) -> tuple[Analysis | str, tuple[str, ...]]:
        """Returns the image, or why it cannot be read, and how its bits were scaled."""
        notes: list[str] = []
        depth = BitDepth(self._arguments.significant_bits, notes.append)
        try:
            image = read_rgb(path, depth, self._arguments.max_pixels)
            return Analysis(image, self._segmenter, self._settings), tuple(notes)
        except _IMAGE_ERRORS as error:
            return first_line(error), tuple(notes)

    def _write(self, path: Path, analysis: Analysis | str, notes: tuple[str, ...]) -> Outcome:
        if isinstance(analysis, str):
            return Outcome(path, analysis, notes)
        try:
            record = self._recorder.record(path.name, analysis)
            record['made_by'] = self._recorder.made_by
            problem = write_results(self._arguments.output / path.stem, record, analysis)
            return Outcome(path, problem or scale_problem(record), notes, written=True)
        except _IMAGE_ERRORS as error:
            return Outcome(path, first_line(error), notes)


class _Report:
    """Prints the outcomes of the images.

    Attributes:
        recorded: The images that have a record.
        failed: Number of images with a problem.
    """

    def __init__(self) -> None:
        self.recorded: set[Path] = set()
        self.failed = 0
        self._scaled = 0  # number of files whose bit depth was guessed

    def take(self, outcome: Outcome) -> None:
        """Prints the lines of an image."""
        path, problem, notes, written = outcome
        for note in notes:
            self._scaled += 1
            if self._scaled <= MAX_LISTED_FILES:
                print_message('images', f'{path}: {note}; {BITS_HINT}')
            elif self._scaled == MAX_LISTED_FILES + 1:
                print_message('images', 'the same holds for other files, which are not listed')
        if problem:
            self.failed += 1
            print_message('images', problem if str(path) in problem else f'{path}: {problem}')
        if written:
            self.recorded.add(path)


def _written_files(images: Sequence[Path], output: Path) -> Iterator[Path]:
    for image in images:
        yield from result_paths(output / image.stem)


def _results(images: Sequence[Path], arguments: argparse.Namespace) -> Results:
    """Returns the results of images, read from their files in the output folder."""
    paths = [result_paths(arguments.output / image.stem) for image in images]

    def overlays(indices: Sequence[int]) -> Iterator[NDArray[np.uint8] | None]:
        for index in indices:
            overlay = paths[index][1]
            exists = overlay.exists()
            yield read_rgb(overlay, max_pixels=arguments.max_pixels) if exists else None

    records = StoredRecords([record for *_, record in paths])
    return Results(', '.join(arguments.inputs), records, lambda index, _: images[index], overlays)


def _refuse_collisions(images: Sequence[Path], output: Path) -> None:
    """Raises UsageError if the results cannot be written, or would overwrite other files."""
    if output.exists() and not output.is_dir():
        raise UsageError(f'{output}: exists and is not a folder; choose another output folder')
    inputs = {image.resolve() for image in images}
    writers: dict[Path, Path] = {}
    for image in images:
        for result in result_paths((output / image.stem).resolve()):
            if result in inputs:
                raise UsageError(f'{image}: its result would overwrite the input {result}')
            is_record = result.suffix == '.json'
            if result.exists() and not (is_result_file(result) if is_record else result.is_file()):
                raise UsageError(
                    f'{image}: its result would overwrite {result}, which rock_seg did not write'
                )
            other = writers.setdefault(result, image)
            if other != image:
                raise UsageError(
                    f'{image}: its result would overwrite that of {other}; '
                    'use a separate output folder for each'
                )
