# SPDX-License-Identifier: Apache-2.0
"""Divides the images of a source into train and val, scene by scene."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rock_seg_ros.perception.files import read_file
from training.datasets.sample import DataError, Sample
from training.datasets.selection import join_first

SPLITS = ('train', 'val', 'all')
HALVES = ('report', 'tune')
Row = dict[str, str]


def with_splits(
    samples: Sequence[Sample], folder: Path, group: str, val_fraction: float
) -> list[Sample]:
    """Returns samples with their group and split.

    Args:
        samples: The samples of one source.
        folder: Folder that may contain `manifest.csv`.
        group: See `DatasetConfig`.
        val_fraction: See `DatasetConfig`.

    Returns:
        Copies of the samples. The split comes from the manifest if there is one, else from the
        label files if they have the splits train and val, else from a random draw, which leaves the
        split 'test' unchanged.

    Raises:
        DataError: The manifest is invalid, or a group is in train and in val.
    """
    manifest = folder / 'manifest.csv'
    rows = _read_manifest(manifest, {s.name for s in samples}) if manifest.exists() else {}
    groups = [_group(sample.name, rows, group) for sample in samples]
    if manifest.exists():
        splits = [rows.get(sample.name, {}).get('split', '') for sample in samples]
        _check_disjoint(manifest, groups, splits)
    elif {'train', 'val'} <= {sample.split for sample in samples}:
        splits = [sample.split for sample in samples]
        _check_disjoint(folder, groups, splits)
    else:
        pairs = list(zip(samples, groups, strict=True))
        held_out = draw((name for sample, name in pairs if sample.split != 'test'), val_fraction)
        splits = [
            'test' if sample.split == 'test' else 'val' if name in held_out else 'train'
            for sample, name in pairs
        ]
    return [
        replace(sample, group=name, split=split)
        for sample, name, split in zip(samples, groups, splits, strict=True)
    ]


def draw(groups: Iterable[str], fraction: float) -> set[str]:
    """Selects the groups that are held out, by the hashes of their names.

    The selection is reproducible, and adding groups does not change it for the others. With two or
    more groups, at least one is in each split, unless the fraction is 0 or 1.

    Args:
        groups: Names of groups; duplicates are allowed.
        fraction: Expected share of the groups that are held out, 0 to 1.
    """
    ranked = sorted((_hash_fraction(name), name) for name in set(groups))
    count = sum(hashed < fraction for hashed, _ in ranked)
    if 0 < fraction < 1 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    return {name for _, name in ranked[:count]}


def halve(groups: Sequence[str]) -> list[str]:
    """Divides a validation set into a half to choose settings on and a half to report on.

    Groups stay whole. In the order of the hashes of their names, each is added to the half with
    fewer images. The halves are therefore reproducible and have similar sizes.

    Args:
        groups: The group of each image.

    Returns:
        'tune' or 'report' per image; a single group is in 'report'.
    """
    sizes = Counter(groups)
    images = dict.fromkeys(HALVES, 0)
    half_of = {}
    for group in sorted(sizes, key=lambda name: (_hash_fraction(name), name)):
        half_of[group] = min(HALVES, key=images.__getitem__)
        images[half_of[group]] += sizes[group]
    return [half_of[group] for group in groups]


def _hash_fraction(name: str) -> float:
    """Returns a pseudo-random number that depends only on the name, 0 or more and below 1."""
    return (
        int.from_bytes(hashlib.sha256(name.encode(errors='surrogatepass')).digest()[:6], 'big')
        / 2**48
    )


def _read_manifest(path: Path, names: set[str]) -> dict[str, Row]:
    try:
        reader = csv.DictReader(io.StringIO(read_file(path).decode('utf-8-sig'), newline=''))
        rows = [{key: value or '' for key, value in row.items() if key} for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read: {error}') from None
    if not {'id', 'split'} <= set(reader.fieldnames or ()):
        raise DataError(f'{path}: must have the columns id and split')
    by_name: dict[str, Row] = {}
    for row in rows:
        if row['id'] not in names:
            raise DataError(f'{path}: lists {row["id"]!r}, but there is no such labelled image')
        if row['id'] in by_name:
            raise DataError(f'{path}: lists {row["id"]!r} twice')
        by_name[row['id']] = row
    return by_name


def _group(name: str, rows: Mapping[str, Row], group: str) -> str:
    if not group:
        return rows.get(name, {}).get('group', '') or name
    found = re.search(group, name)
    if not found or not found[1]:
        raise DataError(f'group {group!r} does not match the image name {name!r}')
    return found[1]


def _check_disjoint(path: Path, groups: Sequence[str], splits: Sequence[str]) -> None:
    members = {
        split: {group for group, of in zip(groups, splits, strict=True) if of == split}
        for split in ('train', 'val')
    }
    both = sorted(members['train'] & members['val'])
    if both:
        raise DataError(f'{path}: has {join_first(both)} in train and in val')
