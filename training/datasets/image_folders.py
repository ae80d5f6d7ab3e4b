# SPDX-License-Identifier: Apache-2.0
"""Where the images lie that a label file names: inside the data set's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.datasets.sample import DataError

HINT = 'the setting images says in which folder the images lie'


@dataclass(frozen=True)
class ImageFolders:
    """The folders in which the images of a label file are looked for.

    Attributes:
        root: The data set's folder; no name leads out of it.
        likely: Folders, the first of which that has an image counts.
        others: Folders of which only one may have an image, if none of `likely` has it.
    """

    root: Path
    likely: Sequence[Path]
    others: Sequence[Path] = ()

    def find(self, name: str) -> Path:
        """Finds an image.

        Args:
            name: As the label file names it; a backslash is as good as a slash.

        Raises:
            DataError: It lies outside `root`, is not there, or in several folders.
        """
        name = name.replace('\\', '/')
        best, place = self.root, None
        for folder in self.likely:
            path = self._inside(folder, name)
            if path and _is_file(path):
                return path
            if path and (place is None or not best.is_dir()):
                best, place = folder, path
        if place is None:
            raise DataError(f'{name!r} leads out of {self.root}; {HINT}')
        others = [path for folder in self.others if (path := self._inside(folder, name))]
        found = [path for path in others if _is_file(path)]
        if len(found) > 1:
            raise DataError(f'{name!r} may be {found[0]} or {found[1]}; {HINT}')
        if not found:
            raise DataError(f'{place}: no such file; {HINT}')
        return found[0]

    def _inside(self, folder: Path, name: str) -> Path | None:
        """Returns the path of a name in a folder; None if it leads out of the root."""
        path = Path(os.path.normpath(folder / name))
        root = os.path.normpath(self.root.absolute())
        return path if Path(os.path.normpath(path.absolute())).is_relative_to(root) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False
