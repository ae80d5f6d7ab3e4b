# SPDX-License-Identifier: Apache-2.0
"""Export to COCO JSON (https://cocodataset.org/#format-data), with score and sizes of each rock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.image_results import write_json_lists
from rock_seg_ros.tools.results.outlines import outline
from rock_seg_ros.tools.results.results import Results

# Keys of a rock that are attributes of its annotation.
ATTRIBUTES = ('score', 'diameter', 'diameter_mm', 'long_axis_mm', 'short_axis_mm')


def write(path: Path, results: Results) -> None:
    """Writes all images, with their rocks as polygons.

    File names are relative to the folder of `path` if the image is in it or in a subfolder.

    Raises:
        OSError: The file cannot be written.
    """
    names = class_names(results)
    numbers = {name: number for number, name in enumerate(names, start=1)}
    write_json_lists(
        path,
        {
            'images': _images(path.parent, results),
            'annotations': _annotations(results, numbers),
            'categories': [{'id': number, 'name': name} for name, number in numbers.items()],
        },
    )


def class_names(results: Results) -> list[str]:
    """Returns the names of the classes that are rock, without duplicates."""
    found: dict[str, None] = {}
    for record in results.records:
        found.update(dict.fromkeys(record['made_by']['rock_classes']))
        found.update(dict.fromkeys(rock['class'] for rock in record['rocks']))
    return list(found)


def _images(folder: Path, results: Results) -> Iterator[dict[str, Any]]:
    for index, record in enumerate(results.records):
        yield {
            'id': index + 1,
            'file_name': _relative(results.file_of(index, record), folder),
            'width': record['width'],
            'height': record['height'],
        }


def _relative(file: Path, folder: Path) -> str:
    relative = os.path.relpath(file.absolute(), folder.absolute())
    return file.name if relative.startswith(os.pardir) else Path(relative).as_posix()


def _annotations(results: Results, numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    ids = count(1)
    for image_id, record in enumerate(results.records, start=1):
        for rock in record['rocks']:
            points = outline(rock['polygon'])
            attributes = {key: rock[key] for key in ATTRIBUTES if rock[key] is not None}
            yield {
                'id': next(ids),
                'image_id': image_id,
                'category_id': numbers[rock['class']],
                'segmentation': [[value for point in points for value in point]],
                'area': rock['area'],
                'bbox': rock['bbox'],
                'iscrowd': 0,
                'score': rock['score'],
                'attributes': {'rock_id': rock['id'], **attributes},
            }
