# SPDX-License-Identifier: Apache-2.0
"""Processing of many files on a Ray cluster: a pool of actors, each with one network."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import ActorPool

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.jobs import DIED, Outcome, Task, Work

CONNECT_TIMEOUT = 10.0  # s


class ClusterError(ValueError):
    """The cluster cannot run the tasks; the message is one line with the reason."""


def run_on_cluster(
    make: Callable[[], Work], tasks: Sequence[Task], arguments: argparse.Namespace
) -> Iterator[Outcome]:
    """Runs all tasks with one actor per GPU or processor core of the cluster, or `jobs`.

    Ray restarts an actor whose process or machine ends, and repeats its task once. The files of a
    task that ends its actor again are then processed one by one.

    Args:
        make: Returns the function that runs a task; called once per actor. It can be pickled.
        tasks: The files. All machines of the cluster find them under the same paths.
        arguments: The options `ray` (address), `jobs` (maximum number of actors, or None) and
            `device`.

    Yields:
        The outcome of each file, as they are finished.

    Raises:
        ValueError: `make` raised it.
        OSError: `make` raised it.
        ClusterError: The cluster cannot be reached, or has no GPU, which `device` needs.
    """
    with _connected(arguments.ray):
        resource, count = _resource(arguments.device)
        options = {'num_cpus': 1, 'num_gpus': int(resource == 'GPU')}
        actor = ray.remote(max_restarts=-1, max_task_retries=1, **options)(_Actor)
        count = min(count, arguments.jobs or count, len(tasks))
        pool = ActorPool([actor.remote(make, Path.cwd()) for _ in range(count)])
        lost = yield from _run(pool, tasks)
        alone = [[path] for task in lost if len(task) > 1 for path in task]
        lost = [task for task in lost if len(task) == 1] + (yield from _run(pool, alone))
        for (path,) in lost:
            yield Outcome(path, DIED)


class _Actor:
    """Runs on a machine of the cluster; creates its network for the first task."""

    def __init__(self, make: Callable[[], Work], folder: Path) -> None:
        with suppress(OSError):  # paths may be relative to it; absolute ones do not need it
            os.chdir(folder)
        self._make, self._work_on = make, None  # type: tuple[Callable[[], Work], Work | None]

    def run(self, task: Task) -> list[Outcome]:
        if self._work_on is None:
            self._work_on = self._make()
        return self._work_on(task)


def _run(pool: Any, tasks: Sequence[Task]) -> Generator[Outcome, None, list[Task]]:
    """Yields the outcomes; returns the tasks whose actor ended."""
    lost = {tuple(task): task for task in tasks}
    for task in tasks:
        pool.submit(lambda actor, task: actor.run.remote(task), task)
    while pool.has_next():
        try:
            outcomes = pool.get_next_unordered()
        except RayTaskError as error:
            raise error.cause from None
        except RayError:  # its tasks remain in `lost`
            continue
        del lost[tuple(outcome.path for outcome in outcomes)]
        yield from outcomes
    return list(lost.values())


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connects to a cluster, or starts one on this machine, which ends with the block."""
    here: dict[str, Any] = {}
    if address == 'local':
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
        cores = len(os.sched_getaffinity(0))
        here = {'num_cpus': cores, 'include_dashboard': False, '_node_ip_address': '127.0.0.1'}
    try:
        _check_reachable(address)
        ray.init(address, log_to_driver=False, logging_level='ERROR', **here)
    except (OSError, RuntimeError) as error:
        raise ClusterError(f'no Ray cluster at {address}: {first_line(error)}') from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT, for which Ray would wait minutes."""
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


def _resource(device: str) -> tuple[str, int]:
    """Returns what each actor needs for itself, 'GPU' or 'CPU', and how many there are."""
    has = ray.cluster_resources()
    if device == 'cpu' or (device == 'auto' and not has.get('GPU')):
        return 'CPU', int(has.get('CPU', 0))
    if not has.get('GPU'):
        raise ClusterError(f'device {device} needs a GPU, and the Ray cluster has none')
    return 'GPU', int(has['GPU'])
