# SPDX-License-Identifier: Apache-2.0
"""All exports: equal for equal records, and errors before any image is processed."""

from __future__ import annotations

import builtins
import errno
import os
import sys

import pytest

from rock_seg_ros.tools.results import exports, report, table

ALL = ('--table', 'rocks.xlsx', '--coco', 'coco.json', '--labelme', 'labels', '--supervision',
       'detections.json', '--report', 'report.html')  # fmt: skip


def all_exports(folder):
    """Returns the options of all exports to a folder."""
    return [part if part.startswith('--') else folder / part for part in ALL]


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_exports_of_the_same_records_are_byte_for_byte_equal(find_rocks, tmp_path):
    assert find_rocks(*all_exports(tmp_path / 'one')) == 0
    assert find_rocks(*all_exports(tmp_path / 'two')) == 0
    one, two = contents(tmp_path / 'one'), contents(tmp_path / 'two')
    assert len(one) == 7
    assert [name for name in one if one[name] != two[name]] == []


def test_exports_of_a_resumed_run_are_byte_for_byte_equal(find_rocks, tmp_path):
    assert find_rocks(*all_exports(tmp_path / 'one')) == 0
    for left in ('b.json', 'empty.json'):
        (tmp_path / 'out' / left).unlink()
    assert find_rocks('--resume', *all_exports(tmp_path / 'two')) == 0
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def test_an_existing_export_is_rejected_before_any_image_is_processed(
    find_rocks, tmp_path, messages
):
    (tmp_path / 'rocks.csv').write_text('mine')
    assert find_rocks('--table', tmp_path / 'rocks.csv') == 2
    file = tmp_path / 'rocks.csv'
    assert messages() == [f'--table {file}: {file} exists; --overwrite replaces it']
    assert not (tmp_path / 'out').exists()
    assert (tmp_path / 'rocks.csv').read_text() == 'mine'
    assert find_rocks('--table', tmp_path / 'rocks.csv', '--overwrite') == 0
    assert (tmp_path / 'rocks.csv').read_text().startswith('image,')


def test_an_existing_label_file_is_not_overwritten(find_rocks, tmp_path, messages):
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'labels/b.json').write_text('corrected')
    assert find_rocks('--labelme', tmp_path / 'labels') == 2
    (line,) = messages()
    assert f'{tmp_path}/labels/b.json exists' in line
    assert (tmp_path / 'labels/b.json').read_text() == 'corrected'


@pytest.mark.parametrize(
    ('option', 'name', 'legal'),
    [('--table', 'rocks.ods', '.csv, .xlsx or .parquet'), ('--report', 'r.pdf', '.html')],
)
def test_an_unknown_suffix_is_rejected_with_the_known_ones(
    find_rocks, tmp_path, messages, option, name, legal
):
    assert find_rocks(option, tmp_path / name) == 2
    assert messages() == [f'{option} {tmp_path / name}: the name must end in {legal}']


def test_two_outputs_with_the_same_name_are_rejected(find_rocks, tmp_path, messages):
    same = tmp_path / 'same.json'
    assert find_rocks('--coco', same, '--supervision', same) == 2
    assert messages() == [f'--supervision {same}: {same} is another output of this command']
    assert find_rocks('--labelme', tmp_path / 'out') == 2
    assert 'a.json is another output of this command' in messages()[0]
    assert find_rocks('--coco', tmp_path / 'out/b.json') == 2


def test_a_folder_without_write_permission_is_an_error_before_any_image_is_processed(
    find_rocks, tmp_path, messages, monkeypatch
):
    monkeypatch.setattr(exports.os, 'access', lambda *_: False)
    assert find_rocks('--table', tmp_path / 'new/rocks.csv') == 1
    assert messages() == [f'{tmp_path}: Permission denied']
    assert not (tmp_path / 'out').exists()


def test_a_file_instead_of_a_folder_is_an_error_with_its_name(find_rocks, folder, messages):
    assert find_rocks('--table', folder / 'a.png/rocks.csv') == 1
    assert messages() == [f'{folder}/a.png: Not a directory']


def test_a_missing_package_is_an_error_before_any_image_is_processed(
    find_rocks, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, 'openpyxl', None)
    assert find_rocks('--table', tmp_path / 'rocks.xlsx') == 1
    assert 'missing dependency: openpyxl' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_failed_export_does_not_affect_other_exports_and_results(
    find_rocks, tmp_path, messages, monkeypatch
):
    def full(path, write):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(table, 'atomic_write', full)
    file = tmp_path / 'rocks.csv'
    assert find_rocks('--table', file, '--report', tmp_path / 'report.html') == 1
    assert messages() == [
        f'--table {file}: No space left on device; the results of the images are complete'
    ]
    assert not file.exists()
    assert (tmp_path / 'report.html').exists()
    assert (tmp_path / 'out/a.json').exists()


def test_an_image_that_failed_is_not_exported_from_an_old_record(find_rocks, folder, tmp_path):
    assert find_rocks() == 0
    (folder / 'a.png').write_bytes(b'no image')
    assert find_rocks('--table', tmp_path / 'rocks.csv') == 1
    names = {line.split(',')[0] for line in (tmp_path / 'rocks.csv').read_text().splitlines()}
    assert names == {'image', 'b.png'}


def test_without_exports_their_packages_are_not_imported(find_rocks, monkeypatch):
    real = builtins.__import__
    for name in ('pandas', report.__name__):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def check(name, *rest):
        assert name not in ('pandas', 'matplotlib.figure')
        return real(name, *rest)

    monkeypatch.setattr(builtins, '__import__', check)
    assert find_rocks() == 0
