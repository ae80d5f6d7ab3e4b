# SPDX-License-Identifier: Apache-2.0
"""Collecting photographs without rocks, from a small Debian package that the tests build."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.collect import COLUMNS, MANIFEST, main, read_manifest
from training.datasets import IGNORE, DataError, DatasetConfig, find_samples

needs_dpkg = pytest.mark.skipif(
    shutil.which('dpkg-deb') is None, reason='dpkg-deb is not installed, so no package can be built'
)
GREEN = (40, 160, 60)  # RGB
Rows = Callable[..., Path]


@pytest.fixture(scope='module')
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds meadows_1.0_all.deb with wide.png, 1280×960, and cut.png, 40×30, half transparent."""
    root = tmp_path_factory.mktemp('deb') / 'tree'
    (root / 'DEBIAN').mkdir(parents=True)
    (root / 'DEBIAN/control').write_text(
        'Package: meadows\nVersion: 1.0\nArchitecture: all\n'
        'Maintainer: Nobody <nobody@example.org>\nDescription: Meadows\n'
    )
    images = root / 'usr/share/meadows'
    images.mkdir(parents=True)
    cv2.imwrite(str(images / 'wide.png'), np.full((960, 1280, 3), GREEN[::-1], np.uint8))
    cut = np.zeros((30, 40, 4), np.uint8)
    cut[:, :20] = (*GREEN[::-1], 255)
    cv2.imwrite(str(images / 'cut.png'), cut)
    (images / 'text.png').write_text('no image')
    path = root.with_name('meadows_1.0_all.deb')
    build = ['dpkg-deb', '--root-owner-group', '--build', str(root), str(path)]
    subprocess.run(build, check=True, capture_output=True)
    return path


@pytest.fixture
def packages(deb: Path, tmp_path: Path) -> Path:
    folder = tmp_path / 'packages'
    folder.mkdir()
    shutil.copy(deb, folder)
    return folder


@pytest.fixture
def manifest(tmp_path: Path, deb: Path) -> Rows:
    """Returns a function that writes a manifest; each row overrides values of wide.png."""

    def _write(*rows: dict[str, str]) -> Path:
        path = tmp_path / 'photographs.csv'
        with path.open('w', newline='') as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            for row in rows or ({},):
                name = row.get('path', 'wide.png')
                source = deb.with_name('tree') / 'usr/share/meadows' / name
                data = source.read_bytes() if source.exists() else b''
                usual = {'id': Path(name).stem, 'split': 'val', 'package': 'meadows'}
                usual |= {'version': '1.0', 'sha256': hashlib.sha256(data).hexdigest()[:32]}
                table.writerow({**usual, **row, 'path': f'usr/share/meadows/{name}'})
        return path

    return _write


@pytest.fixture
def collect(tmp_path: Path, packages: Path) -> Callable[[Path], int]:
    def _collect(manifest: Path) -> int:
        out = ['-o', str(tmp_path / 'out')]
        return main([*out, '--manifest', str(manifest), '--packages', str(packages)])

    return _collect


def apt_get(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Replaces apt-get by a script."""
    folder.mkdir()
    path = folder / 'apt-get'
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')


def only(tools: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes only the named programs available."""
    tools.mkdir()
    for name in names:
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv('PATH', str(tools))


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Returns the error messages, without the progress bar."""
    lines = capsys.readouterr().err.replace('\r', '\n').split('\n')
    return [line for line in lines if line.startswith('training.collect: ')]


@needs_dpkg
def test_photographs_are_written_with_ignored_regions_splits_and_groups(
    manifest: Rows, collect: Callable[[Path], int], tmp_path: Path
) -> None:
    rows = manifest(
        {'split': 'train', 'group': 'hill', 'ignore': '0 0 0.5 1;0.75 0.5 1 0.5 1 1'},
        {'path': 'cut.png'},
    )
    assert collect(rows) == 0
    source = DatasetConfig(
        str(tmp_path / 'out'), 'masks', class_map={'0': 'background', '128': 'ignore'}
    )
    cut, wide = find_samples(source, 'all', ('background', 'rock'))
    assert (wide.name, wide.split, wide.group) == ('wide', 'train', 'hill')
    assert (cut.name, cut.split, cut.group) == ('cut', 'val', 'cut')
    labelled = wide.read()
    assert labelled.image.shape == (480, 640, 3)
    assert np.abs(labelled.image[100, 100].astype(int) - GREEN).max() <= 3
    assert (labelled.classes[:, :320] == IGNORE).all()
    assert (labelled.classes[:200, 330:] == 0).all()
    assert labelled.classes[300, 630] == IGNORE
    assert cut.read().image.shape == (30, 40, 3)  # never enlarged


@needs_dpkg
def test_transparent_pixels_get_the_fill_colour(
    manifest: Rows, collect: Callable[[Path], int], tmp_path: Path
) -> None:
    assert collect(manifest({'path': 'cut.png', 'fill': '#0a64f0'})) == 0
    image = cv2.imread(str(tmp_path / 'out/images/cut.jpg'))[..., ::-1].astype(int)
    assert np.abs(image[15, 5] - GREEN).max() <= 6
    assert np.abs(image[15, 35] - (10, 100, 240)).max() <= 6


@needs_dpkg
def test_packages_are_downloaded_with_apt_get_and_not_kept(
    manifest: Rows, deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / 'log'
    apt_get(tmp_path / 'bin', monkeypatch, f'echo "$@" >> {log}; cp {deb} .')
    assert main(['-o', str(tmp_path / 'out'), '--manifest', str(manifest())]) == 0
    assert log.read_text().split() == ['download', '--quiet', 'meadows']
    left = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert left == ['images', 'manifest.csv', 'masks']


@needs_dpkg
def test_a_missing_package_is_reported_in_one_line_and_the_others_are_used(
    manifest: Rows,
    collect: Callable[[Path], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apt_get(tmp_path / 'bin', monkeypatch, 'exit 100')
    gone = [{'id': name, 'package': 'gone'} for name in ('lake', 'sea')]
    assert collect(manifest(*gone, {})) == 0
    (line,) = errors(capsys)
    assert 'the package gone cannot be downloaded; run apt-get update' in line
    assert line.endswith('; skipped: lake, sea')
    assert [path.stem for path in (tmp_path / 'out/images').iterdir()] == ['wide']


@needs_dpkg
@pytest.mark.parametrize(
    ('row', 'reason'),
    [
        (
            {'path': 'old.png'},
            'meadows has no usr/share/meadows/old.png; version 1.0 had it',
        ),
        (
            {'path': 'cut.png', 'sha256': '0' * 32},
            'cut.png has changed since version 1.0: its SHA-256 differs',
        ),
        ({'path': 'text.png'}, 'text.png: does not decode'),
        ({'id': 'filled', 'fill': '#ffffff'}, 'wide.png: has no 8-bit alpha channel'),
    ],
)
def test_missing_and_changed_images_are_reported_and_skipped(
    row: dict[str, str],
    reason: str,
    manifest: Rows,
    collect: Callable[[Path], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert collect(manifest(row, {})) == 0
    (line,) = errors(capsys)
    name = row.get('id', Path(row.get('path', '')).stem)
    assert line.startswith(f'training.collect: {name}: ')
    assert reason in line
    assert [path.stem for path in (tmp_path / 'out/images').iterdir()] == ['wide']


@needs_dpkg
def test_an_invalid_package_is_reported(
    manifest: Rows,
    collect: Callable[[Path], int],
    packages: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (packages / 'broken_2_all.deb').write_bytes(b'!<arch>\n')
    assert collect(manifest({'id': 'lake', 'package': 'broken'}, {})) == 0
    (line,) = errors(capsys)
    assert 'broken_2_all.deb is not a readable Debian package; skipped: lake' in line


@needs_dpkg
def test_a_missing_apt_get_is_reported_in_one_line(
    manifest: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(tmp_path / 'bin', monkeypatch, 'dpkg-deb')
    assert main(['-o', str(tmp_path / 'out'), '--manifest', str(manifest())]) == 1
    (line,) = errors(capsys)
    assert (
        line == 'training.collect: apt-get is missing; on Debian and Ubuntu, the package apt has it'
    )
    assert not list(tmp_path.glob('out*'))


@needs_dpkg
def test_a_missing_dpkg_deb_is_reported_in_one_line(
    manifest: Rows,
    collect: Callable[[Path], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only(tmp_path / 'bin', monkeypatch)
    assert collect(manifest()) == 1
    assert errors(capsys) == [
        'training.collect: dpkg-deb is missing; on Debian and Ubuntu, the package dpkg has it'
    ]


@needs_dpkg
def test_no_folder_is_written_if_no_image_could_be_collected(
    manifest: Rows,
    collect: Callable[[Path], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert collect(manifest({'path': 'old.png'})) == 1
    (line,) = errors(capsys)
    assert line.startswith('training.collect: no image could be collected; the first reason: old: ')
    assert not list(tmp_path.glob('out*'))


@needs_dpkg
def test_a_folder_that_is_not_empty_is_not_changed(
    manifest: Rows,
    collect: Callable[[Path], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine').touch()
    assert collect(manifest()) == 1
    assert 'is not empty' in errors(capsys)[0]


@needs_dpkg
@pytest.mark.parametrize(
    ('rows', 'reason'),
    [
        ([{'id': 'a/b'}], "line 2: id is 'a/b'"),
        ([{'split': 'test'}], "line 2: split is 'test'; it must match train|val"),
        ([{'sha256': 'abc'}], "line 2: sha256 is 'abc'"),
        ([{'fill': 'white'}], "line 2: fill is 'white'"),
        ([{'package': '--help'}], "line 2: package is '--help'"),
        ([{'ignore': '0 0 2 1'}], "line 2: ignore is '0 0 2 1'"),
        ([{'ignore': '0 0 1'}], "line 2: ignore is '0 0 1'"),
        ([{'ignore': 'sky'}], "line 2: ignore is 'sky'"),
        ([{}, {}], "line 3: the id 'wide' is listed twice"),
        (
            [{'group': 'hill'}, {'id': 'b', 'group': 'hill', 'split': 'train'}],
            "line 3: the group 'hill' is in train and in val",
        ),
    ],
)
def test_an_invalid_row_of_the_manifest_is_reported(
    rows: list[dict[str, str]], reason: str, manifest: Rows
) -> None:
    with pytest.raises(DataError) as error:
        read_manifest(manifest(*rows))
    assert reason in str(error.value)


def test_a_missing_manifest_and_a_missing_column_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'photographs.csv'
    assert main(['-o', str(tmp_path / 'out'), '--manifest', str(path)]) == 1
    assert f'{path}: cannot be read' in errors(capsys)[0]
    path.write_text('id,split\n')
    assert main(['-o', str(tmp_path / 'out'), '--manifest', str(path)]) == 1
    assert f'{path}: the column group is missing' in errors(capsys)[0]


def test_the_manifest_of_the_project_is_valid_and_large_enough() -> None:
    photographs = read_manifest(MANIFEST)
    splits = [photograph.split for photograph in photographs]
    assert splits.count('val') >= 60
    assert splits.count('train') >= 150
    assert all(p.licence and p.version and p.tags for p in photographs)
    assert '://' not in MANIFEST.read_text()
