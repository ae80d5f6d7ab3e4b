# SPDX-License-Identifier: Apache-2.0
"""A labelled picture, before and after it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.decoding import PictureError, read_rgb
from training.sources.choosing import listed

IGNORE = 255


class DataError(ValueError):
    """Data that cannot be trained on; the message is one line with the file and the reason."""


class MissingDataError(DataError):
    """Data of which there is nothing: no such path, or no image in a split."""


@dataclass(frozen=True)
class Labelled:
    """A picture and what is known of each of its pixels.

    Attributes:
        picture: H×W×3 uint8 RGB.
        classes: H×W uint8 class ids, 255 where ignored.
        instances: H×W int32, 0 = none, else the number of the rock in its picture, from 1;
            None where the source does not tell rocks apart.
    """

    picture: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.int32] | None


@dataclass(frozen=True, kw_only=True)
class Sample(ABC):
    """One picture of a source, not read yet. Goes to loader processes, so it can be pickled.

    Attributes:
        source: Path of the source, as configured.
        name: Stem of the picture file, unlike any other of the source; fit for a file name.
        picture: The picture file.
        group: Scene that the picture shows; a scene is in one split only.
        split: 'train', 'val', or what else the manifest says; '' if it does not list the picture.
        faults: What was found wrong before reading.
    """

    source: str
    name: str
    picture: Path
    group: str = ''
    split: str = ''
    faults: tuple[str, ...] = ()

    def read(self, picture: NDArray[np.uint8] | None = None) -> Labelled:
        """Reads the picture and its labels.

        Args:
            picture: The picture where it has been read before, H×W×3 uint8 RGB; None = read it.

        Raises:
            DataError: A file is missing, does not decode, or its labels do not hold.
        """
        if self.faults:
            raise DataError(listed(self.faults, '; '))
        try:
            picture = self.read_picture() if picture is None else picture
            classes, instances = self.read_labels(*picture.shape[:2])
        except FileNotFoundError as error:
            raise DataError(f'{error.filename}: no such file') from None
        except (PictureError, OSError) as error:
            raise DataError(str(error)) from None
        return Labelled(picture, classes, instances)

    def read_picture(self) -> NDArray[np.uint8]:
        """Reads the picture: H×W×3 uint8 RGB.

        Raises:
            DataError: What holds it is broken.
            PictureError: It does not decode.
            OSError: It cannot be read.
        """
        return read_rgb(self.picture)

    @abstractmethod
    def read_labels(
        self, height: int, width: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32] | None]:
        """Reads the labels of a picture of that size, px.

        Returns:
            Classes and instances, as in `Labelled`.

        Raises:
            DataError: The labels do not hold, or are of another size.
            PictureError: A label file does not decode.
            OSError: A label file cannot be read.
        """

    @abstractmethod
    def label_files(self) -> tuple[Path, ...]:
        """Returns the files that hold the labels."""
