# SPDX-License-Identifier: Apache-2.0
"""Error messages of one line that are safe to print, whatever a file contains."""

from __future__ import annotations

MAX_LENGTH = 400  # characters of a line


def printable(line: str) -> str:
    """Returns a line that can be printed to a terminal or a log.

    Returns:
        At most `MAX_LENGTH` characters, made visible by `visible`. A longer line is reduced to its
        beginning and its end, which name the file and the reason.
    """
    if len(line) > MAX_LENGTH:
        half = MAX_LENGTH // 2
        line = f'{line[: half - 1]} … {line[2 - half :]}'
    return visible(line)


def visible(text: str) -> str:
    """Returns text in which '?' replaces control characters and other invisible characters."""
    return ''.join(character if character.isprintable() else '?' for character in text)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message; the name of its class if it has none."""
    lines = _message(error).splitlines()
    return printable(lines[0] if lines else type(error).__name__)


def all_lines(error: BaseException) -> str:
    """Returns the whole message of an error; each line is made `printable`."""
    return '\n'.join(map(printable, _message(error).splitlines())) or first_line(error)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f'{visible(str(error.filename))}: {error.strerror}'
    return str(error).strip()
