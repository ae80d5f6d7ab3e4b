# SPDX-License-Identifier: Apache-2.0
"""Options for exports, which are derived from records, and the function that writes them."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from rock_seg_ros.perception.errors import first_line, printable
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.results.results import Results


class Writer(Protocol):
    """The function that the module of an export provides."""

    def write(self, path: Path, results: Results) -> None:
        """Writes the export atomically.

        Raises:
            ValueError: The format does not support the results.
            OSError: The file cannot be written.
        """


class Export(NamedTuple):
    """A kind of export.

    Attributes:
        module: Module in this package, imported only when it is used.
        metavar: Placeholder in the help.
        suffixes: Suffixes of the file → packages that they need; empty = it is a folder.
        help: Help of the option.
    """

    module: str
    metavar: str
    suffixes: dict[str, tuple[str, ...]]
    help: str


EXPORTS = {
    'table': Export(
        'table',
        'FILE',
        {'.csv': ('pandas',), '.xlsx': ('pandas', 'openpyxl'), '.parquet': ('pandas', 'pyarrow')},
        'write one table of all rocks, with a row for each, to a .csv, .xlsx or .parquet file',
    ),
    'coco': Export(
        'coco', 'FILE.json', {'.json': ()}, 'write the rocks of all images to a COCO file'
    ),
    'labelme': Export(
        'labelme', 'DIR', {}, 'write the rocks of each image to a file for labelme in this folder'
    ),
    'supervision': Export(
        'detections',
        'FILE.json',
        {'.json': ()},
        "write the rocks of all images with the fields of supervision's Detections",
    ),
    'report': Export(
        'report',
        'FILE.html',
        {'.html': ()},
        'write a report with the size distribution, the rock cover and small images to this file',
    ),
}


def add_export_options(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Adds the options of all exports except those in `without`, and `--overwrite`."""
    names = [name for name in EXPORTS if name not in without]
    for name in names:
        export = EXPORTS[name]
        parser.add_argument(f'--{name}', type=Path, metavar=export.metavar, help=export.help)
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help=f'replace files of {_listed(names)} that exist (default: the command fails)',
    )
    parser.set_defaults(exports=names)


def check_exports(
    arguments: argparse.Namespace, files: Sequence[Path] | None, results: Iterable[Path] = ()
) -> None:
    """Rejects exports that cannot be written, before images are processed.

    Args:
        arguments: The options.
        files: The image files of the records; None = they are frames, whose number is unknown.
        results: Other files that the run writes.

    Raises:
        UsageError: A suffix is unknown, a file exists, or two outputs are the same file.
        ImportError: A package that a suffix needs is missing.
        OSError: A folder is not writable.
    """
    outputs = {path.resolve() for path in results}
    for name, path in chosen_exports(arguments).items():
        suffixes = EXPORTS[name].suffixes
        if suffixes and path.suffix.lower() not in suffixes:
            raise UsageError(f'--{name} {path}: the name must end in {_listed(suffixes)}')
        for package in suffixes.get(path.suffix.lower(), ()):
            importlib.import_module(package)
        targets = [path] if suffixes else _files_in(path, files)
        for target in targets:
            if target.resolve() in outputs:
                raise UsageError(f'--{name} {path}: {target} is another output of this command')
            if os.path.lexists(target) and (not arguments.overwrite or target.is_dir()):
                raise UsageError(f'--{name} {path}: {target} exists; --overwrite replaces it')
            outputs.add(target.resolve())
        _check_writable(path if not suffixes else path.parent)


def write_exports(results: Results, arguments: argparse.Namespace) -> list[str]:
    """Writes all exports that the options select, from the records.

    Returns:
        One line for each export that could not be written; the others are written.
    """
    problems = []
    for name, path in chosen_exports(arguments).items():
        module = importlib.import_module(f'{__package__}.{EXPORTS[name].module}')
        writer: Writer = module
        try:
            writer.write(path, results)
        except (OSError, ValueError) as error:
            why = getattr(error, 'strerror', None) or first_line(error)
            problems.append(
                printable(f'--{name} {path}: {why}; the results of the images are complete')
            )
    return problems


def chosen_exports(arguments: argparse.Namespace) -> dict[str, Path]:
    """Returns the exports that the options select, and their paths."""
    given = vars(arguments)
    return {name: given[name] for name in arguments.exports if given[name]}


def _files_in(folder: Path, files: Sequence[Path] | None) -> list[Path]:
    """Returns the files that an export to a folder writes; for frames, an existing file if any."""
    if files is not None:
        return [folder / f'{file.stem}.json' for file in files]
    return sorted(folder.iterdir())[:1] if folder.is_dir() else []


def _check_writable(folder: Path) -> None:
    """Raises OSError if a folder, or the first one above it that exists, is not writable."""
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, os.strerror(13), str(folder))


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f'{", ".join(others)} or {last}' if others else last
