# SPDX-License-Identifier: Apache-2.0
"""labelme's JSON, one file a picture (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.sources.json_file import read_json
from training.sources.labels import Labels
from training.sources.outlines import OutlinedSample, Region, polygon
from training.sources.sample import DataError, Sample

SHAPES = ('polygon', 'rectangle', 'circle')
CIRCLE_POINTS = 64


def find_labelme(path: Path, labels: Labels) -> list[Sample]:
    """Finds the label files of a folder; pictures without one are left out.

    Args:
        path: Holds `NAME.json`, or folders that do; `imagePath` in a file is relative to it.
        labels: Labels → classes. Shapes of one label and `group_id` are one thing.

    Raises:
        DataError: There is no JSON file.
    """
    files = label_files(path)
    if not files:
        raise DataError(f'{path}: no folder with JSON files in it')
    return [_sample(path, file, labels) for file in files]


def label_files(path: Path) -> list[Path]:
    """Returns the JSON files of a folder, or, if it has none, of the folders in it."""
    return sorted(path.glob('*.json')) or sorted(path.glob('*/*.json'))


def is_labelme(path: Path) -> bool:
    """Whether a path looks like a folder of labelme files."""
    try:
        return any('shapes' in (read_json(file) or ()) for file in label_files(path)[:1])
    except (DataError, TypeError):
        return False


def labelme_labels(path: Path) -> list[str]:
    """Returns the labels of the files' shapes, sorted; files that are broken are passed over."""
    found: set[str] = set()
    for file in label_files(path):
        with suppress(AttributeError, DataError, KeyError, TypeError):
            found.update(str(shape['label']) for shape in read_json(file)['shapes'])
    return sorted(found)


def _sample(path: Path, file: Path, labels: Labels) -> OutlinedSample:
    picture, size, regions, faults = file, None, [], []
    try:
        data = read_json(file)
        picture = file.parent / data['imagePath'].replace('\\', '/')
        told = (data.get('imageWidth'), data.get('imageHeight'))
        size = None if None in told else told
        shapes = enumerate(data['shapes'], start=1)
    except DataError as error:
        faults.append(str(error))
        shapes = enumerate(())
    except (AttributeError, KeyError, TypeError):
        faults.append(f'{file}: is no labelme file; it needs imagePath and shapes')
        shapes = enumerate(())
    numbers: dict[Any, int] = {}
    for place, shape in shapes:
        try:
            regions.append(_region(shape, f'shape {place}', numbers, labels))
        except DataError as error:
            faults.append(f'{file}: shape {place} {error}')
        except (AttributeError, KeyError, TypeError, ValueError):
            faults.append(f'{file}: shape {place} needs a label and points of x and y')
    return OutlinedSample(
        source=str(path),
        name='_'.join(file.relative_to(path).with_suffix('').parts),
        picture=picture,
        faults=tuple(faults),
        labels=file,
        unlabelled=labels.class_id(labels.unlabelled),
        size=size,
        regions=tuple(regions),
    )


def _region(shape: Mapping[str, Any], what: str, numbers: dict[Any, int], labels: Labels) -> Region:
    class_id = labels.id_of(shape['label'])
    group = shape.get('group_id')
    key = what if group is None else (shape['label'], group)
    number = numbers.setdefault(key, len(numbers) + 1) if labels.is_numbered(class_id) else 0
    return Region(what, class_id, number, (_outline(shape),))


def _outline(shape: Mapping[str, Any]) -> NDArray[np.float64]:
    kind, points = shape.get('shape_type') or 'polygon', shape['points']
    if kind not in SHAPES:
        raise DataError(f'is a {kind}; legal is {", ".join(SHAPES)}')
    if kind == 'polygon':
        return polygon(points)
    if len(points) != 2 and not (kind == 'rectangle' and len(points) == 4):
        raise DataError(f'is a {kind} of {len(points)} points; it has 2')
    if len(points) == 4:
        return polygon(points)
    (x0, y0), (x1, y1) = points
    if kind == 'rectangle':
        return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    angles = [math.tau * place / CIRCLE_POINTS for place in range(CIRCLE_POINTS)]
    radius = math.hypot(x1 - x0, y1 - y0)
    return polygon([(x0 + radius * math.cos(a), y0 + radius * math.sin(a)) for a in angles])
