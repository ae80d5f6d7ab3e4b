# SPDX-License-Identifier: Apache-2.0
"""A labelled image, before and after it is read."""

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
    """Data that cannot be trained on; the message is one line with the file and the reason."""


class MissingDataError(DataError):
    """Data of which there is nothing: no such path, or no image in a split."""


@dataclass(frozen=True)
class Labelled:
    """An image and what is known of each of its pixels.

    Attributes:
        image: H×W×3 uint8 RGB.
        classes: H×W uint8 class ids, 255 where ignored.
        instances: H×W int32, 0 = none, else the number of the rock in its image, from 1;
            None where the source does not tell rocks apart.
    """

    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32] | None


@dataclass(frozen=True, kw_only=True)
class Sample(ABC):
    """One image of a source, not read yet. Goes to loader processes, so it can be pickled.

    Attributes:
        source: Path of the source, as configured.
        name: Stem of the image file, unlike any other of the source; fit for a file name.
        image: The image file.
        group: Scene that the image shows; a scene is in one split only.
        split: 'train', 'val', or what else the manifest says; '' if it does not list the image.
        faults: What was found wrong before reading.
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
            image: The image where it has been read before, H×W×3 uint8 RGB; None = read it.

        Raises:
            DataError: A file is missing, does not decode, or its labels do not hold.
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
            DataError: What holds it is broken.
            ImageError: It does not decode.
            OSError: It cannot be read.
        """
        return read_rgb(self.image)

    @abstractmethod
    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads the labels of an image of that size, px.

        Returns:
            Classes and instances, as in `Labelled`.

        Raises:
            DataError: The labels do not hold, or are of another size.
            ImageError: A label file does not decode.
            OSError: A label file cannot be read.
        """

    @abstractmethod
    def label_files(self) -> tuple[Path, ...]:
        """Returns the files that hold the labels."""
