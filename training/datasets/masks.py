# SPDX-License-Identifier: Apache-2.0
"""Folders of images and mask images; synthetic scenes are written as such too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import read_grey
from rock_seg_ros.perception.image_io.image_files import image_files, is_lossy
from training.datasets.labels import MAX_LISTED, Labels
from training.datasets.sample import DataError, Sample
from training.datasets.selection import join_first


@dataclass(frozen=True, kw_only=True)
class MaskSample(Sample):
    """An image with a mask file, a file of instance numbers, or both.

    Attributes:
        mask: Image of grey values or of a palette's indices, of at most 16 bits; None = 255 where
            there is an instance, 0 elsewhere.
        instances: Such an image of instance numbers, 0 = none; or None.
        greys: Number in the mask → class id.
    """

    mask: Path | None
    instances: Path | None
    greys: dict[int, int] = field(hash=False)

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads mask and instance numbers."""
        numbers = None
        if self.instances is not None:
            numbers = read_grey(self.instances).astype(np.int32)
            _check_size(self.instances, numbers, height, width)
        if self.mask is None:
            assert numbers is not None
            return np.where(numbers > 0, self.greys[255], self.greys[0]).astype(np.uint8), numbers
        mask = read_grey(self.mask)
        _check_size(self.mask, mask, height, width)
        table = np.full(2**16, -1, np.int16)
        table[list(self.greys)] = list(self.greys.values())
        classes = table[mask]
        if classes.min() < 0:
            legal = join_first(sorted(self.greys), most=MAX_LISTED)
            stranger = mask[classes < 0][0]
            raise DataError(f'{self.mask}: has the grey value {stranger}; legal is {legal}')
        return classes.astype(np.uint8), numbers

    def label_files(self) -> tuple[Path, ...]:
        """Returns the mask and, where there is one, the file of instance numbers."""
        return tuple(file for file in (self.mask, self.instances) if file is not None)


def find_masks(path: Path, labels: Labels) -> list[Sample]:
    """Finds the masks of a folder; images without one are left out.

    Args:
        path: Holds `images/NAME.*`, and `masks/NAME.*`, `instances/NAME.*` or both, these in a
            format that keeps their values, such as PNG.
        labels: Grey values as text → classes; without a map 0 is background, or what `unlabelled`
            says, and 255 rock.

    Raises:
        DataError: There is no such folder.
    """
    if not is_mask_folder(path) or not (path / 'images').is_dir():
        raise DataError(f'{path}: no folder with images/ and masks/ or instances/ in it')
    if not labels.class_map:
        labels = replace(labels, class_map={'0': labels.unlabelled, '255': 'rock'})
    greys = {int(grey): class_id for grey, class_id in labels.ids.items()}
    images, masks, instances = (
        _by_stem(path / folder) for folder in ('images', 'masks', 'instances')
    )
    without_masks = not (path / 'masks').is_dir()
    return [
        _sample(path, label, images.get(stem, []), instances.get(stem, []), greys)
        for stem, files in (instances if without_masks else masks).items()
        for label in [file for file in files if not is_lossy(file)] or files
    ]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Returns stem → the image files of a folder that have it, sorted."""
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(file.stem, []).append(file)
    return files


def is_mask_folder(path: Path) -> bool:
    """Whether a path looks like a folder of this kind."""
    return (path / 'masks').is_dir() or (path / 'instances').is_dir()


def _sample(
    path: Path, label: Path, images: list[Path], instances: list[Path], greys: dict[int, int]
) -> MaskSample:
    faults = [
        f'{file}: {file.suffix[1:].upper()} changes the values of its pixels; labels want a format'
        ' that does not, such as PNG'
        for file in dict.fromkeys((label, *instances))
        if is_lossy(file)
    ]
    if not images:
        faults.append(f'{label}: no image of that name in images/')
    elif len(images) > 1:
        faults.append(f'{label}: two images, {images[0].name} and {images[1].name}')
    if len(instances) > 1:
        faults.append(f'{label}: two of instances, {instances[0].name} and {instances[1].name}')
    return MaskSample(
        source=str(path),
        name=label.stem,
        image=images[0] if images else path / 'images' / label.name,
        faults=tuple(faults),
        mask=None if label in instances else label,
        instances=instances[0] if instances else None,
        greys=greys,
    )


def _check_size(path: Path, labels: NDArray, height: int, width: int) -> None:
    if labels.shape != (height, width):
        raise DataError(
            f'{path}: is {labels.shape[1]}×{labels.shape[0]}, its image {width}×{height}'
        )
