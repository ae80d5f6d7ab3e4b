# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, and are named where they cannot be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.image_io.encoding import encode_image
from rock_seg_ros.perception.writing import write_beside


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file beside its place and renames it; its folder is made.

    Raises:
        OSError: It cannot be written; the message names the file and the reason.
    """
    try:
        write_beside(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise OSError(f'{path}: cannot be written: {error.strerror}') from None


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an image as `write_atomically` does; OpenCV's own writer is silent on a full disk.

    Args:
        path: Its suffix says how the image is coded.
        image: H×W×3 uint8 RGB, or H×W uint8 grey.

    Raises:
        EncodingError: The format cannot hold it.
        OSError: It cannot be written.
    """
    write_atomically(path, encode_image(image, path.suffix))
