# SPDX-License-Identifier: Apache-2.0
"""Export to JSON with the fields of `supervision.Detections`, one object per image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.image_results import write_json_lists
from rock_seg_ros.tools.results.results import Record, Results

ABOUT = ('image', 'frame', 'time', 'width', 'height')


def write(path: Path, results: Results) -> None:
    """Writes the rocks of all images; images without rocks have empty lists.

    Raises:
        OSError: The file cannot be written.
    """
    write_json_lists(path, {'images': _images(results)})


def _images(results: Results) -> Iterator[dict[str, Any]]:
    for record in results.records:
        about = {key: record[key] for key in ABOUT if key in record}
        yield {**about, **_fields(record)}


def _fields(record: Record) -> dict[str, Any]:
    rocks, classes = record['rocks'], record['made_by']['classes']
    return {
        'xyxy': [[x, y, x + width, y + height] for x, y, width, height in _column(rocks, 'bbox')],
        'confidence': _column(rocks, 'score'),
        'class_id': [classes.index(name) for name in _column(rocks, 'class')],
        'tracker_id': _column(rocks, 'id'),
        'polygon': _column(rocks, 'polygon'),
        'data': {
            'class_name': _column(rocks, 'class'),
            'diameter_mm': _column(rocks, 'diameter_mm'),
        },
    }


def _column(rocks: list[dict[str, Any]], key: str) -> list[Any]:
    return [rock[key] for rock in rocks]
