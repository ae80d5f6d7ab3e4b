# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg` command: one subcommand a file, loaded only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

from rock_seg_ros.perception.errors import first_line, printable

# A subcommand is a module below this package, and one line here: its module, and what it does.
COMMANDS = {
    'images': ('images', 'find rocks in image files'),
    'video': ('video', 'draw the rocks onto a video'),
    'bag': ('bag.command', "find rocks in a bag's images, and write the results to a new bag"),
    'play': ('play', "publish a bag's messages, where there is no `ros2 bag play`"),
    'bench': ('bench.command', 'measure this machine, compared with plain torchvision'),
    'info': ('info', 'show the metadata of a weights file'),
    'demo': ('demo.command', 'run the node on the demo bag and measure it'),
}
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class Command(Protocol):
    """The functions of a subcommand's module."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the subcommand's own arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does the work; returns the exit status.

        Raises:
            ValueError: An input is bad; the message is one line naming it and the reason.
            OSError: A file cannot be read or written.
        """


class UsageError(ValueError):
    """Arguments that do not go together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: The command line without the program's name; None = this process's.

    Returns:
        Exit status: 0 done, 1 failed (one line on stderr says why), 2 wrong use, 130 Ctrl-C.
    """
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')  # what goes wrong, we say in one line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # for file names that are not UTF-8
    try:
        return _dispatch(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as leaving:  # argparse's way out
        return leaving.code if isinstance(leaving.code, int) else WRONG_USE


def _dispatch(arguments: Sequence[str]) -> int:
    name, rest = _command_line().parse_known_args(arguments[:1])[0].command, arguments[1:]
    prog = f'rock_seg {name}'
    module, description = COMMANDS[name]
    try:
        with exit_on_interrupt():
            command: Command = importlib.import_module(f'rock_seg_ros.tools.{module}')
        parser = argparse.ArgumentParser(prog=prog, description=description)
        command.add_arguments(parser)
        parser.set_defaults(command_line=shlex.join(['rock_seg', *arguments]))
        return command.run(parser.parse_args(rest))
    except UsageError as error:
        print(f'{prog}: {reason(error)}', file=sys.stderr)
        return WRONG_USE
    except ImportError as error:
        print(f'{prog}: needs {error.name or error}, not to be had here', file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f'{prog}: {reason(error)}', file=sys.stderr)
    return FAILED


def _command_line() -> argparse.ArgumentParser:
    listed = '\n'.join(f'  {name:<8} {description}' for name, (_, description) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='rock_seg',
        usage='rock_seg [-h] COMMAND ...',
        description=f'Finds rocks in images.\n\ncommands:\n{listed}',
        epilog='`rock_seg COMMAND --help` describes a command and its options.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of the above')
    return parser


def reason(error: BaseException) -> str:
    """Returns one line that says what was wrong with what."""
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f'{error.filename}: {error.strerror}')
    return first_line(error)


def print_message(command: str, text: str) -> None:
    """Says one line on stderr, above a progress bar if there is one."""
    tqdm.write(f'rock_seg {command}: {printable(text)}', file=sys.stderr)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Ends the process quietly on Ctrl-C, during imports.

    One that is broken off tells long stories, and some swallow Ctrl-C, torch's among them.
    """
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
