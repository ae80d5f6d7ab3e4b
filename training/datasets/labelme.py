# SPDX-License-Identifier: Apache-2.0
"""The format 'labelme': one JSON file per image (https://github.com/wkentaro/labelme)."""

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
from training.datasets.regions import Region, RegionSample, declared_size, encode_runs, polygon
from training.datasets.sample import IGNORE, DataError, Sample

AREAS = {'polygon': 3, 'rectangle': 2, 'circle': 2, 'mask': 2}  # shape → minimum of points
FOUR_POINTS = ('oriented_rectangle', 'rotation')  # labelme's, and X-AnyLabeling's
LINES = ('point', 'points', 'line', 'linestrip')
CIRCLE_POINTS = 64
MAX_SHOWN = 60  # characters of an invalid text


@dataclass(frozen=True, kw_only=True)
class EmbeddedSample(RegionSample):
    """An image that is embedded in its label file, as `imageData`."""

    def read_image(self) -> NDArray[np.uint8]:
        """Reads the image from the label file."""
        try:
            return decode_rgb(_decode(read_json(self.labels)['imageData']))
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(f'{self.labels}: imageData: {error}') from None


def find_labelme(path: Path, labels: Labels, images: Path | None = None) -> list[Sample]:
    """Lists the images of the label files in a folder; images without a label file are not used.

    Args:
        path: Folder with `NAME.json` files, or with folders of such files. `imagePath` in a file is
            relative to the file; if that image does not exist, `imageData` is used.
        labels: Labels → classes. Shapes with the same label and `group_id` are one instance.
            Points, lines and other shapes without area are skipped if their label is ignored.
        images: Folder of the images, of which only the file names in `imagePath` are used; None =
            see `path`.

    Raises:
        DataError: There is no JSON file.
    """
    files = label_files(path)
    if not files:
        raise DataError(f'{path}: must be a folder with JSON files')
    return [_sample(path, file, labels, images) for file in files]


def label_files(path: Path) -> list[Path]:
    """Returns the JSON files of a folder, or if it has none, of its subfolders."""
    return json_files(path) or [f for sub in sorted(path.glob('*/')) for f in json_files(sub)]


def is_labelme(path: Path) -> bool:
    """Returns whether a path seems to be a folder of labelme files."""
    try:
        return any('shapes' in (read_json(file) or ()) for file in label_files(path)[:1])
    except (DataError, TypeError):
        return False


def labelme_labels(path: Path) -> list[str]:
    """Returns the sorted labels of all shapes; invalid files are skipped."""
    found: set[str] = set()
    for file in label_files(path):
        with suppress(AttributeError, DataError, KeyError, TypeError):
            found.update(str(shape['label']) for shape in read_json(file)['shapes'])
    return sorted(found)


def _sample(path: Path, file: Path, labels: Labels, images: Path | None) -> RegionSample:
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
        faults.append(f'{file}: is not a labelme file; it must have imagePath and shapes')
    instance_ids: dict[Any, int] = {}
    for index, shape in shapes:
        try:
            regions += _regions(shape, f'shape {index}', instance_ids, labels)
        except DataError as error:
            faults.append(f'{file}: shape {index} {error}')
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            faults.append(f'{file}: shape {index} must have a label and points of x and y')
    kind = RegionSample if image else EmbeddedSample
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
    """Returns the image file; None if it does not exist and `imageData` is used."""
    if data.get('imageData') and not data.get('imagePath'):
        return None
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
    shape: Mapping[str, Any], name: str, instance_ids: dict[Any, int], labels: Labels
) -> list[Region]:
    """Returns the region of a shape; empty if it has no area and its label is ignored."""
    class_id, kind = labels.id_of(shape['label']), shape.get('shape_type') or 'polygon'
    points = shape['points']
    is_ignored = class_id == IGNORE
    if is_ignored and (kind in LINES or len(points) < AREAS.get(kind, 0)):
        return []
    group = shape.get('group_id')
    key = name if group is None else (shape['label'], group)
    instance_id = 0
    if labels.has_instances(class_id):
        instance_id = instance_ids.setdefault(key, len(instance_ids) + 1)
    if kind == 'mask':
        return [_mask_region(shape, name, class_id, instance_id)]
    outline = _shape_polygon(kind, points)
    if is_ignored and not np.ptp(outline, axis=0).all():
        return []
    return [Region(name, class_id, instance_id, (outline,))]


def _decode(text: Any) -> bytes:
    """Decodes base64, which may be in a data URI (RFC 2397).

    Raises:
        ValueError: The text is neither.
    """
    if not isinstance(text, str):
        raise ValueError(f'must be base64, not {text!r}'[:MAX_SHOWN])
    start, _, coded = text.partition(',')
    is_uri = start.startswith('data:') and start.endswith(';base64')
    try:
        return b64decode(''.join((coded if is_uri else text).split()), validate=True)
    except ValueError:
        raise ValueError(f'must be base64, not {text[:MAX_SHOWN]!r}') from None


def _mask_region(shape: Mapping[str, Any], name: str, class_id: int, instance_id: int) -> Region:
    """Reads a mask: an image of the box whose first and last pixels are the shape's points."""
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in shape['points'])
    try:
        inside = decode_labels(_decode(shape.get('mask') or '')) > 0
    except ValueError as error:
        raise DataError(f'has a mask that cannot be read: {error}') from None
    (height, width) = inside.shape
    box = (right - left + 1, bottom - top + 1)
    if box != (width, height):
        raise DataError(f'has a mask of {width}×{height} px in a box of {"×".join(map(str, box))}')
    size, corner = (width, height), (left, top)
    return Region(name, class_id, instance_id, runs=encode_runs(inside), size=size, corner=corner)


def _shape_polygon(kind: str, points: Sequence[Any]) -> NDArray[np.float64]:
    if kind not in (*AREAS, *FOUR_POINTS):
        raise DataError(f'is a {kind}; expected: {", ".join(AREAS)}')
    if kind not in ('rectangle', 'circle'):
        return polygon(points)
    if len(points) != 2 and not (kind == 'rectangle' and len(points) == 4):
        raise DataError(f'is a {kind} of {len(points)} points; it must have 2')
    if len(points) == 4:
        return polygon(points)
    (x0, y0), (x1, y1) = points
    if kind == 'rectangle':
        return polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    angles = [math.tau * index / CIRCLE_POINTS for index in range(CIRCLE_POINTS)]
    radius = math.hypot(x1 - x0, y1 - y0)
    return polygon([(x0 + radius * math.cos(a), y0 + radius * math.sin(a)) for a in angles])
