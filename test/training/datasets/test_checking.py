# SPDX-License-Identifier: Apache-2.0
"""All invalid files are reported, and a fingerprint depends only on the data."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from training.datasets import (
    DataError,
    Sample,
    check,
    find_samples,
    fingerprint,
    guess_format,
)
from training.datasets.config import DatasetConfig

Finder = Callable[..., list[Sample]]


def test_all_invalid_files_are_reported(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b', 'c')
    assert check(find('masks')) == []
    (tmp_path / 'images/a.png').write_bytes(b'')
    (tmp_path / 'masks/c.png').write_bytes(b'')
    problems = check(find('masks'))
    assert [(problem.source, problem.name) for problem in problems] == [
        (str(tmp_path), 'a'),
        (str(tmp_path), 'c'),
    ]
    assert 'images/a.png: does not decode' in problems[0].reason


def test_samples_can_be_pickled(
    find: Finder,
    write_masks: Callable[..., None],
    write_coco: Callable[..., Path],
) -> None:
    write_masks('a')
    write_coco({})
    for kind in ('masks', 'coco'):
        (sample,) = find(kind)
        again = pickle.loads(pickle.dumps(sample))
        assert again == sample
        assert (again.read().classes == sample.read().classes).all()


def test_the_fingerprint_depends_on_names_images_and_labels(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    samples = find('masks')
    before = fingerprint(samples)
    assert fingerprint(samples[::-1]) == before
    assert fingerprint(samples[:1]) != before
    shutil.copytree(tmp_path, tmp_path / 'copy')
    assert fingerprint(find('masks', path='copy')) == before
    for part in ('images', 'masks'):
        file = tmp_path / part / 'a.png'
        original = file.read_bytes()
        file.write_bytes(original + b'!')
        assert fingerprint(samples) != before
        file.write_bytes(original)
    assert fingerprint(samples) == before


def test_the_fingerprint_depends_on_the_splits(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    fingerprints = []
    for splits in (('train', 'val'), ('val', 'train')):
        rows = [f'{name},{split}' for name, split in zip('ab', splits, strict=True)]
        (tmp_path / 'manifest.csv').write_text('\n'.join(['id,split', *rows]))
        fingerprints.append(fingerprint(find('masks')))
    assert fingerprints[0] != fingerprints[1]


def test_the_fingerprint_of_a_missing_file_is_an_error(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    samples = find('masks')
    (tmp_path / 'masks/a.png').unlink()
    with pytest.raises(DataError, match=r'masks/a\.png: cannot be read: No such file'):
        fingerprint(samples)


def test_the_format_is_determined_from_the_files(
    write_masks: Callable[..., None],
    write_labelme: Callable[..., Path],
    write_coco: Callable[..., Path],
    tmp_path: Path,
) -> None:
    assert guess_format(tmp_path) == 'unlabelled'
    labelme = write_labelme({})
    assert guess_format(tmp_path) == 'labelme'
    labelme.unlink()
    file = write_coco({})
    assert guess_format(tmp_path) == guess_format(file) == 'coco'
    write_masks('a')
    assert guess_format(tmp_path) == 'masks'


def test_samples_have_the_source_of_their_configuration(
    write_coco: Callable[..., Path], tmp_path: Path
) -> None:
    write_coco({'category_id': 3})
    config = DatasetConfig(str(tmp_path), 'coco', {'belt': 'rock'})
    (sample,) = find_samples(config, 'all', ['background', 'rock'])
    assert (sample.source, sample.name, sample.group) == (str(tmp_path), 'a', 'a')
