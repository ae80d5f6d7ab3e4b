# SPDX-License-Identifier: Apache-2.0
"""Errors told in one line, which other people's files have no power over."""

from __future__ import annotations

MAX_LENGTH = 400  # characters of a line


def printable(line: str) -> str:
    """Returns a line fit for a terminal and a log.

    Returns:
        At most `MAX_LENGTH` characters, made visible by `visible`. A longer line is reduced to its
        beginning and its end, which name the file and the reason.
    """
    if len(line) > MAX_LENGTH:
        half = MAX_LENGTH // 2
        line = f'{line[: half - 1]} … {line[2 - half :]}'
    return visible(line)


def visible(text: str) -> str:
    """Returns text with a '?' for each control character and others that show nothing."""
    return ''.join(character if character.isprintable() else '?' for character in text)


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says; its class's name if it says nothing."""
    lines = str(error).strip().splitlines()
    return printable(lines[0] if lines else type(error).__name__)


def all_lines(error: BaseException) -> str:
    """Returns all that an error says, each line as `printable` has it."""
    lines = str(error).strip().splitlines()
    return '\n'.join(map(printable, lines)) or first_line(error)
