# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON: polygons and run lengths (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from training.datasets.image_folders import ImageFolders
from training.datasets.json_file import json_files, read_json
from training.datasets.labels import MAX_LISTED, Labels
from training.datasets.outlines import OutlinedSample, Region, declared_size, decompress, polygon
from training.datasets.sample import IGNORE, DataError, Sample
from training.datasets.selection import join_first

FILE_NAME = 'annotations.coco.json'
ROBOFLOW_NAME = f'_{FILE_NAME}'
LISTS = ('images', 'annotations', 'categories')


def find_coco(path: Path, labels: Labels, images: Path | None = None) -> list[Sample]:
    """Finds the images that COCO files tell of, those without annotations among them.

    A crowd (`iscrowd`) is several things in one outline, and nobody knows how many: as in COCO's
    own measures its pixels are ignored, unless it is of background.

    Args:
        path: The JSON file, or the folder of a data set; see `annotation_files`.
        labels: Category names → classes.
        images: Folder of the images; None: they lie beside the file, in `images/` there or above,
            in a folder named like the end of the file's name (`val2017`), or in another one of the
            data set's.

    Returns:
        Of several files the samples have each file's name before their own, and its split.

    Raises:
        DataError: There is no such file, or it is no COCO file.
    """
    files = annotation_files(path)
    found: list[Sample] = []
    for file in files:
        own = _find_in(file, path, labels, images)
        if len(files) > 1:
            subset = _subset(file)
            own = [replace(s, name=f'{subset}_{s.name}', split=_split(subset)) for s in own]
        found += own
    return found


def annotation_files(path: Path) -> list[Path]:
    """Returns the COCO files that a path means.

    Returns:
        A file itself; of a folder the first of these that are there: `annotations.coco.json`,
        `_annotations.coco.json`, the latter in the folders in it (Roboflow's train/, valid/ and
        test/), `annotations/instances_*.json` or the only JSON file there (COCO, CVAT), and the
        same without `annotations/`.

    Raises:
        DataError: There is none, or several of another name.
    """
    if not path.is_dir():
        return [path]
    for pattern in (FILE_NAME, ROBOFLOW_NAME, f'*/{ROBOFLOW_NAME}'):
        if found := sorted(path.glob(pattern)):
            return found
    for folder in (path / 'annotations', path):
        files = json_files(folder)
        found = [file for file in files if file.stem.startswith('instances_')] or files
        if len(found) == 1 or found != files:
            return found
        if found:
            raise DataError(
                f'{folder}: has {len(found)} JSON files and no {FILE_NAME}; name the file'
            )
    raise DataError(f'{path}: has no JSON file')


def _find_in(file: Path, path: Path, labels: Labels, images: Path | None) -> list[OutlinedSample]:
    data = _read(file)
    folders = ImageFolders(images, [images]) if images else _image_folders(file, path)
    try:
        names = {entry['id']: str(entry['name']) for entry in data['categories']}
        of_image: dict[Any, list[dict[str, Any]]] = {e['id']: [] for e in data['images']}
        for kind, ids in (('images', of_image), ('categories', names)):
            if len(ids) < len(data[kind]):
                raise DataError(f'{file}: {len(data[kind])} {kind} have {len(ids)} different ids')
        _sort_by_image(file, data['annotations'], of_image)
        return [
            _sample(path, file, entry, of_image[entry['id']], names, labels, folders)
            for entry in data['images']
        ]
    except KeyError as error:
        raise DataError(f'{file}: is not COCO; an entry lacks {error}') from None
    except (AttributeError, TypeError) as error:
        raise DataError(f'{file}: is not COCO; {error}') from None


def _subset(file: Path) -> str:
    """Returns what a file is of: 'val2017', of `instances_val2017.json`; its folder's name."""
    return file.parent.name if file.name == ROBOFLOW_NAME else file.stem.partition('_')[2]


def _split(subset: str) -> str:
    """Returns the split that a file's name tells; '' if it tells none."""
    return next((name for name in ('train', 'val', 'test') if subset.lower().startswith(name)), '')


def _image_folders(file: Path, path: Path) -> ImageFolders:
    here, above = file.parent, file.parent.parent
    apart = here.name == 'annotations' or (above / 'images').is_dir()
    root = path if path.is_dir() else above if apart else here
    subset = _subset(file)
    of_subset = [root / 'images' / subset, root / subset] if subset else []
    of_subset += [inner for folder in of_subset for inner in sorted(folder.glob('*/'))]
    likely = dict.fromkeys([*of_subset, here / 'images', here, root / 'images', root])
    inner = {*(root / 'images').glob('**/'), *root.glob('*/')}
    others = [folder for folder in inner if folder not in likely]
    return ImageFolders(root, list(likely), sorted(others))


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
    found: set[str] = set()
    for file in annotation_files(path):
        data = _read(file)
        with suppress(KeyError, TypeError):  # finding the images will say what is wrong
            used = {entry['category_id'] for entry in data['annotations']}
            found.update(str(e['name']) for e in data['categories'] if e['id'] in used)
    return sorted(found)


def is_coco(path: Path) -> bool:
    """Whether a path looks like a COCO file or a folder with one."""
    try:
        data = read_json(annotation_files(path)[0])
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
            strays.append(annotation)
    if strays:
        named = join_first(
            [f'annotation {s["id"]} names image {s["image_id"]!r}' for s in strays], '; '
        )
        ids = _other_kind(strays[0]['image_id'], of_image)
        raise DataError(f'{file}: {named}: not in its list of images{ids}')


def _other_kind(wanted: object, ids: Mapping[Any, Any]) -> str:
    """Returns that the ids are numbers and not text, or the reverse, if this is the trouble."""
    text = isinstance(next(iter(ids), wanted), str)
    if text == isinstance(wanted, str):
        return ''
    return f', whose ids are {"text and no numbers" if text else "numbers and no text"}'


def _sample(
    path: Path,
    file: Path,
    image: Mapping[str, Any],
    annotations: list[dict[str, Any]],
    names: Mapping[Any, str],
    labels: Labels,
    folders: ImageFolders,
) -> OutlinedSample:
    regions, faults = [], []
    found, size = file, None
    try:
        found = folders.find(image['file_name'])
        size = declared_size(image.get('width'), image.get('height'))
    except DataError as error:
        faults.append(f'{file}: image {image["id"]!r}: {error}')
    for number, annotation in enumerate(annotations, start=1):
        try:
            regions.append(_region(annotation, number, names, labels))
        except DataError as error:
            faults.append(f'{file}: annotation {annotation["id"]} {error}')
    place = PurePosixPath(image['file_name'].replace('\\', '/'))
    return OutlinedSample(
        source=str(path),
        name='_'.join((*(p for p in place.parts[:-1] if p not in ('/', '..')), place.stem)),
        image=found,
        faults=tuple(faults),
        labels=file,
        unlabelled=labels.class_id(labels.unlabelled),
        size=size,
        regions=tuple(regions),
    )


def _region(
    annotation: Mapping[str, Any], number: int, names: Mapping[Any, str], labels: Labels
) -> Region:
    if annotation['category_id'] not in names:
        known = join_first(names, most=MAX_LISTED)
        ids = _other_kind(annotation['category_id'], names)
        raise DataError(f'names category {annotation["category_id"]!r}; legal is [{known}]{ids}')
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
    """Returns run lengths and their image's width and height, px."""
    try:
        height, width = (int(side) for side in outline['size'])
        counts = outline['counts']
        runs = tuple(map(int, counts if isinstance(counts, list) else decompress(counts)))
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DataError('has a segmentation that is neither polygons nor run lengths') from None
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(f'has run lengths that do not add up to {width}×{height} px')
    return runs, (width, height)
