# SPDX-License-Identifier: Apache-2.0
"""A file with the records of the frames of a video or bag; only one of them is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.tools.image_results import encode_json, write_image
from rock_seg_ros.tools.results.recorder import Recorder, scale_problem
from rock_seg_ros.tools.results.results import Record, frame_name


class RecordWriter:
    """Writes the records of a video or bag, and its images where they are to be labelled.

    Attributes:
        count: Number of records.
        without_scale: Number of those that have no scale although one was asked for.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        recorder: Recorder,
        images: Path | None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Creates the file.

        Args:
            path: The file.
            name: Name of the video or bag.
            recorder: Makes the records.
            images: Folder for the images; None = they are not written.
            about: Other values of the first line, which has `made_by`.
        """
        self.count = self.without_scale = 0
        self._file = path.open('wb')
        self._name = name
        self._recorder = recorder
        self._images = images
        self._first_problem = ''
        self._write({**(about or {}), 'made_by': recorder.made_by})

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, analysis: Analysis, **more: Any) -> None:
        """Writes the record of the next image, with its number as `frame` and `more` values."""
        if self._images:
            write_image(self._images / frame_name(self._name, self.count), analysis.image)
        record = self._recorder.record(self._name, analysis)
        self._write({**record, 'frame': self.count, **more})
        self.count += 1
        if problem := scale_problem(record):
            self.without_scale += 1
            self._first_problem = self._first_problem or problem

    def finish(self, **summary: Any) -> None:
        """Writes the last line: what is known at the end; see `summary_of`."""
        self._write({'summary': {'records': self.count, **summary}})

    def scale_line(self, unit: str) -> str:
        """Returns a line about the images without a scale, '' if there are none.

        Args:
            unit: The word for several images, such as 'frames'.
        """
        if not self.without_scale:
            return ''
        number = f'{self.without_scale} of {self.count} {unit}'
        return f'{number} have no scale; the first one: {self._first_problem}'

    def _write(self, value: Any) -> None:
        self._file.write(encode_json(value) + b'\n')


class RecordFiles:
    """The records in files of `RecordWriter`, which are read each time they are iterated."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Takes the files in the order of the records."""
        self._paths = paths

    def plain(self) -> Iterator[Record]:
        """Yields the records without `made_by`, which is the same for all of a file."""
        for record in self:
            del record['made_by']
            yield record

    def __iter__(self) -> Iterator[Record]:
        for path in self._paths:
            with path.open('rb') as file:
                made_by = json.loads(next(file))['made_by']
                for line in file:
                    if 'image' in (record := json.loads(line)):
                        yield {**record, 'made_by': made_by}


def summary_of(path: Path) -> dict[str, Any]:
    """Returns the first line of a file of `RecordWriter` and, beside it, its summary."""
    with path.open('rb') as file:
        first = last = next(file)
        for line in file:
            last = line
    return {**json.loads(first), **json.loads(last).get('summary', {})}
