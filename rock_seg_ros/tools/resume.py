# SPDX-License-Identifier: Apache-2.0
"""Finds the finished results of an interrupted run, and checks that it can be continued."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.errors import printable
from rock_seg_ros.tools.image_results import encode_json, result_paths
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.results.recorder import scale_problem

MadeBy = Mapping[str, Any]  # version, weights and settings, as the records have them


def add_resume_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--resume`."""
    parser.add_argument(
        '--resume',
        action='store_true',
        help='keep the results in OUT that an earlier run with the same settings and weights has'
        ' finished, as after an interruption (default: replace them)',
    )


def finished_images(images: Sequence[Path], output: Path) -> tuple[set[Path], MadeBy | None]:
    """Finds the images whose results are complete and not older than the image.

    Args:
        images: The images.
        output: Folder of the results.

    Returns:
        The finished images, and how their results were made; None if there are none.

    Raises:
        UsageError: The results were made with different settings or weights.
    """
    finished: set[Path] = set()
    made_by: MadeBy | None = None
    for image in images:
        record = _complete_record(image, output / image.stem)
        if record is None:
            continue
        made_by = record['made_by'] if made_by is None else made_by
        check_same(output, made_by, record['made_by'])
        finished.add(image)
    return finished, made_by


def check_same(output: Path, before: MadeBy, now: MadeBy) -> None:
    """Raises UsageError if results were not made with the version, weights and settings of now."""
    one, other = (_flat(made_by) for made_by in (before, now))
    different = [
        f'{name} {one.get(name)}, not {other.get(name)}'
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]
    if different:
        raise UsageError(
            printable(
                f'{output}: has results that were made with {"; ".join(different)}; use another'
                ' output folder, or leave out --resume to replace them'
            )
        )


def _complete_record(image: Path, stem: Path) -> dict[str, Any] | None:
    """Returns the record of an image if mask, overlay and record are there; else None."""
    mask, overlay, record_file = result_paths(stem)
    try:
        if not mask.is_file() or not overlay.is_file():
            return None
        if record_file.stat().st_mtime < image.stat().st_mtime:
            return None
        record = json.loads(record_file.read_bytes())
        name = json.loads(encode_json(image.name))  # which need not be UTF-8
        complete = record['image'] == name and not scale_problem(record)
        return record if complete and 'settings' in record['made_by'] else None
    except (OSError, ValueError, KeyError, TypeError):  # missing, damaged, or of an older version
        return None


def _flat(made_by: MadeBy) -> dict[str, Any]:
    """Returns the settings at the same level as the other keys, with JSON types."""
    plain = json.loads(json.dumps(made_by))
    settings = plain.pop('settings')
    return plain | settings
