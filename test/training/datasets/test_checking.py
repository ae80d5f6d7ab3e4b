# SPDX-License-Identifier: Apache-2.0
"""Every broken file is told, not the first; a fingerprint changes with the data alone."""

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


def test_all_broken_files_are_told(
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


def test_samples_travel_to_other_processes(
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


def test_the_fingerprint_is_that_of_names_images_and_labels(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    samples = find('masks')
    before = fingerprint(samples)
    assert fingerprint(samples[::-1]) == before
    assert fingerprint(samples[:1]) != before
    shutil.copytree(tmp_path, tmp_path / 'elsewhere')
    assert fingerprint(find('masks', path='elsewhere')) == before
    for part in ('images', 'masks'):
        file = tmp_path / part / 'a.png'
        whole = file.read_bytes()
        file.write_bytes(whole + b'!')
        assert fingerprint(samples) != before
        file.write_bytes(whole)
    assert fingerprint(samples) == before


def test_the_fingerprint_tells_which_image_is_in_which_split(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a', 'b')
    told = []
    for splits in (('train', 'val'), ('val', 'train')):
        rows = [f'{name},{split}' for name, split in zip('ab', splits, strict=True)]
        (tmp_path / 'manifest.csv').write_text('\n'.join(['id,split', *rows]))
        told.append(fingerprint(find('masks')))
    assert told[0] != told[1]


def test_a_file_without_a_fingerprint_is_named(
    find: Finder, write_masks: Callable[..., None], tmp_path: Path
) -> None:
    write_masks('a')
    samples = find('masks')
    (tmp_path / 'masks/a.png').unlink()
    with pytest.raises(DataError, match=r'masks/a\.png: cannot be read: No such file'):
        fingerprint(samples)


def test_the_format_is_guessed_from_what_lies_there(
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


def test_sources_can_be_given_as_configured(
    write_coco: Callable[..., Path], tmp_path: Path
) -> None:
    write_coco({'category_id': 3})
    config = DatasetConfig(str(tmp_path), 'coco', {'belt': 'rock'})
    (sample,) = find_samples(config, 'all', ['background', 'rock'])
    assert (sample.source, sample.name, sample.group) == (str(tmp_path), 'a', 'a')
