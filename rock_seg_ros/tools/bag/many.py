# SPDX-License-Identifier: Apache-2.0
"""Several bags in one run: each bag is a task, and each worker has one network for all its bags."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bag import command
from rock_seg_ros.tools.bag.storage import METADATA, STORAGE, ZSTD, BagError
from rock_seg_ros.tools.jobs import Outcome, run_tasks
from rock_seg_ros.tools.main import FAILED, UsageError, print_message
from rock_seg_ros.tools.progress import progress
from rock_seg_ros.tools.resume import MadeBy, check_same

_BAG_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)
_LINE = 'rock_seg bag: '  # begins the messages of a bag; other lines are of its progress


def run_many(arguments: argparse.Namespace, outputs: Mapping[Path, Path]) -> int:
    """Processes every bag. A bag that fails is reported, and the others are processed.

    Args:
        arguments: The options of the command.
        outputs: Input bag → output bag; see `outputs_of`.

    Returns:
        The exit status.
    """
    finished, made_by = _finished(outputs, arguments)
    failed = 0
    if finished:
        print_message('bag', f'{len(finished)} of {len(outputs)} bags are finished already')
    for path in finished:
        problems = _stored(outputs[path], command.PROBLEMS) or ()
        for line in problems:
            print_message('bag', line)
        failed += bool(problems)
    tasks = [[path] for path in outputs if path not in finished] or [[]]
    make = partial(BagWorker, arguments, outputs, made_by)
    with progress(total=len(outputs), done=len(finished), unit='bag') as bar:
        for path, problem, notes, written in run_tasks(make, tasks, arguments):
            for note in notes:
                print_message('bag', note if str(path) in note else f'{path}: {note}')
            if problem:
                print_message('bag', problem if str(path) in problem else f'{path}: {problem}')
            failed += not written or bool(problem)
            bar.update()
    return FAILED if failed else 0


class BagWorker:
    """Processes bags with a network of its own."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        outputs: Mapping[Path, Path],
        made_by: MadeBy | None = None,
    ) -> None:
        """Loads the network.

        Args:
            arguments: The options of the command.
            outputs: Input bag → output bag.
            made_by: How the bags were made that are kept; None if there are none.

        Raises:
            ValueError: The weights or the scale cannot be used, or the bags that are kept were
                made with other settings.
        """
        self._arguments = arguments
        self._outputs = outputs
        self._network = command.load(arguments)
        if made_by is not None:
            check_same(arguments.output, made_by, self._network[1].made_by)

    def __call__(self, paths: Sequence[Path]) -> list[Outcome]:
        """Processes bags; returns one outcome per bag."""
        return [self._process(path) for path in paths]

    def _process(self, path: Path) -> Outcome:
        one = argparse.Namespace(**vars(self._arguments))
        one.output = self._outputs[path]
        output, errors = io.StringIO(), io.StringIO()
        problem, written, failed = '', True, 0
        with redirect_stderr(errors), redirect_stdout(output):
            try:
                failed = command.process(path, one, lambda: self._network)
            except _BAG_ERRORS as error:
                problem, written = first_line(error), False
        lines = [
            line.removeprefix(_LINE) for line in errors.getvalue().splitlines() if _LINE in line
        ]
        if failed:
            problem = lines.pop()
        return Outcome(path, problem, (*lines, *output.getvalue().splitlines()), written)


def outputs_of(inputs: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Returns the output of each input: OUT of a single one, else a bag of its name in OUT.

    Raises:
        UsageError: Two inputs have the same name.
    """
    inputs = list(dict.fromkeys(inputs))
    if len(inputs) == 1:
        return {inputs[0]: output}
    found: dict[Path, Path] = {}
    for path in inputs:
        target = output / _name(path)
        for other, taken in found.items():
            if taken == target:
                raise UsageError(f'{path}: its results would overwrite those of {other}')
        found[path] = target
    return found


def _name(path: Path) -> str:
    """Returns the name of a bag without the suffixes of its storage."""
    name = path.resolve().name
    for suffix in (ZSTD, *STORAGE, '.bag'):
        name = name.removesuffix(suffix)
    return name


def _finished(
    outputs: Mapping[Path, Path], arguments: argparse.Namespace
) -> tuple[list[Path], MadeBy | None]:
    """Returns the inputs whose outputs exist, and how those were made.

    Raises:
        BagError: An output exists and is not to be kept, is not of `rock_seg bag`, or is older
            than its input.
        UsageError: The outputs were made with different settings.
    """
    finished: list[Path] = []
    first: MadeBy | None = None
    for path, output in outputs.items():
        if not output.exists():
            continue
        made_by = _stored(output, command.MADE_BY) if arguments.resume else None
        if made_by is None:
            raise BagError(f'{output}: exists; choose another output or delete it')
        if _changed(path) > (output / METADATA).stat().st_mtime:
            raise BagError(f'{output}: is older than {path}; delete it to process the bag again')
        first = made_by if first is None else first
        check_same(arguments.output, first, made_by)
        finished.append(path)
    return finished, first


def _changed(bag: Path) -> float:
    """Returns the time of the last change of a bag, s since the epoch; 0 if it does not exist."""
    files = list(bag.iterdir()) if bag.is_dir() else [bag]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0)


def _stored(bag: Path, key: str) -> Any:
    """Returns a value that `rock_seg bag` wrote to the metadata of a bag; None if it did not."""
    try:
        metadata = yaml.safe_load((bag / METADATA).read_text())
        return json.loads(metadata['rosbag2_bagfile_information']['custom_data'][key])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
