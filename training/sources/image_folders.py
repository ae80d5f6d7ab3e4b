# SPDX-License-Identifier: Apache-2.0
"""Where the images lie that a label file names: inside the data set's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.sources.sample import DataError

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
        likely = self._places(self.likely, name)
        if not likely:
            raise DataError(f'{name!r} leads out of {self.root}; {HINT}')
        for path in likely.values():
            if _is_file(path):
                return path
        found = [path for path in self._places(self.others, name).values() if _is_file(path)]
        if len(found) > 1:
            raise DataError(f'{name!r} may be {found[0]} or {found[1]}; {HINT}')
        if not found:
            place = next((likely[folder] for folder in likely if folder.is_dir()), self.root / name)
            raise DataError(f'{place}: no such file; {HINT}')
        return found[0]

    def _places(self, folders: Sequence[Path], name: str) -> dict[Path, Path]:
        """Returns folder → path of the name there, without those that lead out of the root."""
        places = {folder: Path(os.path.normpath(folder / name)) for folder in folders}
        root = os.path.normpath(self.root.absolute())
        return {
            folder: path
            for folder, path in places.items()
            if Path(os.path.normpath(path.absolute())).is_relative_to(root)
        }


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False
