# SPDX-License-Identifier: Apache-2.0
"""Reads everything once before a training, so that a bad file shows then and not within."""

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
        name: The image's; empty if the whole source is meant.
        reason: One line that names the file.
    """

    source: str
    name: str
    reason: str


def read_all(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Labelled | Problem]]:
    """Reads every sample, with a progress bar; what does not hold comes as a problem."""
    for sample in tqdm(samples, unit='image', desc='reading'):
        try:
            yield sample, sample.read()
        except DataError as error:
            yield sample, Problem(sample.source, sample.name, str(error))


def check(samples: Sequence[Sample]) -> list[Problem]:
    """Returns what is wrong with any of the samples; empty if all of them can be trained on."""
    return [found for _, found in read_all(samples) if isinstance(found, Problem)]


def fingerprint(samples: Sequence[Sample]) -> str:
    """Returns a SHA-256 over the samples' names, splits, images and label files.

    It depends neither on the order of the samples nor on where the files lie.

    Raises:
        DataError: A file cannot be read.
    """
    digest_of = cache(_digest)  # a COCO file holds the labels of many
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
