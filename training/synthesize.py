# SPDX-License-Identifier: Apache-2.0
"""Renders images of synthetic scenes with exact labels, depth and poses."""

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
from training.synthetic.rendering import Rendering
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
    """A drive of the camera.

    Attributes:
        seconds: Duration, s.
        rate: Image rate, Hz.
        speed: Speed, m/s.
    """

    seconds: float = 10.0
    rate: float = 5.0
    speed: float = 0.5

    @property
    def frames(self) -> int:
        """Number of images."""
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
    """Writes a folder of images, which do not depend on the number of workers.

    The folder appears when it is complete; until then it has the name NAME.partial.

    Args:
        folder: Output folder, new or empty.
        count: Number of images.
        seed: Seed of all random draws.
        kind: A name in `SCENE_KINDS`, or 'mix'.
        size: Width and height, px.
        per_scene: Images per scene, from different poses.
        workers: Number of processes; 0 = one per core.
        val_fraction: Share of the scenes that are marked 'val' in the manifest.

    Raises:
        FileExistsError: The folder is not empty.
        OSError: A file cannot be written.
    """
    rows: list[dict[str, Any]] = []
    with atomic_folder(folder) as temporary:
        prepare_folder(temporary)
        jobs: list[Job] = [
            (temporary, seed, number, kind, size, min(per_scene, count - number * per_scene))
            for number in range(-(-count // per_scene))
        ]
        with (
            _results(_render_scene, jobs, workers) as results,
            tqdm(total=count, unit='image', desc='synthesizing') as bar,
        ):
            for done in results:
                rows += done
                bar.update(len(done))
        write_tables(temporary, rows, val_fraction)


def synthesize_drive(
    folder: Path,
    bag: Path | None,
    seed: int,
    kind: str,
    size: tuple[int, int],
    drive: Drive,
    workers: int = 0,
) -> None:
    """Writes the images and the ground truth of a drive to a folder, and optionally to a rosbag2.

    Args:
        folder: Output folder, new or empty.
        bag: New rosbag2 folder; None = no bag.
        seed: Seed of all random draws.
        kind: One of `DRIVES`.
        size: Width and height, px.
        drive: Duration, image rate and speed.
        workers: Number of processes; 0 = one per core.

    Raises:
        FileExistsError: The folder is not empty, or the bag exists.
        ValueError: The scene kind has no ground to drive on.
    """
    # Loading the message types is slow, and only drives need them.
    from training.synthetic.bag import DriveBag

    jobs = [(seed, kind, size, drive, frame) for frame in range(drive.frames)]
    scene = _drive_scene(*jobs[0][:4])
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_folder(folder))
        prepare_folder(temporary)
        temporary_bag = stack.enter_context(atomic_folder(bag)) if bag else None
        writer = stack.enter_context(DriveBag(temporary_bag)) if temporary_bag else None
        results = stack.enter_context(_results(_render_frame, jobs, workers))
        rows = []
        frames = tqdm(results, total=len(jobs), unit='image', desc='synthesizing')
        for number, rendering in enumerate(frames):
            name = f'{number:06d}'
            write_rendering(temporary, name, rendering)
            rows.append(describe(name, scene, rendering))
            if writer:
                writer.write(START + round(number * 1e9 / drive.rate), rendering)
        write_tables(temporary, rows)


@lru_cache(maxsize=1)
def _drive_scene(seed: int, kind: str, size: tuple[int, int], drive: Drive) -> Scene:
    return make_drive(seed, 0, kind, size, drive.frames, drive.speed / drive.rate)


def _render_frame(job: tuple[int, str, tuple[int, int], Drive, int]) -> Rendering:
    """Renders one image of a drive; each process makes the scene once."""
    scene = _drive_scene(*job[:4])
    return scene.render(scene.cameras[job[4]], job[4])


@contextmanager
def _results(
    work: Callable[[Any], Any], jobs: Sequence[Any], workers: int
) -> Iterator[Iterator[Any]]:
    """Runs the jobs in several processes, or in this one if one is enough; keeps their order."""
    processes = min(workers or os.cpu_count() or 1, len(jobs))
    if processes == 1:
        yield map(work, jobs)
        return
    # Workers inherit this variable; more threads than cores would slow them down.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'), _start_worker)
    # Workers inherit that they ignore Ctrl-C; this process ends them.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        results = pool.map(work, jobs)
        signal.signal(signal.SIGINT, handler)
        yield results
    finally:
        signal.signal(signal.SIGINT, handler)
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Limits OpenCV to one thread, and ends the worker if its parent process ends."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _render_scene(job: Job) -> list[dict[str, Any]]:
    """Makes one scene and renders its images."""
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
    parser.add_argument('-o', '--out', type=Path, required=True, help='output folder, new or empty')
    parser.add_argument(
        '--count', type=int, default=100, help='number of images (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of all random draws (default: %(default)s)'
    )
    kinds = ' '.join(f'{name}: {make.__doc__}' for name, make in SCENE_KINDS.items())
    parser.add_argument(
        '--kind',
        '--look',  # its name until 0.1
        default='mix',
        help=f'kind of the scenes. {kinds} mix: all of these (default)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(512, 512),
        metavar=('W', 'H'),
        help='width and height of the images, px (default: 512 512)',
    )
    parser.add_argument(
        '--per-scene', type=int, default=4, help='images per scene (default: %(default)s)'
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        help='share of the scenes in the split val (default: %(default)s)',
    )
    parser.add_argument(
        '--workers', type=int, default=0, help='number of processes; 0 = one per core (default)'
    )
    drive = parser.add_argument_group('a drive instead of scenes')
    drive.add_argument(
        '--drive',
        action='store_true',
        help=f'render a drive of one camera; kinds: {", ".join(DRIVES)}',
    )
    drive.add_argument(
        '--seconds', type=float, default=Drive.seconds, help='duration, s (default: %(default)s)'
    )
    drive.add_argument(
        '--rate', type=float, default=Drive.rate, help='image rate, Hz (default: %(default)s)'
    )
    drive.add_argument(
        '--speed', type=float, default=Drive.speed, help='speed, m/s (default: %(default)s)'
    )
    drive.add_argument(
        '--bag', type=Path, help='new rosbag2 folder for images, camera_info and depth'
    )
    parsed = parser.parse_args(arguments)
    try:
        _check(parsed)
        size = tuple(parsed.size)
        if parsed.drive:
            settings = Drive(parsed.seconds, parsed.rate, parsed.speed)
            synthesize_drive(
                parsed.out, parsed.bag, parsed.seed, parsed.kind, size, settings, parsed.workers
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
            'training.synthesize: a worker was killed; try fewer --workers, which need less memory',
            file=sys.stderr,
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
        raise ValueError(f'kind is {parsed.kind!r}; expected: {", ".join(SCENE_KINDS)} or mix')
    for name, least in (('count', 1), ('per_scene', 1), ('workers', 0), ('seed', 0)):
        if getattr(parsed, name) < least:
            raise ValueError(f'{name} is {getattr(parsed, name)}; it must be {least} or more')
    if not 0 <= parsed.val_fraction < 1:
        raise ValueError(
            f'val_fraction is {parsed.val_fraction}; it must be at least 0 and below 1'
        )
    if min(parsed.size) < 32 or max(parsed.size) > 4096:
        raise ValueError(f'size is {tuple(parsed.size)}; each side must be 32 to 4096 px')
    for name in ('seconds', 'rate', 'speed'):
        if not 0 < getattr(parsed, name) < 1e4:
            raise ValueError(
                f'{name} is {getattr(parsed, name)}; it must be above 0 and below 10000'
            )
    if parsed.bag and not parsed.drive:
        raise ValueError(f'--bag {parsed.bag} needs --drive')
    if parsed.bag and _overlap(parsed.bag.resolve(), parsed.out.resolve()):
        raise ValueError(f'--bag {parsed.bag} and --out {parsed.out} must not contain each other')


def _overlap(one: Path, two: Path) -> bool:
    return one.is_relative_to(two) or two.is_relative_to(one)


if __name__ == '__main__':
    sys.exit(main())
