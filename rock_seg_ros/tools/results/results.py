# SPDX-License-Identifier: Apache-2.0
"""The results of a run, read from its records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The records of a run, from which all other files are derived.

    Attributes:
        name: Name of the folder, video or bag.
        records: The records in their order, with `made_by`. They can be iterated several times.
        file_of: Returns the image file of a record and its index; it does not exist for a frame of
            a video or bag that is not exported.
        overlays: Returns the overlays of the records with these indices, H×W×3 uint8 RGB; None if
            an overlay does not exist.
        tables: Title → rows of other tables of the report; a row is heading → text.
    """

    name: str
    records: Iterable[Record]
    file_of: Callable[[int, Record], Path]
    overlays: Callable[[Sequence[int]], Iterator[NDArray[np.uint8] | None]]
    tables: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)


class StoredRecords:
    """Records that are read from their JSON files each time, so that memory holds one of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Takes the JSON files in the order of the records."""
        self._paths = paths

    def __iter__(self) -> Iterator[Record]:
        for path in self._paths:
            yield json.loads(path.read_bytes())


def frame_file(folder: Path | None, record: Record) -> Path:
    """Returns the image file of a frame in a folder; None = the current folder."""
    return (folder or Path()) / frame_name(record['image'], record['frame'])


def frame_name(name: str, number: int) -> str:
    """Returns the name of the image file of a frame of a video or bag; `number` from 0.

    It keeps the suffix, so that the bags `run.1` and `run.2` may share a folder.
    """
    return f'{Path(name).name}_{number:06d}.jpg'
