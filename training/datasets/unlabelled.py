# SPDX-License-Identifier: Apache-2.0
"""The format 'unlabelled': images without labels, for self-training and distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.image_files import image_files
from training.datasets.labels import Labels
from training.datasets.sample import IGNORE, DataError, Sample


@dataclass(frozen=True, kw_only=True)
class UnlabelledSample(Sample):
    """An image without labels."""

    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Returns labels in which every pixel is ignored."""
        return np.full((height, width), IGNORE, np.uint8), None

    def label_files(self) -> tuple[Path, ...]:
        """Returns no files."""
        return ()


def find_unlabelled(path: Path, _labels: Labels) -> list[Sample]:
    """Lists the images of a folder, or if it has none, of its folder `images/`.

    Raises:
        DataError: The folder does not exist.
    """
    if not path.is_dir():
        raise DataError(f'{path}: no such folder')
    return [
        UnlabelledSample(source=str(path), name=image.stem, image=image)
        for image in image_files(path) or image_files(path / 'images')
    ]
