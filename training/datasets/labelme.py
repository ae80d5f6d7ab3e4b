# SPDX-License-Identifier: Apache-2.0
"""labelme's JSON, one file an image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import ImageError, decode_labels, decode_rgb
from training.datasets.image_folders import ImageFolders
from training.datasets.json_file import json_files, read_json
from training.datasets.labels import Labels
from training.datasets.outlines import OutlinedSample, Region, declared_size, polygon, run_lengths
from training.datasets.sample import IGNORE, DataError, Sample

AREAS = ('polygon', 'rectangle', 'circle', 'mask')
FOUR_POINTS = ('oriented_rectangle', 'rotation')  # labelme's, and X-AnyLabeling's
LINES = ('point', 'points', 'line', 'linestrip')
CIRCLE_POINTS = 64


@dataclass(frozen=True, kw_only=True)
class EmbeddedSample(OutlinedSample):
    """An image that lies in its label file, as `imageData`."""

    def read_image(self) -> NDArray[np.uint8]:
        """Reads it out of the label file."""
        try:
            return decode_rgb(b64decode(read_json(self.labels)['imageData']))
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f'{self.labels}: imageData: {error}') from None


def find_labelme(path: Path, labels: Labels, images: Path | None = None) -> list[Sample]:
    """Finds the label files of a folder; images without one are left out.

    Args:
        path: Holds `NAME.json`, or folders that do; `imagePath` in a file is relative to it, and
            where it leads to none, `imageData` is the image.
        labels: Labels → classes. Shapes of one label and `group_id` are one thing; points and
            lines are passed over if their label is ignored.
        images: Folder with images of the names that `imagePath` ends with; None: see `path`.

    Raises:
        DataError: There is no JSON file.
    """
    files = label_files(path)
    if not files:
        raise DataError(f'{path}: no folder with JSON files in it')
    return [_sample(path, file, labels, images) for file in files]


def label_files(path: Path) -> list[Path]:
    """Returns the JSON files of a folder, or, if it has none, of the folders in it."""
    return json_files(path) or [f for inner in sorted(path.glob('*/')) for f in json_files(inner)]


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


def _sample(path: Path, file: Path, labels: Labels, images: Path | None) -> OutlinedSample:
    image: Path | None = file
    size = None
    regions: list[Region] = []
    faults: list[str] = []
    shapes: Iterable[tuple[int, Any]] = ()
    try:
        data = read_json(file)
        shapes = enumerate(data['shapes'], start=1)
        try:
            size = declared_size(data.get('imageWidth'), data.get('imageHeight'))
            image = _image(path, file, data, images)
        except DataError as error:
            raise DataError(f'{file}: {error}') from None
    except DataError as error:
        faults.append(str(error))
    except (AttributeError, KeyError, TypeError):
        faults.append(f'{file}: is no labelme file; it needs imagePath and shapes')
    numbers: dict[Any, int] = {}
    for place, shape in shapes:
        try:
            regions += _regions(shape, f'shape {place}', numbers, labels)
        except DataError as error:
            faults.append(f'{file}: shape {place} {error}')
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            faults.append(f'{file}: shape {place} needs a label and points of x and y')
    kind = OutlinedSample if image else EmbeddedSample
    return kind(
        source=str(path),
        name='_'.join(file.relative_to(path).with_suffix('').parts),
        image=image or file,
        faults=tuple(faults),
        labels=file,
        unlabelled=labels.class_id(labels.unlabelled),
        size=size,
        regions=tuple(regions),
    )


def _image(path: Path, file: Path, data: Mapping[str, Any], images: Path | None) -> Path | None:
    """Returns the image file; None if there is none, but `imageData`."""
    name = data['imagePath'].replace('\\', '/')
    try:
        if images is None:
            return ImageFolders(path, [file.parent]).find(name)
        return ImageFolders(images, [images]).find(name.rpartition('/')[2])
    except DataError as error:
        if data.get('imageData'):
            return None
        raise DataError(f'imagePath: {error}') from None


def _regions(
    shape: Mapping[str, Any], what: str, numbers: dict[Any, int], labels: Labels
) -> list[Region]:
    """Returns the region of a shape; none of a line whose label is ignored."""
    class_id, kind = labels.id_of(shape['label']), shape.get('shape_type') or 'polygon'
    if kind in LINES and class_id == IGNORE:
        return []
    group = shape.get('group_id')
    key = what if group is None else (shape['label'], group)
    number = numbers.setdefault(key, len(numbers) + 1) if labels.is_numbered(class_id) else 0
    if kind == 'mask':
        return [_masked(shape, what, class_id, number)]
    return [Region(what, class_id, number, (_outline(kind, shape['points']),))]


def _masked(shape: Mapping[str, Any], what: str, class_id: int, number: int) -> Region:
    """Reads a mask: an image of the box whose first and last pixel are the shape's points."""
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in shape['points'])
    try:
        inside = decode_labels(b64decode(shape.get('mask') or '')) > 0
    except ValueError as error:
        raise DataError(f'has a mask that cannot be read: {error}') from None
    told, (height, width) = (right - left + 1, bottom - top + 1), inside.shape
    if told != (width, height):
        raise DataError(f'has a mask of {width}×{height} px in a box of {"×".join(map(str, told))}')
    if not inside.any():
        raise DataError('has no area')
    size, corner = (width, height), (left, top)
    return Region(what, class_id, number, runs=run_lengths(inside), size=size, corner=corner)


def _outline(kind: str, points: Sequence[Any]) -> NDArray[np.float64]:
    if kind not in (*AREAS, *FOUR_POINTS):
        raise DataError(f'is a {kind}; legal is {", ".join(AREAS)}')
    if kind not in ('rectangle', 'circle'):
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
