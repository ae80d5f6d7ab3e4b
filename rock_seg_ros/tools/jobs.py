# SPDX-License-Identifier: Apache-2.0
"""Processing of many files with one network per worker: in one or several processes, or on Ray.

This module imports neither torch nor OpenCV, so that a worker process can choose its processor
cores before the runtimes count them.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

DIED = 'the worker process ended without a result, twice; it may have run out of memory'


class Outcome(NamedTuple):
    """The outcome of the processing of a file.

    Attributes:
        path: The file.
        problem: The reason of a failure in one line; empty if there was none.
        notes: Other lines to report.
        written: Whether its results were written.
    """

    path: Path
    problem: str = ''
    notes: tuple[str, ...] = ()
    written: bool = False


Task = Sequence[Path]  # files that are processed together
Work = Callable[[Task], list[Outcome]]  # one outcome per file, in the order of the files


def add_job_options(parser: argparse.ArgumentParser, unit: str) -> None:
    """Adds `--jobs` and `--ray`; `unit` is the word for an input."""
    parser.add_argument(
        '--jobs', type=positive, metavar='N',
        help='number of worker processes. Each loads its own network; the processor cores are'
        ' divided among them (default: 1, which is this process; with --ray, one per GPU of the'
        ' cluster, or per processor core if it has no GPU)',
    )  # fmt: skip
    parser.add_argument(
        '--ray', metavar='ADDRESS',
        help=f'process the {unit}s on a Ray cluster, such as HOST:6379 or auto; local starts Ray on'
        ' this machine (default: without Ray)',
    )  # fmt: skip


def run_tasks(
    make: Callable[[], Work], tasks: Sequence[Task], arguments: argparse.Namespace
) -> Iterator[Outcome]:
    """Runs all tasks.

    If a worker process ends, for example because memory runs out, the files of its task are
    repeated once, one by one. The other tasks are not affected.

    Args:
        make: Returns the function that runs a task; called once per worker. It can be pickled.
        tasks: The files.
        arguments: The options of `add_job_options`, and `device`.

    Yields:
        The outcome of each file, in the order of the tasks; with Ray, as they are finished.

    Raises:
        ValueError: `make` raised it, or the cluster has no worker for the device.
        OSError: `make` raised it, or the cluster cannot be reached.
        ImportError: Ray is not installed.
    """
    if not tasks:
        return
    if arguments.ray:
        from rock_seg_ros.tools.ray_jobs import run_on_cluster

        yield from run_on_cluster(make, tasks, arguments)
    elif (arguments.jobs or 1) > 1:
        yield from _run_in_processes(make, tasks, min(arguments.jobs, len(tasks)))
    else:
        work = make()
        for task in tasks:
            yield from work(task)


def _run_in_processes(
    make: Callable[[], Work], tasks: Sequence[Task], jobs: int
) -> Iterator[Outcome]:
    """Runs the tasks in `jobs` threads, each of which has a worker process."""
    mine = threading.local()
    workers: list[_Worker] = []
    cores = sorted(os.sched_getaffinity(0))
    shares = [cores[number::jobs] or [cores[number % len(cores)]] for number in range(jobs)]

    def start() -> None:
        # Processes inherit it: Ctrl-C ends this process, which then lets them finish their files.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        mine.worker = _Worker(make, shares.pop())
        workers.append(mine.worker)

    try:
        with ThreadPoolExecutor(jobs, initializer=start) as threads:
            for outcomes in threads.map(lambda task: mine.worker.run(task), tasks):
                yield from outcomes
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """A process that runs one task at a time. If it ends, it is replaced by a new one."""

    def __init__(self, make: Callable[[], Work], cores: Sequence[int]) -> None:
        self._start = lambda: ProcessPoolExecutor(
            1, get_context('spawn'), _start_process, (pickle.dumps(make), cores)
        )
        self._pool = self._start()

    def run(self, task: Task) -> list[Outcome]:
        """Runs a task; repeats its files one by one if the process ends."""
        try:
            return self._submit(task).result()
        except BrokenProcessPool:
            return [self._repeat(path) for path in task]

    def _repeat(self, path: Path) -> Outcome:
        try:
            return self._submit([path]).result()[0]
        except BrokenProcessPool:
            return Outcome(path, DIED)

    def _submit(self, task: Task) -> Future[list[Outcome]]:
        try:
            return self._pool.submit(_work, task)
        except BrokenProcessPool:
            self.close()
            self._pool = self._start()
            return self._pool.submit(_work, task)

    def close(self) -> None:
        """Ends the process once it has finished its task."""
        self._pool.shutdown()


class _Process:
    """State of a worker process."""

    make: Callable[[], Work]
    work: Work | None = None


def _start_process(make: bytes, cores: Sequence[int]) -> None:
    """Prepares a worker process: its processor cores, and its end together with the parent."""
    os.sched_setaffinity(0, cores)
    threading.Thread(target=_end_after, args=(parent_process(),), daemon=True).start()
    _Process.make = pickle.loads(make)  # imports the runtimes, which count the cores


def _end_after(parent: BaseProcess) -> None:
    """Ends this process after another one has ended or was killed."""
    parent.join()
    os._exit(1)


def _work(task: Task) -> list[Outcome]:
    """Runs a task in a worker process, which creates its network for the first task."""
    if _Process.work is None:
        _Process.work = _Process.make()
    return _Process.work(task)


def positive(text: str) -> int:
    """Reads a whole number of at least 1 from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, not {text}')
    return value
