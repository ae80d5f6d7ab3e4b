# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rock_seg_ros.tools.jobs import DIED, add_job_options, run_tasks


def options(*given):
    parser = argparse.ArgumentParser()
    add_job_options(parser, 'image')
    parser.set_defaults(device='cpu')
    return parser.parse_args(given)


def outcomes(make, tasks, *given):
    tasks = [[Path(name) for name in task.split()] for task in tasks]
    return list(run_tasks(make, tasks, options(*given)))


def attempts(folder, name):
    return (folder / f'attempts {name}').read_text().splitlines()


@pytest.mark.parametrize('jobs', [1, 2])
def test_outcomes_have_the_order_of_the_tasks_for_any_number_of_jobs(make, jobs):
    found = outcomes(make, ['a b', 'bad', 'c'], '--jobs', str(jobs))
    assert [(str(path), problem) for path, problem, *_ in found] == [
        ('a', ''), ('b', ''), ('bad', 'is bad'), ('c', ''),
    ]  # fmt: skip
    assert {notes for _, _, notes, _ in found} == {('a note',)}


def test_each_job_loads_one_network_for_all_its_tasks(make, tmp_path):
    outcomes(make, map(str, range(20)), '--jobs', '2')
    networks = {path.name.split()[1] for path in tmp_path.glob('network *')}
    assert len(networks) <= 2
    assert {process for n in range(20) for process in attempts(tmp_path, n)} == networks
    assert str(os.getpid()) not in networks


def test_a_file_whose_worker_dies_is_tried_once_more_and_the_others_are_processed(make, tmp_path):
    tasks = [[Path(name)] for name in ('a', 'fatal', 'fatal once', 'b')]
    found = list(run_tasks(make, tasks, options('--jobs', '2')))
    assert [(str(path), problem) for path, problem, *_ in found] == [
        ('a', ''), ('fatal', DIED), ('fatal once', ''), ('b', ''),
    ]  # fmt: skip
    counts = [len(attempts(tmp_path, name)) for name in ('fatal', 'fatal once')]
    assert counts == [2, 2]


def test_of_a_batch_whose_worker_dies_only_the_faulty_file_fails(make):
    found = outcomes(make, ['a fatal b', 'c'], '--jobs', '2')
    assert [outcome.path.name for outcome in found if outcome.problem] == ['fatal']


def test_a_network_that_cannot_be_loaded_ends_the_run_with_the_reason(make, tmp_path):
    (tmp_path / 'no network').touch()
    with pytest.raises(ValueError, match='no network here'):
        outcomes(make, ['a', 'b'], '--jobs', '2')


def test_the_processor_cores_are_divided_among_the_jobs(tmp_path, monkeypatch):
    (tmp_path / 'cores_for_tests.py').write_text(
        'import os, pathlib, rock_seg_ros.tools.jobs as jobs\n'
        'found = tuple(map(str, sorted(os.sched_getaffinity(0))))\n'  # as runtimes do
        'class Work:\n'
        '    def __call__(self, task):\n'
        '        return [jobs.Outcome(path, notes=found) for path in task]\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module('cores_for_tests')
    shares = {found.notes for found in outcomes(module.Work, map(str, range(20)), '--jobs', '2')}
    cores = list(map(str, sorted(os.sched_getaffinity(0))))
    assert shares <= {tuple(cores[0::2]), tuple(cores[1::2] or cores)}


PARENT = """
import sys, time
from argparse import Namespace
from functools import partial
from pathlib import Path
from rock_seg_ros.tools.jobs import run_tasks
from work_for_tests import Work

if __name__ == '__main__':
    tasks = [[Path(str(number))] for number in range(4)]
    make = partial(Work, Path(sys.argv[1]))
    for number, _ in enumerate(run_tasks(make, tasks, Namespace(jobs=2, ray=None))):
        if number == 1:
            print('two tasks are done', flush=True)
            time.sleep(60)
"""


def test_worker_processes_end_when_their_parent_is_killed(make, tmp_path):
    (tmp_path / 'parent.py').write_text(PARENT)
    command = [sys.executable, tmp_path / 'parent.py', tmp_path]
    pipe, quiet = (
        subprocess.PIPE,
        subprocess.DEVNULL,
    )  # the resource tracker of Python warns of semaphores
    with subprocess.Popen(command, stdout=pipe, stderr=quiet) as process:
        assert process.stdout.readline() == b'two tasks are done\n'
        workers = [int(path.name.split()[1]) for path in tmp_path.glob('network *')]
        ends = [os.pidfd_open(worker) for worker in workers]
        process.send_signal(signal.SIGKILL)
    assert ends
    for end in ends:
        assert select.select([end], [], [], 10)[0], 'the worker still runs'
        os.close(end)


@pytest.mark.parametrize('wrong', ['0', '-1'])
def test_a_number_of_jobs_below_1_is_a_usage_error(wrong, capsys):
    with pytest.raises(SystemExit):
        options('--jobs', wrong)
    assert f'must be 1 or more, not {wrong}' in capsys.readouterr().err
