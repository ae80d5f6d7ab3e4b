# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from training.curves import read_curves, read_rows, write_rows
from training.datasets import DataError

ROWS = [(1, 'loss', 0.1 + 0.2), (1, 'val_iou', 0.2), (2, 'loss', 1e-9)]


def test_curves_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS)
    assert read_rows(tmp_path) == ROWS
    assert read_curves(tmp_path) == {'loss': ([1, 2], [0.1 + 0.2, 1e-9]), 'val_iou': ([1], [0.2])}


@pytest.mark.parametrize('content', ['a,b\n1,2\n', 'step,name,value\n1,loss\n', '\xff'])
def test_an_invalid_table_is_reported(content: str, tmp_path: Path) -> None:
    (tmp_path / 'curves.csv').write_text(content + '1,2,3', 'latin-1')
    with pytest.raises(DataError, match=r'curves\.csv: is not a table'):
        read_rows(tmp_path)


def test_a_missing_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'curves\.csv: cannot be read: No such file'):
        read_rows(tmp_path)
