# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys

import pytest

from rock_seg_ros.tools.progress import LOG_INTERVAL, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """The clock of tqdm, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr('tqdm.std.time', lambda: now[0])
    return now


def run(clock, seconds, count, done=0):
    """Processes `count` items in `seconds` each."""
    with progress(unit='image', total=done + count, done=done) as bar:
        for _ in range(count):
            clock[0] += seconds
            bar.update()


def test_a_log_file_has_a_line_per_interval_and_one_at_the_end(clock, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', log)
    run(clock, 0.125, 8000)
    lines = log.getvalue().splitlines()
    assert 1000 / LOG_INTERVAL / 2 < len(lines) <= 1000 / LOG_INTERVAL + 1
    assert lines[-1] == '100% 8000/8000 [16:40<00:00,  8.00image/s]'
    assert '\r' not in log.getvalue()


def test_short_work_writes_nothing_to_a_log_file(clock, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', log)
    run(clock, 0.1, 10)
    assert log.getvalue() == ''


def test_the_remaining_time_follows_the_rate_of_this_run(clock, monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', log)
    run(clock, 10, 100, done=900)
    lines = log.getvalue().splitlines()
    assert lines[0] == '90% 903/1000 [00:30<16:10, 10.00s/image]'
    assert lines[-1] == '100% 1000/1000 [16:40<00:00, 10.00s/image]'


def test_a_terminal_has_a_bar_with_the_remaining_time(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, 'stderr', terminal)
    run(clock, 2, 10)
    assert '5/10 [00:10<00:10,  2.00s/image]' in terminal.getvalue()
