# SPDX-License-Identifier: Apache-2.0
"""Measures how well rocks keep their ids, on synthetic drives where every rock's number is known.

The rocks are the exact masks, some of them missing for a while, or those that a network finds. Told
are IDF1 and id switches (Ristani et al. 2016, arXiv:1609.01775) of the Tracker beside the same
without its parts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import networkx  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import PosedView, View
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.instances.tracking import Tracker
from training.matching import MATCH_IOU
from training.synthetic.render import Rendering
from training.synthetic.scene import DRIVES, make_drive

STEP = 0.05  # m, from one rendered image to the next
LONGEST_MISS = 0.9  # s


@dataclass(frozen=True)
class Case:
    """How a drive is seen.

    Attributes:
        rate: Images a second.
        speed: Metres a second; as a multiple of `STEP` an image.
        missing: Probability of a rock to go missing, in each image where it was there before.
    """

    rate: float
    speed: float
    missing: float = 0.0

    @property
    def every(self) -> int:
        """Of how many rendered images one is seen."""
        return max(1, round(self.speed / self.rate / STEP))

    def __str__(self) -> str:
        """Returns what people read."""
        told = f'{self.rate:g} Hz, {self.speed:g} m/s'
        return f'{told}, {self.missing:.0%} go missing' if self.missing else told


CASES = (
    *(Case(rate, 0.5) for rate in (10, 5, 2, 1)),
    *(Case(rate, 0.5, missing=0.1) for rate in (10, 5, 2)),
    Case(10, 2.0),
    Case(2, 1.0),
)
NETWORK_CASES = (Case(2, 0.5), Case(1, 0.5))


@dataclass(frozen=True)
class Seen:
    """An image and the rocks that were found in it.

    Attributes:
        image: H×W×3 uint8 RGB.
        found: The rocks.
        true: The number of the true rock that each of them is, 0 for none.
        overlooked: The numbers of the other true rocks.
        sight: Its exact depth and pose.
    """

    image: NDArray[np.uint8]
    found: list[Rock]
    true: list[int]
    overlooked: list[int]
    sight: PosedView | None = None


@dataclass(frozen=True)
class Score:
    """Counts of rocks in images; those of several drives may be added.

    Attributes:
        matched: Rocks whose id is that of their whole way.
        true: True rocks.
        given: Rocks that got an id.
        switches: True rocks whose id is another than the last time that they were found.
    """

    matched: int = 0
    true: int = 0
    given: int = 0
    switches: int = 0

    def __add__(self, other: Score) -> Score:
        """Returns the sums."""
        return Score(
            self.matched + other.matched,
            self.true + other.true,
            self.given + other.given,
            self.switches + other.switches,
        )

    @property
    def idf1(self) -> float:
        """0 to 1; 1 where there is nothing to follow."""
        rocks = self.true + self.given
        return 2 * self.matched / rocks if rocks else 1.0


def score(images: Iterable[Sequence[tuple[int, int]]]) -> Score:
    """Counts one drive.

    Args:
        images: The number of the true rock and the id that was given, of each rock; 0 for none.
    """
    rocks = [rock for image in images for rock in image]
    ways = networkx.Graph()
    for (true, given), times in Counter(rocks).items():
        if true and given:
            ways.add_edge(('true', true), ('given', given), times=times)
    best = networkx.max_weight_matching(ways, weight='times')
    last: dict[int, int] = {}
    switches = 0
    for true, given in rocks:
        if true and given:
            switches += last.get(true, given) != given
            last[true] = given
    return Score(
        sum(ways.edges[edge]['times'] for edge in best),
        sum(true > 0 for true, _ in rocks),
        sum(given > 0 for _, given in rocks),
        switches,
    )


def with_motion(tracker: Tracker) -> Callable[[Seen, float], list[Rock]]:
    """Returns what follows the rocks of an image at a time as the Tracker is meant to."""
    return lambda seen, time: tracker.follow(seen.image, seen.found, time)


def with_sight(tracker: Tracker) -> Callable[[Seen, float], list[Rock]]:
    """Returns the same with depth and poses."""
    return lambda seen, time: tracker.follow(seen.image, seen.found, time, seen.sight)


def without_motion(tracker: Tracker) -> Callable[[Seen, float], list[Rock]]:
    """Returns the same for a camera that seems to stand still: plain overlap of the masks."""
    still: list[NDArray[np.uint8]] = []

    def follow(seen: Seen, time: float) -> list[Rock]:
        still[:] = still or [seen.image]
        return tracker.follow(still[0], seen.found, time)

    return follow


TRACKERS: dict[str, Callable[[], Callable[[Seen, float], list[Rock]]]] = {
    'Tracker': lambda: with_motion(Tracker()),
    'depth, poses': lambda: with_sight(Tracker()),
    'no memory': lambda: with_motion(Tracker(memory=0.0)),
    'no motion': lambda: without_motion(Tracker()),
    'plain IoU': lambda: without_motion(Tracker(memory=0.0)),
}


def follow(drive: Sequence[Seen], rate: float, tracker: str) -> Score:
    """Lets one of `TRACKERS` follow the rocks of a drive.

    Args:
        drive: The images in order.
        rate: Images a second.
        tracker: Its name.
    """
    ids_of = TRACKERS[tracker]()
    images = []
    for number, seen in enumerate(drive):
        ids = [rock.id for rock in ids_of(seen, number / rate)]
        overlooked = [(true, 0) for true in seen.overlooked]
        images.append([*zip(seen.true, ids, strict=True), *overlooked])
    return score(images)


def see_exactly(rendering: Rendering, min_area: int) -> Seen:
    """Returns an image with its true rocks, but for those of fewer pixels."""
    area = np.bincount(rendering.instances.ravel())
    numbers = [n for n in np.flatnonzero(area).tolist() if n and area[n] >= min_area]
    rocks = [_rock(rendering.instances, number) for number in numbers]
    return Seen(rendering.image, rocks, numbers, [], sight_of(rendering))


def sight_of(rendering: Rendering) -> PosedView:
    """Returns the depth of an image and where it was taken from."""
    height, width = rendering.depth.shape
    lens = Intrinsics(rendering.intrinsics, np.zeros(0), size=(width, height))
    return PosedView(View(lens, rendering.depth), rendering.pose)


def _rock(instances: NDArray[np.uint16], number: int) -> Rock:
    """Returns a rock of exact mask; no score and no polygon, which nobody asks for here."""
    mask: Any = cv2.inRange(instances, number, number)
    x, y, width, height = cv2.boundingRect(mask)
    own = mask[y : y + height, x : x + width]
    centre = (x + (width - 1) / 2, y + (height - 1) / 2)
    polygon = np.zeros((0, 2), np.float32)
    return Rock(0, 1, 1.0, int(np.count_nonzero(own)), (x, y, width, height), centre, polygon, own)


def see_through(segmenter: Segmenter, rendering: Rendering, settings: RockSettings) -> Seen:
    """Returns an image with the rocks that a network finds, and which true rock each is.

    A found rock is the true one that it has an IoU above 0.5 with. True rocks below `min_area` do
    not count, nor do found ones that are such.
    """
    found = find_rocks(segmenter.segment(rendering.image), settings)
    drawn = draw_instances(found, rendering.instances.shape)
    pairs = np.zeros((len(found) + 1, int(rendering.instances.max()) + 1), np.int64)
    np.add.at(pairs, (drawn, rendering.instances), 1)
    area = pairs.sum(axis=0)
    iou = pairs / np.maximum(1, pairs.sum(axis=1)[:, None] + area - pairs)
    iou[:, 0] = 0
    true = np.where(iou.max(axis=1) > MATCH_IOU, iou.argmax(axis=1), 0)[1:]
    counts = (true == 0) | (area[true] >= settings.min_area)
    told = [rock for rock, counted in zip(found, counts, strict=True) if counted]
    asked = set((np.flatnonzero(area[1:] >= settings.min_area) + 1).tolist())
    numbers = true[counts].tolist()
    overlooked = sorted(asked - set(numbers))
    return Seen(rendering.image, told, numbers, overlooked, sight_of(rendering))


def lose_some(drive: Sequence[Seen], case: Case, seed: int) -> list[Seen]:
    """Lets rocks go missing, each for up to `LONGEST_MISS`; then it is there at least once.

    A missing rock does not count where it is missing: nobody could know its id.
    """
    rng = np.random.default_rng(seed)
    until: dict[int, float] = {}
    there: set[int] = set()
    result = []
    for number, seen in enumerate(drive):
        time = number / case.rate
        for true in there.intersection(seen.true):
            if rng.uniform() < case.missing:
                until[true] = time + rng.uniform(0, LONGEST_MISS)
        kept = [at for at, true in enumerate(seen.true) if time >= until.get(true, 0)]
        there = {seen.true[at] for at in kept}
        found = [seen.found[at] for at in kept]
        result.append(replace(seen, found=found, true=[seen.true[at] for at in kept]))
    return result


def measure(
    kinds: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int],
    images: int,
    segmenter: Segmenter | None = None,
) -> dict[str, dict[str, Score]]:
    """Measures every tracker on every case.

    Args:
        kinds: Of `DRIVES`.
        seeds: One drive of each kind for each.
        size: Width and height of the images, px.
        images: Of each drive, `STEP` apart.
        segmenter: Finds rocks, too; None = exact masks only.

    Returns:
        By case, then by tracker.
    """
    scores: dict[str, dict[str, Score]] = {}
    settings = RockSettings()
    drives = [(kind, seed) for kind in kinds for seed in seeds]
    with tqdm(total=len(drives) * images, unit='image', desc='following') as bar:
        for kind, seed in drives:
            scene = make_drive(seed, 0, kind, size, images, STEP)
            renderings = []
            for frame, camera in enumerate(scene.cameras):
                renderings.append(scene.render(camera, frame))
                bar.update()
            exact = [see_exactly(rendering, settings.min_area) for rendering in renderings]
            for case in CASES:
                _add(
                    scores,
                    f'exact masks, {case}',
                    case,
                    lose_some(exact[:: case.every], case, seed),
                )
            if segmenter:
                for case in NETWORK_CASES:
                    seen = [see_through(segmenter, r, settings) for r in renderings[:: case.every]]
                    _add(scores, f'network, {case}', case, seen)
    return scores


def _add(scores: dict[str, dict[str, Score]], name: str, case: Case, drive: Sequence[Seen]) -> None:
    row = scores.setdefault(name, {})
    for tracker in TRACKERS:
        row[tracker] = row.get(tracker, Score()) + follow(drive, case.rate, tracker)


def lines(scores: dict[str, dict[str, Score]]) -> list[str]:
    """Returns a table for people: IDF1, and switches in 1000 rocks."""
    head = f'{"IDF1 (switches in 1000)":44}' + ''.join(f'{name:>18}' for name in TRACKERS)
    rows = [head]
    for case, row in scores.items():
        told = (f'{s.idf1:.4f} ({1000 * s.switches / max(1, s.given):.1f})' for s in row.values())
        rows.append(f'{case:44}' + ''.join(f'{figures:>18}' for figures in told))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, prog='python -m training.evaluate_tracking'
    )
    parser.add_argument('--kinds', '--looks', nargs='+', choices=DRIVES, default=DRIVES)
    parser.add_argument('--seed', type=int, default=1, help='of the first drive of each kind')
    parser.add_argument('--drives', type=int, default=2, help='of each kind')
    parser.add_argument('--frames', type=int, default=60, help=f'of each drive, {STEP} m apart')
    parser.add_argument('--size', type=int, nargs=2, default=(320, 240), metavar=('W', 'H'))
    parser.add_argument('--network', action='store_true', help="a network's rocks, too")
    parser.add_argument('--weights', default='', help='weights file (default: the embedded)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    seeds = range(given.seed, given.seed + given.drives)
    try:
        if min(given.drives, given.frames) < 1:
            raise ValueError(f'--drives {given.drives} --frames {given.frames}: nothing to follow')
        segmenter = None
        if given.network:
            segmenter = Segmenter(load_weights(given.weights, given.device), given.device)
        scores = measure(given.kinds, seeds, tuple(given.size), given.frames, segmenter)
    except (DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate_tracking: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        told = {
            case: {name: {'idf1': each.idf1, **asdict(each)} for name, each in row.items()}
            for case, row in scores.items()
        }
        print(json.dumps(told))
    else:
        print('\n'.join(lines(scores)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
