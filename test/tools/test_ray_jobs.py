# SPDX-License-Identifier: Apache-2.0
"""Jobs on a local Ray cluster of two processor cores."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import pytest

from rock_seg_ros.tools.jobs import DIED, run_tasks
from rock_seg_ros.tools.main import main

ray = pytest.importorskip('ray')

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / 'demo/samples/images/332.webp'


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Limits Ray to two workers, since it starts one per core."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('RAY_worker_niceness', '0')  # the default, 15, is slow on busy cores
    yield
    assert ray_processes() == []


def ray_processes():
    """Returns the command lines of the Ray processes that this process has started."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, parent = stat.read_text().rpartition(') ')[2].split()[:2]
            if int(parent) == os.getpid() and state != 'Z':
                found.append((stat.parent / 'cmdline').read_text())
        except OSError:  # ended meanwhile
            continue
    return [line for line in found if 'ray' in line]


def test_files_whose_worker_dies_are_tried_again_and_then_listed(make, tmp_path):
    tasks = [
        ['a'],
        ['fatal'],
        ['fatal once'],
        ['b', 'bad'],
        *([str(number)] for number in range(9)),
    ]
    options = Namespace(ray='local', jobs=None, device='cpu')
    found = run_tasks(make, [[Path(name) for name in task] for task in tasks], options)
    problems = {str(path): problem for path, problem, *_ in found}
    assert problems.keys() == {name for task in tasks for name in task}
    failed = {name: problem for name, problem in problems.items() if problem}
    assert failed == {'fatal': DIED, 'bad': 'is bad'}
    assert len((tmp_path / 'attempts fatal').read_text().splitlines()) == 2
    died = 3  # the workers of both attempts of `fatal` and of the first one of `fatal once`
    assert len(list(tmp_path.glob('network *'))) <= 2 + died


def test_results_equal_those_without_ray(tmp_path, capsys):
    rocks = cv2.resize(cv2.imread(str(SAMPLE)), (96, 64), interpolation=cv2.INTER_AREA)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), rocks)
    (tmp_path / 'bad.png').write_bytes(b'no image')

    def find(out, *more):
        given = ['images', str(tmp_path / '*.png'), '-o', str(tmp_path / out)]
        status = main([*given, '--device', 'cpu', '--backend', 'torch', *more])
        files = {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}
        lines = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg' in line]
        return status, lines, files  # other lines are the progress on a slow machine

    without_ray = find('without_ray')
    assert find('with_ray', '--ray', 'local') == without_ray
    assert (without_ray[0], len(without_ray[2])) == (1, 6)


def test_a_device_that_the_cluster_does_not_have_is_an_error(make, monkeypatch):
    for name, value in (('init', None), ('shutdown', None), ('cluster_resources', {'CPU': 2.0})):
        monkeypatch.setattr(ray, name, lambda *_, value=value, **__: value)
    options = Namespace(ray='local', jobs=None, device='cuda')
    with pytest.raises(ValueError, match='device cuda needs a GPU'):
        list(run_tasks(make, [[Path('a')]], options))


def test_without_ray_the_error_names_the_missing_dependency(tmp_path, monkeypatch, capsys):
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.imread(str(SAMPLE)))
    monkeypatch.delitem(sys.modules, 'rock_seg_ros.tools.ray_jobs', raising=False)
    monkeypatch.setitem(sys.modules, 'ray', None)
    given = ['images', str(tmp_path / 'a.png'), '-o', str(tmp_path / 'out'), '--ray', 'local']
    assert main(given) == 1
    assert capsys.readouterr().err == 'rock_seg images: missing dependency: ray\n'


def test_an_address_without_a_cluster_is_an_error_of_one_line(tmp_path, capsys):
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    cv2.imwrite(str(tmp_path / 'a.png'), cv2.imread(str(SAMPLE)))
    given = ['images', str(tmp_path / 'a.png'), '-o', str(tmp_path / 'out')]
    assert main([*given, '--ray', f'127.0.0.1:{port}']) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'rock_seg images: no Ray cluster at 127.0.0.1:{port}: ')
    assert error.count('\n') == 1
