# SPDX-License-Identifier: Apache-2.0
"""Finds image files and writes the results of an image. Each file is written atomically."""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.location import Location
from rock_seg_ros.perception.geometry.scale import Scale
from rock_seg_ros.perception.image_io.decoding import ImageError
from rock_seg_ros.perception.image_io.encoding import EncodingError, encode_image
from rock_seg_ros.perception.image_io.image_files import (
    image_files,
    unsupported_files,
    unsupported_reason,
)
from rock_seg_ros.perception.instances.rocks import Rock
from rock_seg_ros.perception.instances.shape import measure_shape
from rock_seg_ros.perception.writing import atomic_write

MAX_LISTED_FILES = 3
HEAD_BYTES = 4096
# How the JSON files that are written here begin. Other programs write {"image": "a.jpg", too.
RECORD_HEAD = re.compile(
    rb'\{"image": "(?:[^"\\]|\\.)*", "width": \d+, "height": \d+, "(?:scale|rocks)": '
    rb'|\{"video": "(?:[^"\\]|\\.)*",\n"(?:made_by|frames)": '
)


def find_images(inputs: Iterable[str]) -> list[Path]:
    """Lists the image files of the inputs.

    Args:
        inputs: Files of any suffix, folders, or globs. A folder stands for its images, without
            subfolders and hidden files.

    Returns:
        Each file once, in the order of the inputs. The files of a folder or glob are sorted.

    Raises:
        ImageError: A folder or a glob has no images.
    """
    found: dict[Path, None] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = image_files(path)
        elif not path.exists() and glob.has_magic(given):
            files = sorted(Path(p) for p in glob.glob(given, recursive=True))  # noqa: PTH207
        else:
            files = [path]
        if not files:
            raise ImageError(f'{given}: contains no images')
        found.update(dict.fromkeys(files))
    return list(found)


def describe_skipped_files(inputs: Iterable[str]) -> list[str]:
    """Returns one line per file type that `find_images` skips in folders, with the reason."""
    lines = []
    for given in inputs:
        for suffix, files in unsupported_files(Path(given)).items():
            names = ', '.join(file.name for file in files[:MAX_LISTED_FILES])
            more = f' and {len(files) - MAX_LISTED_FILES} more' if files[MAX_LISTED_FILES:] else ''
            count = '1 file' if len(files) == 1 else f'{len(files)} files'
            kind = suffix or 'no suffix'
            lines.append(
                f'{given}: {count} skipped ({kind}): {names}{more}; {unsupported_reason(suffix)}'
            )
    return lines


def image_record(
    name: str, analysis: Analysis, scale: Scale | None = None, problem: str = ''
) -> dict[str, Any]:
    """Returns the results of one image as a dict that can be written as JSON.

    Args:
        name: Name of the image.
        analysis: Its results.
        scale: Its scale, which takes precedence over the view of the analysis; None = sizes in mm
            are known only where the view has depth or the ground.
        problem: Why there is no scale although one was asked for; the sizes in mm are unknown then.
    """
    height, width = analysis.image.shape[:2]
    known: dict[str, Any] | None = None
    mm_per_px: float | None = None
    if scale:
        mm_per_px = scale.mm_per_px
        known = {'mm_per_px': _significant(mm_per_px), 'source': scale.source}
    elif problem:
        mm_per_px = math.nan
        known = {'mm_per_px': None, 'problem': problem}
    locations = analysis.locations
    return {
        'image': name,
        'width': width,
        'height': height,
        'scale': known,
        'rocks': [
            _rock_record(rock, location, analysis.classes[rock.class_id], mm_per_px)
            for rock, location in zip(analysis.rocks, locations, strict=True)
        ],
    }


def _rock_record(
    rock: Rock, location: Location, class_name: str, mm_per_px: float | None
) -> dict[str, Any]:
    shape = measure_shape(rock.mask)
    if mm_per_px is not None:
        mm, diameter = mm_per_px, mm_per_px * shape.diameter
    else:  # in the image of a camera with known geometry, each rock has a scale of its own
        mm, diameter = 1000 * location.extent[0] / rock.box[2], 1000 * location.diameter
    return {
        'id': rock.id,
        'class': class_name,
        'score': round(rock.score, 4),
        'area': rock.area,
        'bbox': list(rock.box),
        'polygon': rock.polygon.tolist(),
        'diameter': round(shape.diameter, 2),
        'long_axis': _rounded(shape.long_axis, 2),
        'short_axis': _rounded(shape.short_axis, 2),
        'orientation': _rounded(round(shape.orientation, 1) % 180, 1),
        'perimeter': round(shape.perimeter, 2),
        'circularity': round(shape.circularity, 4),
        'diameter_mm': _significant(diameter),
        'long_axis_mm': _significant(mm * shape.long_axis),
        'short_axis_mm': _significant(mm * shape.short_axis),
        'position': [_rounded(value, 4) for value in location.position],
        'distance': _rounded(location.distance, 4),
    }


def _rounded(value: float, digits: int) -> float | None:
    """Returns a number for JSON, None for one that is not finite."""
    return round(value, digits) if math.isfinite(value) else None


def _significant(value: float) -> float | None:
    """Returns a number of 6 significant digits for JSON, None for one that is not finite."""
    return float(f'{value:.6g}') if math.isfinite(value) else None


def result_paths(stem: Path) -> tuple[Path, Path, Path]:
    """Returns the paths of mask, overlay and JSON file; `stem` is the folder and the base name."""
    endings = ('_mask.png', '_overlay.jpg', '.json')
    mask, overlay, record = (stem.with_name(stem.name + ending) for ending in endings)
    return mask, overlay, record


def is_result_file(path: Path) -> bool:
    """Whether an existing path is a JSON file of `rock_seg images` or `rock_seg video`."""
    if not path.is_file():
        return False
    with path.open('rb') as file:
        return RECORD_HEAD.match(file.read(HEAD_BYTES)) is not None


def write_results(stem: Path, record: dict[str, Any], analysis: Analysis) -> str:
    """Writes mask, overlay and JSON file of an image, the JSON file last.

    An earlier JSON file is removed first, so that a JSON file never belongs to another mask.

    Args:
        stem: Folder and base name of the files.
        record: Content of the JSON file.
        analysis: Results for the image.

    Returns:
        The reason why the overlay could not be written; empty if it was written.

    Raises:
        OSError: A file cannot be written. The files written so far are removed.
    """
    mask, overlay, record_file = result_paths(stem)
    problem, written = '', []
    record_file.unlink(missing_ok=True)
    try:
        write_image(mask, analysis.mask)
        written.append(mask)
        try:
            write_image(overlay, analysis.overlay)
            written.append(overlay)
        except EncodingError as error:
            overlay.unlink(missing_ok=True)
            problem = f'no overlay: {error}'
        write_json(record_file, record)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    return problem


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an H×W or H×W×3 uint8 RGB image in the format of the suffix.

    Raises:
        EncodingError: The format does not support the image.
        OSError: The file cannot be written.
    """
    coded = encode_image(image, path.suffix)
    atomic_write(path, lambda temporary: temporary.write_bytes(coded))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON value as UTF-8. Bytes of file names that are not UTF-8 become U+FFFD."""
    coded = encode_json(value) + b'\n'
    atomic_write(path, lambda temporary: temporary.write_bytes(coded))


def write_json_lists(path: Path, lists: Mapping[str, Iterable[Any]], **values: Any) -> None:
    """Writes a JSON object of values and lists. Memory holds one item of a list at a time.

    Args:
        path: The file.
        lists: Key → items.
        **values: Key → value; these keys come first.

    Raises:
        OSError: The file cannot be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open('wb') as file:
            begin = b'{'
            for name, value in values.items():
                file.write(begin + encode_json(name) + b': ' + encode_json(value))
                begin = b',\n'
            for name, items in lists.items():
                file.write(begin + encode_json(name) + b': [')
                begin = b',\n'
                for index, item in enumerate(items):
                    file.write((b',\n' if index else b'\n') + encode_json(item))
                file.write(b'\n]')
            file.write(b'\n}\n')

    atomic_write(path, write)


def encode_json(value: Any) -> bytes:
    """Returns JSON as UTF-8, without a line break."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace').encode('utf-8')
