# SPDX-License-Identifier: Apache-2.0
"""The curves of a run: the table `RUN/curves.csv` with the columns step, name and value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from training.datasets import DataError
from training.writing import write_atomically

FILE_NAME = 'curves.csv'
COLUMNS = ('step', 'name', 'value')

Row = tuple[int, str, float]


def write_rows(run: Path, rows: Iterable[Row]) -> None:
    """Replaces the table.

    Raises:
        OSError: It cannot be written.
    """
    table = io.StringIO(newline='')
    csv.writer(table).writerows([COLUMNS, *rows])
    write_atomically(run / FILE_NAME, table.getvalue().encode())


def read_rows(run: Path) -> list[Row]:
    """Reads the rows of the table in order.

    Raises:
        DataError: RUN/curves.csv is missing, or does not have the columns step, name and value.
    """
    file = run / FILE_NAME
    try:
        with file.open(newline='', encoding='utf-8') as opened:
            return [(int(r['step']), r['name'], float(r['value'])) for r in csv.DictReader(opened)]
    except OSError as error:
        raise DataError(f'{file}: cannot be read: {error.strerror}') from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise DataError(f'{file}: is not a table with the columns step, name and value') from None


def read_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Reads the table as curves: name → steps and values.

    Raises:
        DataError: The table cannot be read; see `read_rows`.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for step, name, value in read_rows(run):
        steps, values = curves.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)
    return curves
