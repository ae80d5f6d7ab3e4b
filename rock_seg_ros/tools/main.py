# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg` command. A subcommand's module is imported only when it is used."""

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

# Name of a subcommand → its module in this package, and its description.
COMMANDS = {
    'images': ('images', 'Find rocks in image files.'),
    'video': ('video', 'Find rocks in a video and write a video with the rocks drawn on it.'),
    'bag': ('bag.command', 'Find rocks in the images of a bag and write the results to a new bag.'),
    'play': ('play', 'Publish the messages of a bag, like `ros2 bag play`.'),
    'bench': ('bench.command', 'Measure speed on this machine and compare it with torchvision.'),
    'info': ('info', 'Print the metadata of a weights file.'),
    'view': ('view.command', 'Show rocks on a live page in the browser.'),
    'doctor': (
        'doctor.command',
        'Check the installation and print the command that fixes each problem.',
    ),
    'demo': ('demo.command', 'Run the node on the demo bag and measure latency and accuracy.'),
}
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class Command(Protocol):
    """The functions that the module of a subcommand provides."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the arguments of the subcommand."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the subcommand; returns the exit status.

        Raises:
            ValueError: An input is invalid; the message is one line with its name and the reason.
            OSError: A file cannot be read or written.
        """


class UsageError(ValueError):
    """Arguments that are invalid or contradict each other."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        arguments: The command line without the program name; None = `sys.argv[1:]`.

    Returns:
        Exit status: 0 success, 1 failure (reported in one line on stderr), 2 wrong usage,
        130 interrupted by Ctrl-C.
    """
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')  # errors are reported in one line here
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # for file names that are not UTF-8
    try:
        return _dispatch(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as exit_request:  # raised by argparse
        return exit_request.code if isinstance(exit_request.code, int) else WRONG_USE


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
        print(f'{prog}: {first_line(error)}', file=sys.stderr)
        return WRONG_USE
    except ImportError as error:
        print(f'{prog}: missing dependency: {error.name or error}', file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f'{prog}: {first_line(error)}', file=sys.stderr)
    return FAILED


def _command_line() -> argparse.ArgumentParser:
    listed = '\n'.join(f'  {name:<8} {description}' for name, (_, description) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='rock_seg',
        usage='rock_seg [-h] COMMAND ...',
        description=f'Finds rocks in images.\n\ncommands:\n{listed}',
        epilog='Run `rock_seg COMMAND --help` for the options of a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'command', choices=COMMANDS, metavar='COMMAND', help='one of the commands above'
    )
    return parser


def print_message(command: str, text: str) -> None:
    """Prints one line on stderr, above the progress bar if there is one."""
    tqdm.write(f'rock_seg {command}: {printable(text)}', file=sys.stderr)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Ends the process without a traceback on Ctrl-C. Used during imports.

    An interrupted import prints a traceback, and some modules, such as torch, ignore Ctrl-C.
    """
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def exit_on_termination() -> None:
    """Lets SIGTERM end the process like `sys.exit`, so that its context managers clean up."""

    def terminate(number: int, *_: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
