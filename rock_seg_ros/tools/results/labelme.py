# SPDX-License-Identifier: Apache-2.0
"""Export to labelme (https://github.com/wkentaro/labelme), one JSON file per image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.image_results import write_json
from rock_seg_ros.tools.results.outlines import outline
from rock_seg_ros.tools.results.results import Record, Results

VERSION = '5.4.1'  # version of the format


def write(path: Path, results: Results) -> None:
    """Writes a file for each image into the folder `path`.

    Raises:
        OSError: A file cannot be written.
    """
    for index, record in enumerate(results.records):
        file = results.file_of(index, record)
        image = os.path.relpath(file.absolute(), path.resolve())
        write_json(path / f'{file.stem}.json', _labels(record, Path(image).as_posix()))


def _labels(record: Record, image: str) -> dict[str, Any]:
    return {
        'version': VERSION,
        'flags': {},
        'shapes': [
            {
                'label': rock['class'],
                'points': outline(rock['polygon']),
                'group_id': None,
                'description': _description(rock),
                'shape_type': 'polygon',
                'flags': {},
            }
            for rock in record['rocks']
        ],
        'imagePath': image,
        'imageData': None,
        'imageHeight': record['height'],
        'imageWidth': record['width'],
    }


def _description(rock: dict[str, Any]) -> str:
    size = rock['diameter_mm']
    return f'score {rock["score"]:.2f}' + (f', diameter {size:.4g} mm' if size else '')
