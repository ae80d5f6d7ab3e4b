# SPDX-License-Identifier: Apache-2.0
"""Errors are reported in short lines without control characters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rock_seg_ros.perception.errors import MAX_LENGTH, all_lines, first_line, printable


def test_an_error_is_reported_by_its_first_line_or_its_type() -> None:
    assert first_line(ValueError('\n  a.png: broken\nlong story')) == 'a.png: broken'
    assert first_line(ValueError()) == 'ValueError'


@pytest.mark.parametrize('format_error', [first_line, all_lines])
def test_an_os_error_is_reported_by_its_file_and_its_reason(
    format_error: Callable[[BaseException], str],
) -> None:
    assert format_error(IsADirectoryError(21, 'Is a directory', 'out')) == 'out: Is a directory'
    assert format_error(OSError('disk\nfailure')) == format_error(ValueError('disk\nfailure'))


def test_a_long_line_is_shortened_in_the_middle() -> None:
    line = printable(f'weights.pth: {"x" * 10**6}: is no number')
    assert len(line) == MAX_LENGTH
    assert line.startswith('weights.pth: xxx')
    assert line.endswith('xxx: is no number')
    assert first_line(ValueError('y' * 10**6)) == printable('y' * 10**6)


def test_a_line_of_the_maximum_length_is_not_shortened() -> None:
    assert printable('z' * MAX_LENGTH) == 'z' * MAX_LENGTH
    assert printable('größe 480×640 “石”') == 'größe 480×640 “石”'


@pytest.mark.parametrize('character', ['\x1b', '\0', '\r', '\x9b', '\u202e', '\u2028', '\udcff'])
def test_a_control_character_is_replaced(character: str) -> None:
    assert printable(f'a{character}[31mb') == 'a?[31mb'


def test_each_line_of_an_error_is_shortened_separately() -> None:
    lines = all_lines(ValueError(f'a.png: \x1b\nb.png: {"x" * 10**5}')).splitlines()
    assert lines[0] == 'a.png: ?'
    assert len(lines[1]) == MAX_LENGTH
    assert all_lines(KeyboardInterrupt()) == 'KeyboardInterrupt'
