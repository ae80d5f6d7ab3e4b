# SPDX-License-Identifier: Apache-2.0
"""Folders of pictures and mask pictures; synthetic scenes are written as such too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.decoding import PictureError, read_grey
from training.sources.labels import Labels
from training.sources.sample import DataError, Sample, picture_files


@dataclass(frozen=True, kw_only=True)
class MaskSample(Sample):
    """A picture with a mask file, a file of instance numbers, or both.

    Attributes:
        mask: 8-bit grey picture; None = 255 where there is an instance, 0 elsewhere.
        instances: 16-bit grey picture of instance numbers, 0 = none; or None.
        greys: Grey value in the mask → class id.
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
            numbers = _read_numbers(self.instances)
            _refuse_other_size(self.instances, numbers, height, width)
        if self.mask is None:
            assert numbers is not None
            return np.where(numbers > 0, self.greys[255], self.greys[0]).astype(np.uint8), numbers
        mask = read_grey(self.mask)
        _refuse_other_size(self.mask, mask, height, width)
        table = np.full(256, -1, np.int16)
        table[list(self.greys)] = list(self.greys.values())
        classes = table[mask]
        if classes.min() < 0:
            legal = ', '.join(map(str, sorted(self.greys)))
            stranger = mask[classes < 0][0]
            raise DataError(f'{self.mask}: has the grey value {stranger}; legal is {legal}')
        return classes.astype(np.uint8), numbers

    def label_files(self) -> tuple[Path, ...]:
        """Returns the mask and, where there is one, the file of instance numbers."""
        return tuple(file for file in (self.mask, self.instances) if file is not None)


def find_masks(path: Path, labels: Labels) -> list[Sample]:
    """Finds the masks of a folder; pictures without one are left out.

    Args:
        path: Holds `images/NAME.jpg|png`, and `masks/NAME.png`, `instances/NAME.png` or both.
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
    pictures: dict[str, list[Path]] = {}
    for picture in picture_files(path / 'images'):
        pictures.setdefault(picture.stem, []).append(picture)
    folder = 'masks' if (path / 'masks').is_dir() else 'instances'
    return [
        _sample(path, label, pictures.get(label.stem, []), greys)
        for label in sorted((path / folder).glob('*.png'))
    ]


def is_mask_folder(path: Path) -> bool:
    """Whether a path looks like a folder of this kind."""
    return (path / 'masks').is_dir() or (path / 'instances').is_dir()


def _sample(path: Path, label: Path, pictures: list[Path], greys: dict[int, int]) -> MaskSample:
    faults: tuple[str, ...] = ()
    if not pictures:
        faults = (f'{label}: no picture of that name in images/',)
    elif len(pictures) > 1:
        faults = (f'{label}: two pictures, {pictures[0].name} and {pictures[1].name}',)
    mask, instances = (path / folder / label.name for folder in ('masks', 'instances'))
    return MaskSample(
        source=str(path),
        name=label.stem,
        picture=pictures[0] if pictures else path / 'images' / label.name,
        faults=faults,
        mask=mask if mask.exists() else None,
        instances=instances if instances.exists() else None,
        greys=greys,
    )


def _read_numbers(path: Path) -> NDArray[np.int32]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        numbers = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        numbers = None
    if numbers is None:
        raise PictureError(f'{path}: does not decode as a picture ({data.size} bytes)')
    if numbers.ndim != 2:
        raise DataError(f'{path}: has {numbers.shape[2]} channels; instance numbers have one')
    return numbers.astype(np.int32)


def _refuse_other_size(path: Path, labels: NDArray, height: int, width: int) -> None:
    if labels.shape != (height, width):
        raise DataError(
            f'{path}: is {labels.shape[1]}×{labels.shape[0]}, its picture {width}×{height}'
        )
