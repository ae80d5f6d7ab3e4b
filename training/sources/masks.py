# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures and mask pictures; synthetic scenes are written as such too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.decoding import read_grey
from rock_seg_ros.perception.image_files import image_files, is_lossy
from training.sources.choosing import listed
from training.sources.labels import NAMED, Labels
from training.sources.sample import DataError, Sample

GREYS = {'0': 'background', '255': 'rock'}


@dataclass(frozen=True, kw_only=True)
class MaskSample(Sample):
    """A picture with a mask file and perhaps a file of instance numbers.

    Attributes:
        mask: Picture of grey values or of a palette's indices, of at most 16 bits.
        instances: Such a picture of instance numbers, 0 = none; or None.
        greys: Number in the mask → class id.
    """

    mask: Path
    instances: Path | None
    greys: dict[int, int] = field(hash=False)

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads mask and instance numbers."""
        mask = read_grey(self.mask)
        _refuse_other_size(self.mask, mask, height, width)
        table = np.full(2**16, -1, np.int16)
        table[list(self.greys)] = list(self.greys.values())
        classes = table[mask]
        if classes.min() < 0:
            legal = listed(sorted(self.greys), most=NAMED)
            stranger = mask[classes < 0][0]
            raise DataError(f'{self.mask}: has the grey value {stranger}; legal is {legal}')
        if self.instances is None:
            return classes.astype(np.uint8), None
        numbers = read_grey(self.instances).astype(np.int32)
        _refuse_other_size(self.instances, numbers, height, width)
        return classes.astype(np.uint8), numbers

    def label_files(self) -> tuple[Path, ...]:
        """Returns the mask and, where there is one, the file of instance numbers."""
        return (self.mask,) if self.instances is None else (self.mask, self.instances)


def find_masks(path: Path, labels: Labels) -> list[Sample]:
    """Finds the masks of a folder; pictures without one are left out.

    Args:
        path: Holds `images/NAME.*`, `masks/NAME.*` and perhaps `instances/NAME.*`, the last two in
            a format that keeps their values, such as PNG.
        labels: Grey values as text → classes; without a map 0 is background, 255 rock.

    Raises:
        DataError: There is no such folder.
    """
    if not is_mask_folder(path) or not (path / 'images').is_dir():
        raise DataError(f'{path}: no folder with images/ and masks/ in it')
    if not labels.class_map:
        labels = replace(labels, class_map=GREYS)
    greys = {int(grey): class_id for grey, class_id in labels.ids.items()}
    pictures = _by_stem(path / 'images')
    instances = _by_stem(path / 'instances')
    return [
        _sample(path, mask, pictures.get(stem, []), instances.get(stem, []), greys)
        for stem, masks in _by_stem(path / 'masks').items()
        for mask in [file for file in masks if not is_lossy(file)] or masks
    ]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Returns stem → the image files of a folder that have it, sorted."""
    files: dict[str, list[Path]] = {}
    for file in image_files(folder):
        files.setdefault(file.stem, []).append(file)
    return files


def is_mask_folder(path: Path) -> bool:
    """Whether a path looks like a folder of this kind."""
    return (path / 'masks').is_dir()


def _sample(
    path: Path, mask: Path, pictures: list[Path], instances: list[Path], greys: dict[int, int]
) -> MaskSample:
    faults = [
        f'{file}: {file.suffix[1:].upper()} changes the values of its pixels; labels want a format'
        ' that does not, such as PNG'
        for file in (mask, *instances)
        if is_lossy(file)
    ]
    if not pictures:
        faults.append(f'{mask}: no picture of that name in images/')
    elif len(pictures) > 1:
        faults.append(f'{mask}: two pictures, {pictures[0].name} and {pictures[1].name}')
    if len(instances) > 1:
        faults.append(f'{mask}: two of instances, {instances[0].name} and {instances[1].name}')
    return MaskSample(
        source=str(path),
        name=mask.stem,
        picture=pictures[0] if pictures else path / 'images' / mask.name,
        faults=tuple(faults),
        mask=mask,
        instances=instances[0] if instances else None,
        greys=greys,
    )


def _refuse_other_size(path: Path, labels: NDArray, height: int, width: int) -> None:
    if labels.shape != (height, width):
        raise DataError(
            f'{path}: is {labels.shape[1]}×{labels.shape[0]}, its picture {width}×{height}'
        )
