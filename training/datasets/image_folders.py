# SPDX-License-Identifier: Apache-2.0
"""Finds the images that a label file lists, inside the folder of the data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets.sample import DataError

HINT = 'set the folder of the images with images'


@dataclass(frozen=True)
class ImageFolders:
    """The folders that are searched for the images of a label file.

    Attributes:
        root: Folder of the data set; images outside it are not used.
        likely: Folders that are searched first, in this order.
        others: Folders that are searched if the image is in none of `likely`; only one of them may
            contain it.
    """

    root: Path
    likely: Sequence[Path]
    others: Sequence[Path] = ()

    def find(self, name: str) -> Path:
        """Finds an image.

        Args:
            name: Name in the label file, with slashes or backslashes.

        Raises:
            DataError: The image is outside `root`, does not exist, or is in several folders.
        """
        name = name.replace('\\', '/')
        best, candidate = self.root, None
        for folder in self.likely:
            path = self._inside(folder, name)
            if path and _is_file(path):
                return path
            if path and (candidate is None or not best.is_dir()):
                best, candidate = folder, path
        if candidate is None:
            raise DataError(f'{name!r} is outside {self.root}; {HINT}')
        others = [path for folder in self.others if (path := self._inside(folder, name))]
        found = [path for path in others if _is_file(path)]
        if len(found) > 1:
            raise DataError(f'{name!r} is ambiguous: {found[0]} or {found[1]}; {HINT}')
        if not found:
            raise DataError(f'{candidate}: no such file; {HINT}')
        return found[0]

    def _inside(self, folder: Path, name: str) -> Path | None:
        """Returns the path of a name in a folder; None if it is outside the root."""
        path = Path(os.path.normpath(folder / name))
        root = os.path.normpath(self.root.absolute())
        return path if Path(os.path.normpath(path.absolute())).is_relative_to(root) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # for example, a name that is too long
        return False
