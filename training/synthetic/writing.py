# SPDX-License-Identifier: Apache-2.0
"""Writes renderings to a folder in the format 'masks'."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synthetic.rendering import Rendering
from training.synthetic.scene import Scene

PARTS = ('images', 'masks', 'instances', 'depth')
MANIFEST = 'manifest.csv'
SCENES = 'scenes.jsonl'


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Provides a temporary path, which becomes the folder when the context is left.

    Until then, the path is inside NAME.partial next to the folder, which is removed after an error
    or an interrupt.

    Args:
        folder: New or empty folder.

    Yields:
        A path with the same name, which does not exist yet.

    Raises:
        FileExistsError: The folder is not empty, or NAME.partial of a killed run exists.
    """
    folder = folder.resolve()
    if folder.is_mount() or (folder.exists() and any(folder.iterdir())):
        raise FileExistsError(f'{folder}: is not empty; choose a new folder')
    partial = folder.with_name(f'{folder.name}.partial')
    if partial.exists():
        raise FileExistsError(f'{partial}: exists; another run is active, or was killed: remove it')
    partial.mkdir(parents=True)
    try:
        yield partial / folder.name
        (partial / folder.name).replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def prepare_folder(folder: Path) -> None:
    """Creates the folder and its subfolders."""
    for part in PARTS:
        (folder / part).mkdir(parents=True, exist_ok=True)


def write_rendering(folder: Path, name: str, rendering: Rendering, quality: int = 93) -> None:
    """Writes an image (JPEG), its class mask, 16-bit instance ids, and 16-bit depth in mm."""
    millimetres = np.nan_to_num(rendering.depth * 1000, nan=0.0)
    millimetres = np.where(millimetres > 65535, 0, millimetres)
    _write(
        folder / 'images' / f'{name}.jpg',
        rendering.image[..., ::-1],
        [cv2.IMWRITE_JPEG_QUALITY, quality],
    )
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _write(folder / 'masks' / f'{name}.png', rendering.classes, fast)
    _write(folder / 'instances' / f'{name}.png', rendering.instances, fast)
    _write(folder / 'depth' / f'{name}.png', np.round(millimetres).astype(np.uint16), fast)


def _write(path: Path, array: NDArray[Any], options: Sequence[int]) -> None:
    done, encoded = cv2.imencode(path.suffix, array, list(options))
    if not done:
        raise OSError(f'{path}: cannot be encoded')
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise OSError(f'{path}: {error.strerror}') from error


def describe(name: str, scene: Scene, rendering: Rendering) -> dict[str, Any]:
    """Returns the record of an image in `scenes.jsonl` as a JSON object."""
    forward = rendering.pose[:3, 2]
    shown = [int(number) for number in np.unique(rendering.instances) if number]
    return {
        'name': name,
        'seed': scene.seed,
        'scene': scene.number,
        'kind': scene.appearance.name,
        'look': scene.appearance.name,  # its name until 0.1
        'K': rendering.intrinsics.tolist(),
        'pose': rendering.pose.tolist(),
        'sun': list(scene.appearance.light.sun),
        'camera_height': scene.appearance.camera_height,
        'tilt': float(np.arcsin(-forward[2])),
        'abundance': scene.appearance.abundance,
        'rocks': [
            {
                'id': number,
                'diameter': scene.world.rocks[number - 1].diameter,
                'position': list(scene.world.rocks[number - 1].position),
            }
            for number in shown
        ],
    }


def write_tables(folder: Path, rows: Sequence[dict[str, Any]], val_fraction: float = 0.0) -> None:
    """Writes `manifest.csv` (id, split, group) and `scenes.jsonl`.

    Args:
        folder: Output folder.
        rows: Results of `describe`, in order.
        val_fraction: Share of the scenes that are 'val', evenly spaced; above 0, at least one of
            two or more scenes is.
    """
    held_out = _held_out(1 + max(row['scene'] for row in rows), val_fraction)
    with (
        (folder / MANIFEST).open('w', newline='') as manifest,
        (folder / SCENES).open('w') as scenes,
    ):
        table = csv.writer(manifest)
        table.writerow(['id', 'split', 'group'])
        for row in rows:
            split = 'val' if row['scene'] in held_out else 'train'
            table.writerow([row['name'], split, row['scene']])
            scenes.write(json.dumps(row) + '\n')


def _held_out(scenes: int, fraction: float) -> set[int]:
    """Returns the numbers of the scenes in the split val."""
    if scenes < 2 or fraction <= 0:
        return set()
    count = min(max(1, round(fraction * scenes)), scenes - 1)
    return {int((index + 0.5) * scenes / count) for index in range(count)}
