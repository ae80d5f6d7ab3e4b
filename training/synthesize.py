# SPDX-License-Identifier: Apache-2.0
"""Makes images of synthetic scenes with exact labels, depth and poses."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from rock_seg_ros.perception.errors import all_lines
from training.synthetic.render import Rendering
from training.synthetic.scene import DRIVES, Scene, make_drive, make_scene
from training.synthetic.scene_kinds import SCENE_KINDS
from training.synthetic.writing import (
    atomic_folder,
    describe,
    prepare_folder,
    write_rendering,
    write_tables,
)

Job = tuple[Path, int, int, str, tuple[int, int], int]
# 2030-01-01T00:00:00Z, ns; a fixed time keeps bags reproducible.
START = 1_893_456_000 * 10**9


@dataclass(frozen=True)
class Drive:
    """A camera's way.

    Attributes:
        seconds: How long.
        rate: Images a second.
        speed: Metres a second.
    """

    seconds: float = 10.0
    rate: float = 5.0
    speed: float = 0.5

    @property
    def frames(self) -> int:
        """How many images there are."""
        return max(1, round(self.seconds * self.rate))


def synthesize(
    folder: Path,
    count: int,
    seed: int,
    kind: str,
    size: tuple[int, int],
    per_scene: int = 4,
    workers: int = 0,
    val_fraction: float = 0.2,
) -> None:
    """Writes a folder of images; alike with any number of workers.

    The folder appears when all is written; until then there is a NAME.partial beside it.

    Args:
        folder: New or empty.
        count: Images.
        seed: Of everything random.
        kind: A name in `SCENE_KINDS`, or 'mix'.
        size: Width and height, px.
        per_scene: Images of each scene, from different poses.
        workers: Processes; 0 = one a core.
        val_fraction: Share of the scenes that the manifest calls 'val'.

    Raises:
        FileExistsError: There is something in the folder.
        OSError: The disk is full, or the like.
    """
    rows: list[dict[str, Any]] = []
    with atomic_folder(folder) as place:
        prepare_folder(place)
        jobs: list[Job] = [
            (place, seed, number, kind, size, min(per_scene, count - number * per_scene))
            for number in range(-(-count // per_scene))
        ]
        with (
            _results(_make, jobs, workers) as results,
            tqdm(total=count, unit='image', desc='synthesizing') as bar,
        ):
            for done in results:
                rows += done
                bar.update(len(done))
        write_tables(place, rows, val_fraction)


def synthesize_drive(
    folder: Path,
    bag: Path | None,
    seed: int,
    kind: str,
    size: tuple[int, int],
    drive: Drive,
    workers: int = 0,
) -> None:
    """Writes the images of a drive and their truth to a folder, and to a rosbag2.

    Args:
        folder: New or empty.
        bag: New rosbag2 folder, or None.
        seed: Of everything random.
        kind: One of `DRIVES`.
        size: Width and height, px.
        drive: How far and how fast.
        workers: Processes; 0 = one a core.

    Raises:
        FileExistsError: There is something in the folder, or such a bag.
        ValueError: The look has no ground to drive on.
    """
    # Its message types take long to load, and only drives need them.
    from training.synthetic.bag import DriveBag

    jobs = [(seed, kind, size, drive, frame) for frame in range(drive.frames)]
    scene = _drive(*jobs[0][:4])
    with ExitStack() as stack:
        place = stack.enter_context(atomic_folder(folder))
        prepare_folder(place)
        bag_place = stack.enter_context(atomic_folder(bag)) if bag else None
        writer = stack.enter_context(DriveBag(bag_place)) if bag_place else None
        results = stack.enter_context(_results(_frame, jobs, workers))
        rows = []
        frames = tqdm(results, total=len(jobs), unit='image', desc='driving')
        for number, rendering in enumerate(frames):
            name = f'{number:06d}'
            write_rendering(place, name, rendering)
            rows.append(describe(name, scene, rendering))
            if writer:
                writer.write(START + round(number * 1e9 / drive.rate), rendering)
        write_tables(place, rows)


@lru_cache(maxsize=1)
def _drive(seed: int, kind: str, size: tuple[int, int], drive: Drive) -> Scene:
    return make_drive(seed, 0, kind, size, drive.frames, drive.speed / drive.rate)


def _frame(job: tuple[int, str, tuple[int, int], Drive, int]) -> Rendering:
    """Takes one image of a drive; each process makes the scene once."""
    scene = _drive(*job[:4])
    return scene.render(scene.cameras[job[4]], job[4])


@contextmanager
def _results(
    work: Callable[[Any], Any], jobs: Sequence[Any], workers: int
) -> Iterator[Iterator[Any]]:
    """Does the jobs in several processes, or here if one is asked for; results are in order."""
    processes = min(workers or os.cpu_count() or 1, len(jobs))
    if processes == 1:
        yield map(work, jobs)
        return
    # Workers inherit it: threads of their own would only wait for each other's cores.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _start_worker)
    # Workers inherit that Ctrl-C is none of their business: this process tells them to end.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        results = pool.map(work, jobs)
        signal.signal(signal.SIGINT, handler)
        yield results
    finally:
        signal.signal(signal.SIGINT, handler)
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Keeps OpenCV to one thread, and ends the worker when its parent was killed."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _make(job: Job) -> list[dict[str, Any]]:
    """Makes one scene and its images."""
    folder, seed, number, kind, size, images = job
    scene = make_scene(seed, number, kind, size, images)
    rows = []
    for view, camera in enumerate(scene.cameras):
        name = f'{scene.appearance.name}_{seed}_{number:05d}_{view}'
        rendering = scene.render(camera, view)
        write_rendering(folder, name, rendering)
        rows.append(describe(name, scene, rendering))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog='python -m training.synthesize')
    parser.add_argument('-o', '--out', type=Path, required=True, help='new or empty folder')
    parser.add_argument('--count', type=int, default=100, help='images')
    parser.add_argument('--seed', type=int, default=0)
    kinds = ' '.join(f'{name}: {make.__doc__}' for name, make in SCENE_KINDS.items())
    parser.add_argument(
        '--kind', '--look', default='mix', help=f'{kinds} mix: all of these (default)'
    )
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('W', 'H'))
    parser.add_argument('--per-scene', type=int, default=4, help='images of each scene')
    parser.add_argument(
        '--val-fraction', type=float, default=0.2, help="share of the scenes marked 'val'"
    )
    parser.add_argument('--workers', type=int, default=0, help='processes; 0 = one a core')
    drive = parser.add_argument_group('a drive instead of scenes')
    drive.add_argument(
        '--drive', action='store_true', help=f'one camera on its way ({", ".join(DRIVES)})'
    )
    drive.add_argument('--seconds', type=float, default=Drive.seconds)
    drive.add_argument('--rate', type=float, default=Drive.rate, help='images a second')
    drive.add_argument('--speed', type=float, default=Drive.speed, help='metres a second')
    drive.add_argument('--bag', type=Path, help='new rosbag2 folder for image, info and depth')
    parsed = parser.parse_args(arguments)
    try:
        _check(parsed)
        size = tuple(parsed.size)
        if parsed.drive:
            drive_by = Drive(parsed.seconds, parsed.rate, parsed.speed)
            synthesize_drive(
                parsed.out, parsed.bag, parsed.seed, parsed.kind, size, drive_by, parsed.workers
            )
        else:
            synthesize(
                parsed.out,
                parsed.count,
                parsed.seed,
                parsed.kind,
                size,
                parsed.per_scene,
                parsed.workers,
                parsed.val_fraction,
            )
    except BrokenProcessPool:
        print(
            'training.synthesize: a worker was killed; is there too little memory?', file=sys.stderr
        )
        return 1
    except (ValueError, OSError) as error:
        print(f'training.synthesize: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _check(parsed: argparse.Namespace) -> None:
    if parsed.kind not in (*SCENE_KINDS, 'mix'):
        raise ValueError(f'look is {parsed.kind!r}; legal is {", ".join(SCENE_KINDS)} or mix')
    for name, least in (('count', 1), ('per_scene', 1), ('workers', 0), ('seed', 0)):
        if getattr(parsed, name) < least:
            raise ValueError(f'{name} is {getattr(parsed, name)}; legal is {least} or more')
    if not 0 <= parsed.val_fraction < 1:
        raise ValueError(f'val_fraction is {parsed.val_fraction}; legal is 0 to below 1')
    if min(parsed.size) < 32 or max(parsed.size) > 4096:
        raise ValueError(f'size is {tuple(parsed.size)}; legal is 32 to 4096 px a side')
    for name in ('seconds', 'rate', 'speed'):
        if not 0 < getattr(parsed, name) < 1e4:
            raise ValueError(f'{name} is {getattr(parsed, name)}; legal is above 0, below 10000')
    if parsed.bag and not parsed.drive:
        raise ValueError(f'--bag {parsed.bag} needs --drive')
    if parsed.bag and _overlap(parsed.bag.resolve(), parsed.out.resolve()):
        raise ValueError(f'--bag {parsed.bag} and --out {parsed.out} must not lie in each other')


def _overlap(one: Path, two: Path) -> bool:
    return one.is_relative_to(two) or two.is_relative_to(one)


if __name__ == '__main__':
    sys.exit(main())
