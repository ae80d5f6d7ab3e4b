# SPDX-License-Identifier: Apache-2.0
"""JSON files, with errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.sources.sample import DataError


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: The file is missing, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f'{path}: no such file') from None
    except OSError as error:
        raise DataError(str(error)) from None
    except ValueError as error:
        raise DataError(f'{path}: is no JSON: {error}') from None
    except RecursionError:
        raise DataError(f'{path}: is no JSON: nested too deep') from None
