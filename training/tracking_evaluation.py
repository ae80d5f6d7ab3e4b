# SPDX-License-Identifier: Apache-2.0
"""Evaluates the track ids of rocks on synthetic drives with exact ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import networkx  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import PosedView, View
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.instances.tracking import Tracker
from training.matching import MATCH_IOU
from training.synthetic.rendering import Rendering
from training.synthetic.scene import make_drive

STEP = 0.05  # m, distance between two rendered images


MAX_DROPOUT = 0.9  # s


@dataclass(frozen=True)
class Case:
    """Image rate and speed of a drive, and the probability of missed rocks.

    Attributes:
        rate: Image rate, Hz.
        speed: Speed, m/s; the distance between two images is rounded to a multiple of `STEP`.
        missing: Probability per image that a rock of the previous image begins to be missed.
    """

    rate: float
    speed: float
    missing: float = 0.0

    @property
    def stride(self) -> int:
        """Number of rendered images per image that is used."""
        return max(1, round(self.speed / self.rate / STEP))

    def __str__(self) -> str:
        """Returns a readable description."""
        text = f'{self.rate:g} Hz, {self.speed:g} m/s'
        return f'{text}, {self.missing:.0%} go missing' if self.missing else text


CASES = (
    *(Case(rate, 0.5) for rate in (10, 5, 2, 1)),
    *(Case(rate, 0.5, missing=0.1) for rate in (10, 5, 2)),
    Case(10, 2.0),
    Case(2, 1.0),
)


NETWORK_CASES = (Case(2, 0.5), Case(1, 0.5))


@dataclass(frozen=True)
class Frame:
    """An image and the rocks that were found in it.

    Attributes:
        image: H×W×3 uint8 RGB.
        found: The rocks.
        true: Id of the true rock that each of them matches, 0 = none (false positive).
        false_negatives: Ids of the true rocks that were not found.
        view: Exact depth and pose.
    """

    image: NDArray[np.uint8]
    found: list[Rock]
    true: list[int]
    false_negatives: list[int]
    view: PosedView | None = None


@dataclass(frozen=True)
class Score:
    """Counts of rocks over all images; the counts of several drives can be added.

    Attributes:
        matched: Number of rocks with the track id that is matched with the true rock (IDTP).
        true: Number of true rocks.
        given: Number of rocks with a track id.
        switches: Number of id switches: the track id of a true rock differs from the previous one.
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
        """IDF1 score, 0 to 1; 1 if there are no rocks."""
        rocks = self.true + self.given
        return 2 * self.matched / rocks if rocks else 1.0


def score(images: Iterable[Sequence[tuple[int, int]]]) -> Score:
    """Returns the counts of one drive.

    Args:
        images: Per image, the true id and the track id of each rock; 0 = none.
    """
    rocks = [rock for image in images for rock in image]
    tracks = networkx.Graph()
    for (true, given), times in Counter(rocks).items():
        if true and given:
            tracks.add_edge(('true', true), ('given', given), times=times)
    best = networkx.max_weight_matching(tracks, weight='times')
    last: dict[int, int] = {}
    switches = 0
    for true, given in rocks:
        if true and given:
            switches += last.get(true, given) != given
            last[true] = given
    return Score(
        sum(tracks.edges[edge]['times'] for edge in best),
        sum(true > 0 for true, _ in rocks),
        sum(given > 0 for _, given in rocks),
        switches,
    )


TrackRocks = Callable[[Frame, float], list[Rock]]


def with_motion(tracker: Tracker) -> TrackRocks:
    """Returns a function that tracks the rocks of a frame at a time, in s, with image motion."""
    return lambda frame, time: tracker.update(frame.image, frame.found, time)


def with_pose(tracker: Tracker) -> TrackRocks:
    """Returns a function that tracks the rocks of a frame with depth and pose."""
    return lambda frame, time: tracker.update(frame.image, frame.found, time, frame.view)


def without_motion(tracker: Tracker) -> TrackRocks:
    """Returns a function that tracks rocks by mask overlap only, like a static camera."""
    first: list[NDArray[np.uint8]] = []

    def follow(frame: Frame, time: float) -> list[Rock]:
        first[:] = first or [frame.image]
        return tracker.update(first[0], frame.found, time)

    return follow


TRACKERS: dict[str, Callable[[], TrackRocks]] = {
    'Tracker': lambda: with_motion(Tracker()),
    'depth, poses': lambda: with_pose(Tracker()),
    'no memory': lambda: with_motion(Tracker(memory=0.0)),
    'no motion': lambda: without_motion(Tracker()),
    'plain IoU': lambda: without_motion(Tracker(memory=0.0)),
}


def follow(drive: Sequence[Frame], rate: float, tracker: str) -> Score:
    """Tracks the rocks of a drive.

    Args:
        drive: The frames in order.
        rate: Image rate, Hz.
        tracker: Name of one of `TRACKERS`.
    """
    track = TRACKERS[tracker]()
    images = []
    for number, frame in enumerate(drive):
        ids = [rock.id for rock in track(frame, number / rate)]
        false_negatives = [(true, 0) for true in frame.false_negatives]
        images.append([*zip(frame.true, ids, strict=True), *false_negatives])
    return score(images)


def exact_frame(rendering: Rendering, min_area: int) -> Frame:
    """Returns a frame with the exact masks of the true rocks of at least `min_area` px."""
    area = np.bincount(rendering.instances.ravel())
    ids = [n for n in np.flatnonzero(area).tolist() if n and area[n] >= min_area]
    rocks = [_rock(rendering.instances, true_id) for true_id in ids]
    return Frame(rendering.image, rocks, ids, [], posed_view(rendering))


def posed_view(rendering: Rendering) -> PosedView:
    """Returns depth and pose of an image."""
    height, width = rendering.depth.shape
    lens = Intrinsics(rendering.intrinsics, np.zeros(0), size=(width, height))
    return PosedView(View(lens, rendering.depth), rendering.pose)


def _rock(instances: NDArray[np.uint16], instance_id: int) -> Rock:
    """Returns a rock with its exact mask, a score of 1 and an empty polygon."""
    mask: Any = cv2.inRange(instances, instance_id, instance_id)
    x, y, width, height = cv2.boundingRect(mask)
    own = mask[y : y + height, x : x + width]
    centre = (x + (width - 1) / 2, y + (height - 1) / 2)
    polygon = np.zeros((0, 2), np.float32)
    return Rock(0, 1, 1.0, int(np.count_nonzero(own)), (x, y, width, height), centre, polygon, own)


def predicted_frame(segmenter: Segmenter, rendering: Rendering, settings: RockSettings) -> Frame:
    """Returns a frame with the rocks that a network finds, matched to the true rocks.

    A found rock matches the true rock with an IoU above 0.5. True rocks below `min_area` and the
    found rocks that match them are not counted.
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
    counted_rocks = [rock for rock, counted in zip(found, counts, strict=True) if counted]
    large_enough = set((np.flatnonzero(area[1:] >= settings.min_area) + 1).tolist())
    ids = true[counts].tolist()
    false_negatives = sorted(large_enough - set(ids))
    return Frame(rendering.image, counted_rocks, ids, false_negatives, posed_view(rendering))


def drop_rocks(drive: Sequence[Frame], case: Case, seed: int) -> list[Frame]:
    """Removes rocks at random, each for up to `MAX_DROPOUT` s; then it appears at least once.

    Removed rocks are not false negatives, because no tracker could assign an id to them.
    """
    rng = np.random.default_rng(seed)
    until: dict[int, float] = {}
    visible: set[int] = set()
    result = []
    for number, frame in enumerate(drive):
        time = number / case.rate
        for true in visible.intersection(frame.true):
            if rng.uniform() < case.missing:
                until[true] = time + rng.uniform(0, MAX_DROPOUT)
        kept = [index for index, true in enumerate(frame.true) if time >= until.get(true, 0)]
        visible = {frame.true[index] for index in kept}
        found = [frame.found[index] for index in kept]
        result.append(replace(frame, found=found, true=[frame.true[index] for index in kept]))
    return result


def measure(
    kinds: Sequence[str],
    seeds: Sequence[int],
    size: tuple[int, int],
    images: int,
    segmenter: Segmenter | None = None,
) -> dict[str, dict[str, Score]]:
    """Evaluates every tracker on every case.

    Args:
        kinds: Kinds of drives, from `DRIVES`.
        seeds: Seeds of the drives; each kind has one drive per seed.
        size: Width and height of the images, px.
        images: Number of images per drive, `STEP` apart.
        segmenter: A network, whose rocks are tracked too; None = only exact masks.

    Returns:
        Name of a case → name of a tracker → counts.
    """
    scores: dict[str, dict[str, Score]] = {}
    settings = RockSettings()
    drives = [(kind, seed) for kind in kinds for seed in seeds]
    with tqdm(total=len(drives) * images, unit='image', desc='tracking') as bar:
        for kind, seed in drives:
            scene = make_drive(seed, 0, kind, size, images, STEP)
            renderings = []
            for frame, camera in enumerate(scene.cameras):
                renderings.append(scene.render(camera, frame))
                bar.update()
            exact = [exact_frame(rendering, settings.min_area) for rendering in renderings]
            for case in CASES:
                _add(
                    scores,
                    f'exact masks, {case}',
                    case,
                    drop_rocks(exact[:: case.stride], case, seed),
                )
            if segmenter:
                for case in NETWORK_CASES:
                    used = renderings[:: case.stride]
                    frames = [predicted_frame(segmenter, r, settings) for r in used]
                    _add(scores, f'network, {case}', case, frames)
    return scores


def _add(
    scores: dict[str, dict[str, Score]], name: str, case: Case, drive: Sequence[Frame]
) -> None:
    row = scores.setdefault(name, {})
    for tracker in TRACKERS:
        row[tracker] = row.get(tracker, Score()) + follow(drive, case.rate, tracker)
