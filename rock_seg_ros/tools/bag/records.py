# SPDX-License-Identifier: Apache-2.0
"""The records of the images of a bag: a file of JSON lines in the output bag, for exports."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.pairing import NS
from rock_seg_ros.tools.image_results import encode_json, image_record, write_image
from rock_seg_ros.tools.results.exports import chosen_exports
from rock_seg_ros.tools.results.results import Record, Results, frame_name

FILE_NAME = 'rocks.jsonl'  # in the folder of the output bag


class RecordWriter:
    """Writes the records of a bag, and its images where they are to be labelled."""

    def __init__(
        self, folder: Path, name: str, made_by: Mapping[str, Any], images: Path | None
    ) -> None:
        """Creates the file.

        Args:
            folder: Folder of the output bag.
            name: Name of the input bag.
            made_by: Version, weights and settings.
            images: Folder for the images; None = they are not written.
        """
        self._file = (folder / FILE_NAME).open('wb')
        self._name = name
        self._images = images
        self._count = 0
        self._write({'bag': name, 'made_by': made_by})

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, stamp: int, analysis: Analysis) -> None:
        """Writes the record of the next image; `stamp` in ns since the epoch."""
        if self._images:
            write_image(self._images / frame_name(self._name, self._count), analysis.image)
        place = {'frame': self._count, 'time': round(stamp / NS, 6)}
        self._write({**image_record(self._name, analysis), **place})
        self._count += 1

    def _write(self, value: Any) -> None:
        self._file.write(encode_json(value) + b'\n')


class BagRecords:
    """The records of output bags, which are read each time, so that memory holds one of them."""

    def __init__(self, bags: Sequence[Path]) -> None:
        """Takes the output bags in the order of the records."""
        self._bags = bags

    def __iter__(self) -> Iterator[Record]:
        for bag in self._bags:
            with (bag / FILE_NAME).open('rb') as file:
                made_by = json.loads(next(file))['made_by']
                for line in file:
                    yield {**json.loads(line), 'made_by': made_by}


def results_of(bags: Iterable[Path], arguments: argparse.Namespace) -> tuple[Results, list[str]]:
    """Returns the results of output bags, and a line for each bag that has no records."""
    problems, usable = [], []
    for bag in filter(Path.exists, bags):
        if (bag / FILE_NAME).is_file():
            usable.append(bag)
        else:
            options = ' or '.join(f'--{name}' for name in chosen_exports(arguments))
            problems.append(f'{bag}: was made without {options}, and is not in it; process it anew')
    records = BagRecords(usable)
    folder = arguments.labelme or Path()
    files = [folder / frame_name(record['image'], record['frame']) for record in records]
    return Results(', '.join(bag.name for bag in usable), records, files, _none), problems


def _none(places: Sequence[int]) -> Iterator[None]:
    yield from [None] * len(places)
