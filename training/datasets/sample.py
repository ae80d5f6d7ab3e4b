# SPDX-License-Identifier: Apache-2.0
"""Labelled images, before and after they are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import ImageError, read_rgb
from training.datasets.selection import join_first

IGNORE = 255


class DataError(ValueError):
    """Data that cannot be used; the message is one line with the file and the reason."""


class MissingDataError(DataError):
    """Data that does not exist: a missing path, or a split without images."""


@dataclass(frozen=True)
class Labelled:
    """An image and its labels.

    Attributes:
        image: H×W×3 uint8 RGB.
        classes: H×W uint8 class ids, 255 = ignored.
        instances: H×W int32 instance ids from 1, 0 = none; None if the source has no instances.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32] | None


@dataclass(frozen=True, kw_only=True)
class Sample(ABC):
    """One image of a source, which is read on demand. It can be pickled for loader processes.

    Attributes:
        source: Path of the source, as configured.
        name: Stem of the image file, unique in the source; it can be used as a file name.
        image: The image file.
        group: Scene that the image shows; a scene is in one split only.
        split: 'train', 'val', or another name in the manifest; '' if the image is not listed.
        faults: Messages of errors that were found before the image is read.
    """

    source: str
    name: str
    image: Path
    group: str = ''
    split: str = ''
    faults: tuple[str, ...] = ()

    def read(self, image: NDArray[np.uint8] | None = None) -> Labelled:
        """Reads the image and its labels.

        Args:
            image: The image, H×W×3 uint8 RGB, if it was read before; None = read it.

        Raises:
            DataError: A file is missing or cannot be decoded, or the labels are invalid.
        """
        if self.faults:
            raise DataError(join_first(self.faults, '; '))
        try:
            image = self.read_image() if image is None else image
            classes, instances = self.read_labels(*image.shape[:2])
        except FileNotFoundError as error:
            raise DataError(f'{error.filename}: no such file') from None
        except (ImageError, OSError) as error:
            raise DataError(str(error)) from None
        return Labelled(image, classes, instances)

    def read_image(self) -> NDArray[np.uint8]:
        """Reads the image: H×W×3 uint8 RGB.

        Raises:
            DataError: The label file that contains the image is invalid.
            ImageError: The image cannot be decoded.
            OSError: The image cannot be read.
        """
        return read_rgb(self.image)

    @abstractmethod
    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads the labels of an image.

        Args:
            height: Height of the image, px.
            width: Width of the image, px.

        Returns:
            Classes and instances, as in `Labelled`.

        Raises:
            DataError: The labels are invalid, or are for another image size.
            ImageError: A label file cannot be decoded.
            OSError: A label file cannot be read.
        """

    @abstractmethod
    def label_files(self) -> tuple[Path, ...]:
        """Returns the files that contain the labels."""
