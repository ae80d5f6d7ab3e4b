# SPDX-License-Identifier: Apache-2.0
"""The format 'coco': polygons and run lengths (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from training.datasets.image_folders import ImageFolders
from training.datasets.json_file import json_files, read_json
from training.datasets.labels import MAX_LISTED, Labels
from training.datasets.regions import Region, RegionSample, declared_size, decompress, polygon
from training.datasets.sample import IGNORE, DataError, Sample
from training.datasets.selection import join_first

FILE_NAME = 'annotations.coco.json'
ROBOFLOW_NAME = f'_{FILE_NAME}'
LISTS = ('images', 'annotations', 'categories')


def find_coco(path: Path, labels: Labels, images: Path | None = None) -> list[Sample]:
    """Lists the images of COCO files, including images without annotations.

    A crowd (`iscrowd`) is an unknown number of objects in one region. Its pixels are ignored, as in
    COCO's own metrics, unless its class is background.

    Args:
        path: The JSON file, or the folder of a data set; see `annotation_files`.
        labels: Category names → classes.
        images: Folder of the images; None = they are next to the JSON file, in `images/` there or
            one level above, in a folder with the name of the subset (`val2017`), or in another
            folder of the data set.

    Returns:
        The samples. If there are several files, the subset is prepended to the names of the
        samples, and is their split.

    Raises:
        DataError: The file does not exist, or is not a COCO file.
    """
    files = annotation_files(path)
    all_samples: list[Sample] = []
    for file in files:
        samples = _find_in(file, path, labels, images)
        if len(files) > 1:
            subset = _subset(file)
            samples = [replace(s, name=f'{subset}_{s.name}', split=_split(subset)) for s in samples]
        all_samples += samples
    return all_samples


def annotation_files(path: Path) -> list[Path]:
    """Returns the COCO files at a path.

    Returns:
        The path itself if it is a file. For a folder, the first of these that exist:
        `annotations.coco.json`; `_annotations.coco.json`; `*/_annotations.coco.json` (Roboflow);
        `annotations/instances_*.json` (COCO); the only JSON file in `annotations/` (CVAT); and the
        last two without `annotations/`.

    Raises:
        DataError: There is no JSON file, or there are several with other names.
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
                f'{folder}: has {len(found)} JSON files and no {FILE_NAME}; give the path of a file'
            )
    raise DataError(f'{path}: has no JSON file')


def _find_in(file: Path, path: Path, labels: Labels, images: Path | None) -> list[RegionSample]:
    data = _read(file)
    folders = ImageFolders(images, [images]) if images else _image_folders(file, path)
    try:
        names = {entry['id']: str(entry['name']) for entry in data['categories']}
        of_image: dict[Any, list[dict[str, Any]]] = {e['id']: [] for e in data['images']}
        for kind, ids in (('images', of_image), ('categories', names)):
            if len(ids) < len(data[kind]):
                raise DataError(f'{file}: {len(data[kind])} {kind} have only {len(ids)} ids')
        _group_by_image(file, data['annotations'], of_image)
        return [
            _sample(path, file, entry, of_image[entry['id']], names, labels, folders)
            for entry in data['images']
        ]
    except KeyError as error:
        raise DataError(f'{file}: is not COCO; the key {error} is missing') from None
    except (AttributeError, TypeError) as error:
        raise DataError(f'{file}: is not COCO; {error}') from None


def _subset(file: Path) -> str:
    """Returns the subset of a file, such as 'val2017' for `instances_val2017.json`."""
    return file.parent.name if file.name == ROBOFLOW_NAME else file.stem.partition('_')[2]


def _split(subset: str) -> str:
    """Returns the split that the name of a subset begins with; '' if there is none."""
    return next((name for name in ('train', 'val', 'test') if subset.lower().startswith(name)), '')


def _image_folders(file: Path, path: Path) -> ImageFolders:
    folder, parent = file.parent, file.parent.parent
    in_subfolder = folder.name == 'annotations' or (parent / 'images').is_dir()
    root = path if path.is_dir() else parent if in_subfolder else folder
    subset = _subset(file)
    of_subset = [root / 'images' / subset, root / subset] if subset else []
    of_subset += [inner for outer in of_subset for inner in sorted(outer.glob('*/'))]
    likely = dict.fromkeys([*of_subset, folder / 'images', folder, root / 'images', root])
    subfolders = {*(root / 'images').glob('**/'), *root.glob('*/')}
    others = [subfolder for subfolder in subfolders if subfolder not in likely]
    return ImageFolders(root, list(likely), sorted(others))


def _read(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if not isinstance(data, dict) or not all(isinstance(data.get(n), list) for n in LISTS):
        raise DataError(f'{file}: is not COCO; it must have the lists {", ".join(LISTS)}')
    if any(isinstance(entry, dict) and 'segments_info' in entry for entry in data['annotations']):
        raise DataError(
            f'{file}: is a COCO panoptic file, whose labels are PNG images; give a file of'
            ' instances, such as instances_val2017.json'
        )
    return data


def coco_labels(path: Path) -> list[str]:
    """Returns the names of the categories that have annotations, sorted.

    Raises:
        DataError: There is no COCO file.
    """
    found: set[str] = set()
    for file in annotation_files(path):
        data = _read(file)
        with suppress(KeyError, TypeError):  # find_coco reports the error
            used = {entry['category_id'] for entry in data['annotations']}
            found.update(str(e['name']) for e in data['categories'] if e['id'] in used)
    return sorted(found)


def is_coco(path: Path) -> bool:
    """Returns whether a path seems to be a COCO file or a folder with one."""
    try:
        data = read_json(annotation_files(path)[0])
    except DataError:
        return False
    return isinstance(data, dict) and 'annotations' in data


def _group_by_image(
    file: Path, annotations: list[dict[str, Any]], of_image: dict[Any, list[dict[str, Any]]]
) -> None:
    unmatched = []
    for annotation in annotations:
        if annotation['image_id'] in of_image:
            of_image[annotation['image_id']].append(annotation)
        else:
            unmatched.append(annotation)
    if unmatched:
        listed = join_first(
            [f'annotation {a["id"]} has the image {a["image_id"]!r}' for a in unmatched], '; '
        )
        hint = _type_hint(unmatched[0]['image_id'], of_image)
        raise DataError(f'{file}: {listed}, which is not in its list of images{hint}')


def _type_hint(wanted: object, ids: Mapping[Any, Any]) -> str:
    """Returns a hint if the ids are numbers and the wanted one is text, or the reverse."""
    text = isinstance(next(iter(ids), wanted), str)
    if text == isinstance(wanted, str):
        return ''
    return f'; the ids there are {"text, not numbers" if text else "numbers, not text"}'


def _sample(
    path: Path,
    file: Path,
    image: Mapping[str, Any],
    annotations: list[dict[str, Any]],
    names: Mapping[Any, str],
    labels: Labels,
    folders: ImageFolders,
) -> RegionSample:
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
    relative = PurePosixPath(image['file_name'].replace('\\', '/'))
    return RegionSample(
        source=str(path),
        name='_'.join((*(p for p in relative.parts[:-1] if p not in ('/', '..')), relative.stem)),
        image=found,
        faults=tuple(faults),
        labels=file,
        unlabelled=labels.class_id(labels.unlabelled),
        size=size,
        regions=tuple(regions),
    )


def _region(
    annotation: Mapping[str, Any], instance_id: int, names: Mapping[Any, str], labels: Labels
) -> Region:
    if annotation['category_id'] not in names:
        known = join_first(names, most=MAX_LISTED)
        hint = _type_hint(annotation['category_id'], names)
        raise DataError(
            f'has the category {annotation["category_id"]!r}; expected: [{known}]{hint}'
        )
    if annotation.get('iscrowd') not in (None, 0, 1):
        raise DataError(f'has the iscrowd {annotation["iscrowd"]!r}; it must be 0 or 1')
    class_id = labels.id_of(names[annotation['category_id']])
    if not labels.has_instances(class_id):
        instance_id = 0
    elif annotation.get('iscrowd'):
        class_id, instance_id = IGNORE, 0
    name = f'annotation {annotation["id"]}'
    segmentation = annotation.get('segmentation')
    if not segmentation:
        raise DataError('has an empty segmentation')
    if isinstance(segmentation, list):
        is_flat = not isinstance(segmentation[0], list)  # VIA writes one polygon without its list
        parts = [segmentation] if is_flat else segmentation
        return Region(name, class_id, instance_id, tuple(map(polygon, parts)))
    runs, size = _run_lengths(segmentation)
    return Region(name, class_id, instance_id, runs=runs, size=size)


def _run_lengths(segmentation: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Returns run lengths, and width and height of their image, px."""
    try:
        height, width = (int(side) for side in segmentation['size'])
        counts = segmentation['counts']
        runs = tuple(map(int, counts if isinstance(counts, list) else decompress(counts)))
    except (KeyError, OverflowError, TypeError, ValueError):
        raise DataError('has a segmentation that is neither polygons nor run lengths') from None
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(f'has run lengths whose sum is not {width}×{height} px')
    return runs, (width, height)
