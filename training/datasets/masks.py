# SPDX-License-Identifier: Apache-2.0
"""The format 'masks': folders of images and mask images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import read_label_image
from rock_seg_ros.perception.image_io.image_files import image_files, is_lossy
from training.datasets.labels import MAX_LISTED, Labels
from training.datasets.sample import DataError, Sample
from training.datasets.selection import join_first


@dataclass(frozen=True, kw_only=True)
class MaskSample(Sample):
    """An image with a mask file, a file of instance ids, or both.

    Attributes:
        mask: Image file of grey values or palette indices with at most 16 bits; None = 255 for the
            pixels of instances, 0 elsewhere.
        instances: Image file of instance ids with at most 16 bits, 0 = none; None = no file.
        class_ids: Pixel value in the mask → class id.
    """

    mask: Path | None
    instances: Path | None
    class_ids: dict[int, int] = field(hash=False)

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads mask and instance ids."""
        instances = None
        if self.instances is not None:
            instances = read_label_image(self.instances).astype(np.int32)
            _check_size(self.instances, instances, height, width)
        if self.mask is None:
            assert instances is not None
            classes = np.where(instances > 0, self.class_ids[255], self.class_ids[0])
            return classes.astype(np.uint8), instances
        mask = read_label_image(self.mask)
        _check_size(self.mask, mask, height, width)
        table = np.full(2**16, -1, np.int16)
        table[list(self.class_ids)] = list(self.class_ids.values())
        classes = table[mask]
        if classes.min() < 0:
            expected = join_first(sorted(self.class_ids), most=MAX_LISTED)
            unknown = mask[classes < 0][0]
            raise DataError(f'{self.mask}: has the pixel value {unknown}; expected: {expected}')
        return classes.astype(np.uint8), instances

    def label_files(self) -> tuple[Path, ...]:
        """Returns the mask and the file of instance ids, as far as they exist."""
        return tuple(file for file in (self.mask, self.instances) if file is not None)


def find_masks(path: Path, labels: Labels) -> list[Sample]:
    """Lists the images of a folder that have masks; images without labels are not used.

    Args:
        path: Folder with `images/NAME.*`, and `masks/NAME.*`, `instances/NAME.*` or both. Labels
            must have a lossless format, such as PNG.
        labels: Pixel values as text → classes; without a map, 0 has the class `unlabelled` and 255
            is rock.

    Raises:
        DataError: The folder does not exist, or lacks these folders; or there are only instances,
            and the map lacks 0 or 255.
    """
    if not is_mask_folder(path) or not (path / 'images').is_dir():
        raise DataError(
            f'{path}: must be a folder with images/, and masks/ or instances/; else set format'
        )
    if not labels.class_map:
        labels = replace(labels, class_map={'0': labels.unlabelled, '255': 'rock'})
    class_ids = {int(value): class_id for value, class_id in labels.ids.items()}
    images, masks, instances = (
        _by_stem(path / folder) for folder in ('images', 'masks', 'instances')
    )
    without_masks = not (path / 'masks').is_dir()
    if without_masks and not {0, 255} <= class_ids.keys():
        raise DataError(
            f'{path}: has no masks/, so class_map must have 0 (no instance) and 255 (instance)'
        )
    return [
        _sample(path, label, images.get(stem, []), instances.get(stem, []), class_ids)
        for stem, files in (instances if without_masks else masks).items()
        for label in [file for file in files if not is_lossy(file)] or files
    ]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Returns file name stem → sorted image files of a folder."""
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(file.stem, []).append(file)
    return files


def is_mask_folder(path: Path) -> bool:
    """Returns whether a path seems to be a folder in this format."""
    return (path / 'masks').is_dir() or (path / 'instances').is_dir()


def _sample(
    path: Path, label: Path, images: list[Path], instances: list[Path], class_ids: dict[int, int]
) -> MaskSample:
    faults = [
        f'{file}: {file.suffix[1:].upper()} is lossy; labels need a lossless format such as PNG'
        for file in dict.fromkeys((label, *instances))
        if is_lossy(file)
    ]
    if not images:
        faults.append(f'{label}: has no image of this name in images/')
    elif len(images) > 1:
        faults.append(f'{label}: has two images, {images[0].name} and {images[1].name}')
    if len(instances) > 1:
        faults.append(f'{label}: has two instance files, {instances[0].name}, {instances[1].name}')
    return MaskSample(
        source=str(path),
        name=label.stem,
        image=images[0] if images else path / 'images' / label.name,
        faults=tuple(faults),
        mask=None if label in instances else label,
        instances=instances[0] if instances else None,
        class_ids=class_ids,
    )


def _check_size(path: Path, labels: NDArray, height: int, width: int) -> None:
    if labels.shape != (height, width):
        raise DataError(
            f'{path}: has the size {labels.shape[1]}×{labels.shape[0]}, but its image'
            f' {width}×{height}'
        )
