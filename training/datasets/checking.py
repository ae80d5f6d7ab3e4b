# SPDX-License-Identifier: Apache-2.0
"""Checks all files before a training begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from training.datasets.sample import DataError, Labelled, Sample


@dataclass(frozen=True)
class Problem:
    """An image that cannot be trained on.

    Attributes:
        source: Path of the source, as configured.
        name: Name of the image; empty if the problem concerns the whole source.
        reason: Message of one line that names the file.
    """

    source: str
    name: str
    reason: str


def read_all(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Labelled | Problem]]:
    """Reads all samples with a progress bar; yields a problem for each that cannot be read."""
    for sample in tqdm(samples, unit='image', desc='reading'):
        try:
            yield sample, sample.read()
        except DataError as error:
            yield sample, Problem(sample.source, sample.name, str(error))


def check(samples: Sequence[Sample]) -> list[Problem]:
    """Returns the problems of the samples; empty if all samples can be used."""
    return [result for _, result in read_all(samples) if isinstance(result, Problem)]


def fingerprint(samples: Sequence[Sample]) -> str:
    """Returns a SHA-256 of the names, splits, images and label files of samples.

    It depends neither on the order of the samples nor on the location of the files.

    Raises:
        DataError: A file cannot be read.
    """
    digest_of = cache(_digest)  # a COCO file has the labels of many samples
    lines = []
    for sample in samples:
        files = (sample.image, *sample.label_files())
        lines.append(' '.join((sample.name, sample.split, *(digest_of(file) for file in files))))
    return hashlib.sha256('\n'.join(sorted(lines)).encode(errors='surrogatepass')).hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise DataError(f'{path}: cannot be read: {error.strerror}') from None
