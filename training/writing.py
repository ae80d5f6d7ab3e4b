# SPDX-License-Identifier: Apache-2.0
"""Writes files atomically, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.encoding import encode_image
from rock_seg_ros.perception.writing import atomic_write


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file next to the target and renames it; creates the folder if necessary.

    Raises:
        OSError: The file cannot be written; the message names the file and the reason.
    """
    try:
        atomic_write(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise OSError(f'{path}: cannot be written: {error.strerror}') from None


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an image with `write_atomically`; cv2.imwrite reports no error on a full disk.

    Args:
        path: The target; its suffix selects the image format.
        image: H×W×3 uint8 RGB, or H×W uint8 grey.

    Raises:
        EncodingError: The format cannot store the image.
        OSError: The file cannot be written.
    """
    write_atomically(path, encode_image(image, path.suffix))
