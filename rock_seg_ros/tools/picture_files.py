# SPDX-License-Identifier: Apache-2.0
"""Picture files found, and what was found in a picture written; a file is whole or not there."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.decoding import PictureError
from rock_seg_ros.perception.weights_file import write_beside

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """Lists the picture files that are meant.

    Args:
        inputs: Files (of any suffix), folders (their pictures, without subfolders) or globs.

    Returns:
        Each file once, in the order of the inputs, a folder's and a glob's sorted.

    Raises:
        PictureError: A folder or a glob has no pictures.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES]
        elif not path.exists() and glob.has_magic(given):
            files = sorted(Path(p) for p in glob.glob(given, recursive=True))  # noqa: PTH207
        else:
            files = [path]
        if not files:
            raise PictureError(f'{given}: no pictures there')
        found.update(dict.fromkeys(files))
    return list(found)


def picture_record(name: str, analysis: Analysis) -> dict[str, Any]:
    """Returns what programs read of one picture, ready for JSON."""
    height, width = analysis.picture.shape[:2]
    rocks = [
        {
            'id': rock.id,
            'class': analysis.classes[rock.class_id],
            'score': round(rock.score, 4),
            'area': rock.area,
            'bbox': list(rock.box),
            'polygon': rock.polygon.tolist(),
        }
        for rock in analysis.rocks
    ]
    return {'image': name, 'width': width, 'height': height, 'rocks': rocks}


def result_paths(stem: Path) -> tuple[Path, Path, Path]:
    """Returns where mask, overlay and record of a picture go; `stem` is folder and name."""
    endings = ('_mask.png', '_overlay.jpg', '.json')
    mask, overlay, record = (stem.with_name(stem.name + ending) for ending in endings)
    return mask, overlay, record


def write_results(stem: Path, name: str, analysis: Analysis) -> None:
    """Writes mask, overlay and record of a picture, the record last.

    Args:
        stem: Folder and name that the files get.
        name: What the record says that the picture is called.
        analysis: Of the picture.

    Raises:
        OSError: A file cannot be written.
    """
    mask, overlay, record = result_paths(stem)
    write_picture(mask, analysis.mask)
    write_picture(overlay, analysis.overlay)
    write_json(record, picture_record(name, analysis))


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Writes H×W or H×W×3 uint8 RGB as the suffix says."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    _, encoded = cv2.imencode(path.suffix, picture)
    write_beside(path, lambda temporary: temporary.write_bytes(encoded.tobytes()))


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value."""
    text = json.dumps(value, ensure_ascii=False) + '\n'
    write_beside(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))
