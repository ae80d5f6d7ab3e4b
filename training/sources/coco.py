# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON: polygons and run lengths (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from training.sources.json_file import read_json
from training.sources.labels import Labels
from training.sources.outlines import OutlinedSample, Region, decompress, polygon
from training.sources.sample import IGNORE, DataError, Sample

FILE_NAME = 'annotations.coco.json'
LISTS = ('images', 'annotations', 'categories')


def find_coco(path: Path, labels: Labels) -> list[Sample]:
    """Finds the pictures that a COCO file tells of, those without annotations among them.

    A crowd (`iscrowd`) is several things in one outline, and nobody knows how many: as in COCO's
    own measures its pixels are ignored, unless it is of background.

    Args:
        path: The JSON file, or its folder. Pictures lie beside it, in `images/` there, or in
            `images/` beside a folder `annotations/`.
        labels: Category names → classes.

    Raises:
        DataError: There is no such file, or it is no COCO file.
    """
    file = annotation_file(path)
    data = _read(file)
    try:
        names = {entry['id']: str(entry['name']) for entry in data['categories']}
        of_image: dict[Any, list[dict[str, Any]]] = {e['id']: [] for e in data['images']}
        _sort_by_image(file, data['annotations'], of_image)
        return [
            _sample(path, file, entry, of_image[entry['id']], names, labels)
            for entry in data['images']
        ]
    except KeyError as error:
        raise DataError(f'{file}: is not COCO; an entry lacks {error}') from None
    except (AttributeError, TypeError) as error:
        raise DataError(f'{file}: is not COCO; {error}') from None


def annotation_file(path: Path) -> Path:
    """Returns the COCO file that a path means.

    Raises:
        DataError: The folder has none, or several of which none is `annotations.coco.json`.
    """
    if not path.is_dir():
        return path
    if (path / FILE_NAME).exists():
        return path / FILE_NAME
    files = sorted(path.glob('*.json'))
    if len(files) != 1:
        raise DataError(f'{path}: has {len(files)} JSON files and no {FILE_NAME}; name the file')
    return files[0]


def _read(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(n), list) for n in LISTS):
        raise DataError(f'{file}: is not COCO; it needs the lists {", ".join(LISTS)}')
    return data


def coco_labels(path: Path) -> list[str]:
    """Returns the names of the categories that have annotations, sorted.

    Raises:
        DataError: There is no COCO file.
    """
    data = _read(annotation_file(path))
    try:
        used = {entry['category_id'] for entry in data['annotations']}
        return sorted(str(entry['name']) for entry in data['categories'] if entry['id'] in used)
    except (KeyError, TypeError):
        return []  # finding the pictures will say what is wrong


def is_coco(path: Path) -> bool:
    """Whether a path looks like a COCO file or a folder with one."""
    try:
        data = read_json(annotation_file(path))
    except DataError:
        return False
    return isinstance(data, dict) and 'annotations' in data


def _sort_by_image(
    file: Path, annotations: list[dict[str, Any]], of_image: dict[Any, list[dict[str, Any]]]
) -> None:
    strays = []
    for annotation in annotations:
        if annotation['image_id'] in of_image:
            of_image[annotation['image_id']].append(annotation)
        else:
            strays.append(f'annotation {annotation["id"]} names image {annotation["image_id"]}')
    if strays:
        raise DataError(f'{file}: {"; ".join(strays)}: not in its list of images')


def _sample(
    path: Path,
    file: Path,
    image: Mapping[str, Any],
    annotations: list[dict[str, Any]],
    names: Mapping[Any, str],
    labels: Labels,
) -> OutlinedSample:
    regions, faults = [], []
    for number, annotation in enumerate(annotations, start=1):
        try:
            regions.append(_region(annotation, number, names, labels))
        except DataError as error:
            faults.append(f'{file}: annotation {annotation["id"]} {error}')
    place = PurePosixPath(image['file_name'].replace('\\', '/'))
    told = (image.get('width'), image.get('height'))
    return OutlinedSample(
        source=str(path),
        name='_'.join((*(p for p in place.parts[:-1] if p not in ('/', '..')), place.stem)),
        picture=_picture(file, place),
        faults=tuple(faults),
        labels=file,
        unlabelled=labels.class_id(labels.unlabelled),
        size=None if None in told else told,  # type: ignore[arg-type]
        regions=tuple(regions),
    )


def _picture(file: Path, place: PurePosixPath) -> Path:
    folders = (file.parent / 'images', file.parent, file.parent.parent / 'images')
    likely = next(folder for folder in folders if folder.is_dir())
    return next((f / place for f in folders if (f / place).exists()), likely / place)


def _region(
    annotation: Mapping[str, Any], number: int, names: Mapping[Any, str], labels: Labels
) -> Region:
    if annotation['category_id'] not in names:
        raise DataError(f'names category {annotation["category_id"]}; legal is {list(names)}')
    class_id = labels.id_of(names[annotation['category_id']])
    if not labels.is_numbered(class_id):
        number = 0
    elif annotation.get('iscrowd'):
        class_id, number = IGNORE, 0
    what = f'annotation {annotation["id"]}'
    outline = annotation.get('segmentation')
    if not outline:
        raise DataError('has an empty segmentation')
    if isinstance(outline, list):
        return Region(what, class_id, number, tuple(polygon(part) for part in outline))
    runs, size = _run_lengths(outline)
    return Region(what, class_id, number, runs=runs, size=size)


def _run_lengths(outline: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Returns run lengths and their picture's width and height, px."""
    try:
        height, width = (int(side) for side in outline['size'])
        counts = outline['counts']
        runs = tuple(map(int, counts if isinstance(counts, list) else decompress(counts)))
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DataError('has a segmentation that is neither polygons nor run lengths') from None
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(f'has run lengths that do not add up to {width}×{height} px')
    return runs, (width, height)
