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

GREYS = {'0': 'background', '255': 'rock'}


@dataclass(frozen=True, kw_only=True)
class MaskSample(Sample):
    """A picture with a mask file and perhaps a file of instance numbers.

    Attributes:
        mask: 8-bit grey picture; the same file as `instances`: 255 where there is one, else 0.
        instances: 16-bit grey picture of instance numbers, 0 = none; or None.
        greys: Grey value in the mask → class id.
    """

    mask: Path
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
        if numbers is not None and self.mask == self.instances:
            mask = np.where(numbers > 0, np.uint8(255), np.uint8(0))
        else:
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
        files = (self.mask, self.instances)
        return tuple(dict.fromkeys(file for file in files if file is not None))


def find_masks(path: Path, labels: Labels) -> list[Sample]:
    """Finds the masks of a folder; pictures without one are left out.

    Args:
        path: Holds `images/NAME.jpg|png`, `masks/NAME.png` and perhaps `instances/NAME.png`;
            without `masks/` the instances are the rocks (255), and all else is 0.
        labels: Grey values as text → classes; without a map 0 is background, 255 rock.

    Raises:
        DataError: There is no such folder.
    """
    if not is_mask_folder(path) or not (path / 'images').is_dir():
        raise DataError(f'{path}: no folder with images/ and masks/ or instances/ in it')
    if not labels.class_map:
        labels = replace(labels, class_map=GREYS)
    greys = {int(grey): class_id for grey, class_id in labels.ids.items()}
    pictures: dict[str, list[Path]] = {}
    for picture in picture_files(path / 'images'):
        pictures.setdefault(picture.stem, []).append(picture)
    return [
        _sample(path, labels_file, pictures.get(labels_file.stem, []), greys)
        for labels_file in sorted(_label_folder(path).glob('*.png'))
    ]


def is_mask_folder(path: Path) -> bool:
    """Whether a path looks like a folder of this kind."""
    return _label_folder(path).is_dir()


def _label_folder(path: Path) -> Path:
    masks = path / 'masks'
    return masks if masks.is_dir() else path / 'instances'


def _sample(path: Path, file: Path, pictures: list[Path], greys: dict[int, int]) -> MaskSample:
    """Makes the sample of a file in `masks/`, or in `instances/` where there is no such folder."""
    faults: tuple[str, ...] = ()
    if not pictures:
        faults = (f'{file}: no picture of that name in images/',)
    elif len(pictures) > 1:
        faults = (f'{file}: two pictures, {pictures[0].name} and {pictures[1].name}',)
    instances = path / 'instances' / file.name
    return MaskSample(
        source=str(path),
        name=file.stem,
        picture=pictures[0] if pictures else path / 'images' / file.name,
        faults=faults,
        mask=file,
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
