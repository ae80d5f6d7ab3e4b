# SPDX-License-Identifier: Apache-2.0
"""Reads labelled images from mask folders, COCO and labelme, and images without labels."""

from training.datasets.checking import Problem, check, fingerprint, read_all
from training.datasets.config import DatasetConfig
from training.datasets.discovery import find_samples
from training.datasets.formats import guess_format
from training.datasets.sample import IGNORE, DataError, Labelled, MissingDataError, Sample

__all__ = [
    'IGNORE',
    'DataError',
    'DatasetConfig',
    'Labelled',
    'MissingDataError',
    'Problem',
    'Sample',
    'check',
    'find_samples',
    'fingerprint',
    'guess_format',
    'read_all',
]
