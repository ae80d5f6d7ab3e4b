# SPDX-License-Identifier: Apache-2.0
"""Reads JSON files, with error messages of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.files import read_file
from training.datasets.sample import DataError


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: The file does not exist, cannot be read, is not a regular file, is too large, or
            is not JSON.
    """
    try:
        return json.loads(read_file(path))
    except FileNotFoundError:
        raise DataError(f'{path}: no such file') from None
    except OSError as error:
        raise DataError(str(error)) from None
    except ValueError as error:
        raise DataError(f'{path}: is not JSON: {error}') from None
    except RecursionError:
        raise DataError(f'{path}: is not JSON: nested too deeply') from None


def json_files(folder: Path) -> list[Path]:
    """Returns the JSON files of a folder, sorted, without hidden files, which macOS creates."""
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() == '.json' and not file.name.startswith('.')
    )
