# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from rock_seg_ros.tools.results import table
from rock_seg_ros.tools.results.results import Results

READERS = {'.csv': pd.read_csv, '.xlsx': pd.read_excel, '.parquet': pd.read_parquet}
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize('suffix', READERS)
def test_a_table_has_a_row_for_each_rock_and_the_units_in_the_names(find_rocks, tmp_path, suffix):
    file = tmp_path / f'rocks{suffix}'
    assert find_rocks('--table', file, '--mm-per-px', 0.5) == 0
    rows = READERS[suffix](file)
    assert list(rows) == list(table.COLUMNS)
    assert rows['image'].tolist() == ['a.png', 'a.png', 'b.png', 'b.png']
    first = rows.iloc[0]
    assert (first['id'], first['class'], first['area_px']) == (1, 'rock', 200)
    box = [first[f'bbox_{name}_px'] for name in ('x', 'y', 'width', 'height')]
    assert box == [8, 4, 20, 10]
    assert not first['at_border']
    assert first['diameter_px'] == pytest.approx(15.96, abs=0.01)
    assert first['diameter_mm'] == pytest.approx(7.98, abs=0.01)
    assert first['long_axis_mm'] == pytest.approx(first['long_axis_px'] / 2, rel=1e-3)
    assert rows['time_s'].isna().all()
    assert rows['x_m'].isna().all()


def test_without_a_scale_the_sizes_in_mm_are_empty(find_rocks, tmp_path):
    assert find_rocks('--table', tmp_path / 'rocks.csv') == 0
    rows = pd.read_csv(tmp_path / 'rocks.csv')
    assert rows['diameter_mm'].isna().all()
    assert rows['diameter_px'].notna().all()


def test_a_rock_at_the_border_of_the_image_is_marked():
    record = {'width': 64, 'height': 48}
    _, at_border = table.COLUMNS['at_border']
    for box, expected in (([0, 5, 4, 4], True), ([60, 5, 4, 4], True), ([59, 43, 4, 4], False)):
        assert at_border(record, {'bbox': box}) == expected


def test_a_file_name_that_looks_like_a_formula_is_text(find_rocks, folder, tmp_path):
    (folder / 'a.png').rename(folder / '=1+1.png')
    assert find_rocks('--table', tmp_path / 'rocks.xlsx') == 0
    sheet = openpyxl.load_workbook(tmp_path / 'rocks.xlsx').active
    assert (sheet['A2'].value, sheet['A2'].data_type) == ('=1+1.png', 's')


def test_control_characters_in_a_file_name_are_replaced(find_rocks, folder, tmp_path):
    (folder / 'a.png').rename(folder / 'a\x1b[2J.png')
    assert find_rocks('--table', tmp_path / 'rocks.xlsx') == 0
    assert 'a?[2J.png' in pd.read_excel(tmp_path / 'rocks.xlsx')['image'].tolist()


def test_a_table_without_rocks_has_its_header(tmp_path):
    nothing = Results('nothing', [], [], lambda _: iter(()))
    for suffix, read in READERS.items():
        table.write(tmp_path / f'rocks{suffix}', nothing)
        assert list(read(tmp_path / f'rocks{suffix}')) == list(table.COLUMNS)


def test_too_many_rocks_for_a_worksheet_are_an_error_with_another_format(
    find_rocks, tmp_path, monkeypatch, messages
):
    monkeypatch.setattr(table, 'MAX_SHEET_ROWS', 3)
    assert find_rocks('--table', tmp_path / 'rocks.xlsx') == 1
    (line,) = messages()
    assert 'a worksheet holds at most 3 rocks, not 4; write .csv or .parquet' in line


def test_the_documentation_names_each_column():
    text = (ROOT / 'docs/results.md').read_text()
    assert [name for name in table.COLUMNS if f'`{name}`' not in text] == []
