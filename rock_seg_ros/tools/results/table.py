# SPDX-License-Identifier: Apache-2.0
"""Export of all rocks to a table: `.csv`, `.xlsx` or `.parquet`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from rock_seg_ros.perception.errors import visible
from rock_seg_ros.perception.writing import atomic_write
from rock_seg_ros.tools.results.results import Record, Results

SHEET = 'rocks'
MAX_SHEET_ROWS = 1_048_575  # maximum of a worksheet, without the header
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a ZIP file
TIMES = re.compile(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ')

Cell = Callable[[Record, dict[str, Any]], Any]


def _rock(key: str) -> Cell:
    return lambda _, rock: rock[key]


def _is_at_border(record: Record, box: list[int]) -> bool:
    """Returns whether a rock touches the border of its image, so that it may be incomplete."""
    x, y, width, height = box
    return x <= 0 or y <= 0 or x + width >= record['width'] or y + height >= record['height']


def _item(key: str, index: int) -> Cell:
    return lambda _, rock: rock[key][index]


# Name of a column → its type in pandas and its value.
COLUMNS: dict[str, tuple[str, Cell]] = {
    'image': ('string', lambda record, _: visible(record['image'])),
    'frame': ('Int64', lambda record, _: record.get('frame')),
    'time_s': ('Float64', lambda record, _: record.get('time')),
    'id': ('Int64', _rock('id')),
    'class': ('string', lambda _, rock: visible(rock['class'])),
    'score': ('Float64', _rock('score')),
    'area_px': ('Int64', _rock('area')),
    'bbox_x_px': ('Int64', _item('bbox', 0)),
    'bbox_y_px': ('Int64', _item('bbox', 1)),
    'bbox_width_px': ('Int64', _item('bbox', 2)),
    'bbox_height_px': ('Int64', _item('bbox', 3)),
    'at_border': ('boolean', lambda record, rock: _is_at_border(record, rock['bbox'])),
    'diameter_px': ('Float64', _rock('diameter')),
    'long_axis_px': ('Float64', _rock('long_axis')),
    'short_axis_px': ('Float64', _rock('short_axis')),
    'orientation_deg': ('Float64', _rock('orientation')),
    'perimeter_px': ('Float64', _rock('perimeter')),
    'circularity': ('Float64', _rock('circularity')),
    'diameter_mm': ('Float64', _rock('diameter_mm')),
    'long_axis_mm': ('Float64', _rock('long_axis_mm')),
    'short_axis_mm': ('Float64', _rock('short_axis_mm')),
    'x_m': ('Float64', _item('position', 0)),
    'y_m': ('Float64', _item('position', 1)),
    'z_m': ('Float64', _item('position', 2)),
    'distance_m': ('Float64', _rock('distance')),
}


def write(path: Path, results: Results) -> None:
    """Writes the table atomically. Equal records give equal bytes.

    Raises:
        ValueError: There are more rocks than a worksheet has rows.
        OSError: The file cannot be written.
    """
    frame = table(results)
    suffix = path.suffix.lower()
    if suffix == '.xlsx' and len(frame) > MAX_SHEET_ROWS:
        raise ValueError(
            f'a worksheet holds at most {MAX_SHEET_ROWS} rocks, not {len(frame)};'
            ' write .csv or .parquet'
        )
    writers: dict[str, Callable[[pd.DataFrame, Path], object]] = {
        '.csv': lambda table, file: table.to_csv(file, index=False, lineterminator='\n'),
        '.xlsx': _write_workbook,
        '.parquet': lambda table, file: table.to_parquet(file, index=False),
    }
    atomic_write(path, lambda temporary: writers[suffix](frame, temporary))


def table(results: Results) -> pd.DataFrame:
    """Returns one row per rock, in the order of the records and of the rocks in them."""
    rows = list(_rows(results))
    columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    return pd.DataFrame(
        {
            name: pd.array(list(values), dtype=kind)
            for (name, (kind, _)), values in zip(COLUMNS.items(), columns, strict=True)
        }
    )


def _rows(results: Results) -> Iterator[tuple[Any, ...]]:
    for record in results.records:
        for rock in record['rocks']:
            yield tuple(cell(record, rock) for _, cell in COLUMNS.values())


def _write_workbook(frame: pd.DataFrame, path: Path) -> None:
    with pd.ExcelWriter(path, engine='openpyxl') as writer:
        frame.to_excel(writer, sheet_name=SHEET, index=False, freeze_panes=(1, 0))
        for column in writer.sheets[SHEET].iter_cols(min_row=2):
            for cell in column:
                if cell.data_type == 'f':  # a name that begins with = is not a formula
                    cell.data_type = 's'
    _remove_times(path)


def _remove_times(path: Path) -> None:
    """Replaces the times in a workbook, so that equal tables give equal files."""
    with zipfile.ZipFile(path) as archive:
        parts = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts:
            if name == 'docProps/core.xml':
                content = TIMES.sub(b'1980-01-01T00:00:00Z', content)
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
