# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmenter import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.evaluate_tracking import (
    Case,
    Score,
    Seen,
    lose_some,
    main,
    score,
    see_exactly,
    see_through,
)
from training.synthetic.render import Rendering

SQUARES = {1: (10, 10, 12), 2: (40, 10, 12), 3: (60, 40, 5)}  # x and y of the corner, side, px


def rendering(squares: dict[int, tuple[int, int, int]] = SQUARES) -> Rendering:
    instances = np.zeros((60, 80), np.uint16)
    for number, (x, y, side) in squares.items():
        instances[y : y + side, x : x + side] = number
    image = np.repeat((instances > 0).astype(np.uint8)[..., None] * 255, 3, axis=2)
    depth = np.full(instances.shape, np.nan, np.float32)
    return Rendering(image, instances, instances, depth, np.eye(4), np.eye(3))


class Bright:
    """Calls rock what is bright."""

    def segment(self, image: NDArray[np.uint8]) -> Segmentation:
        ids = (image[..., 0] > 100).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_ids_that_never_change_score_one_whatever_they_are() -> None:
    told = score([[(1, 7), (2, 9)], [(1, 7), (2, 9)], [(2, 9)]])
    assert told == Score(matched=5, true=5, given=5, switches=0)
    assert told.idf1 == 1


def test_an_id_counts_for_the_rock_that_it_was_on_longest() -> None:
    # 1 is 7 for three images and 8 for two; 8 is on 2 only once, but 7 is taken.
    told = score([[(1, 7)], [(1, 7)], [(1, 7)], [(1, 8), (2, 7)], [(1, 8), (2, 8)]])
    assert told.switches == 2
    assert told.matched == 4
    assert told.idf1 == pytest.approx(2 * 4 / (7 + 7))


def test_rocks_overlooked_and_rocks_invented_lower_the_score() -> None:
    told = score([[(1, 7)], [(1, 0), (0, 3)], [(1, 7)]])
    assert (told.matched, told.true, told.given, told.switches) == (2, 3, 3, 0)
    assert told.idf1 == pytest.approx(2 / 3)


def test_drives_are_added_and_nothing_to_follow_is_no_error() -> None:
    one, other = score([[(1, 7)]]), score([[(1, 7), (2, 0)]])
    assert one + other == Score(matched=2, true=3, given=2, switches=0)
    assert score([[], []]).idf1 == 1


def test_exact_rocks_have_their_masks_and_small_ones_do_not_count() -> None:
    seen = see_exactly(rendering(), min_area=50)
    assert seen.true == [1, 2]
    assert [rock.box for rock in seen.found] == [(10, 10, 12, 12), (40, 10, 12, 12)]
    assert [rock.area for rock in seen.found] == [144, 144]
    assert [int((rock.mask > 0).sum()) for rock in seen.found] == [144, 144]


def test_a_networks_rocks_are_told_by_overlap_with_the_true_ones() -> None:
    shown = rendering({1: (10, 10, 12), 2: (40, 30, 12), 3: (60, 40, 5)})
    truth = rendering()
    mixed = Rendering(shown.image, *list(vars(truth).values())[1:])
    # 1 is found, 2 is looked for in the wrong place, 3 is too small to count.
    seen = see_through(Bright(), mixed, RockSettings(min_area=20, split_touching=False))
    assert sorted(seen.true) == [0, 1, 3]
    assert seen.overlooked == [2]
    seen = see_through(Bright(), mixed, RockSettings(min_area=50, split_touching=False))
    assert (sorted(seen.true), seen.overlooked) == ([0, 1], [2])


def test_missing_rocks_return_within_a_second_and_stay_an_image() -> None:
    drive = [see_exactly(rendering(), 50)] * 300
    case = Case(rate=10, speed=0.5, missing=0.3)
    lost = lose_some(drive, case, seed=1)
    for number in (1, 2):
        there = np.array([number in seen.true for seen in lost])
        gaps = np.diff(np.flatnonzero(there)) - 1
        assert there[0]
        assert gaps.max() > 3
        assert gaps.max() <= 9
    assert all(len(seen.found) == len(seen.true) for seen in lost)
    assert [seen.true for seen in lose_some(drive, Case(10, 0.5), seed=1)] == [[1, 2]] * 300


def test_a_case_takes_the_images_that_its_speed_needs() -> None:
    assert [Case(10, 0.5).every, Case(1, 0.5).every, Case(2, 1.0).every] == [1, 10, 10]
    assert str(Case(2, 0.5, 0.1)) == '2 Hz, 0.5 m/s, 10% go missing'


def test_the_tracker_beats_plain_overlap_on_a_drive(capsys: pytest.CaptureFixture[str]) -> None:
    small = ['--looks', 'mars', '--drives', '1', '--frames', '21', '--size', '160', '120']
    assert main([*small, '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    case = told['exact masks, 2 Hz, 0.5 m/s']
    assert list(case) == ['Tracker', 'depth, poses', 'no memory', 'no motion', 'plain IoU']
    assert case['Tracker']['idf1'] > case['plain IoU']['idf1']
    assert case['depth, poses']['idf1'] > case['plain IoU']['idf1']
    assert case['Tracker']['true'] == case['plain IoU']['true'] > 20


def test_nothing_to_follow_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--drives', '0']) == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith('training.evaluate_tracking: --drives 0')
    )


def test_seen_images_keep_what_was_overlooked_when_rocks_go_missing() -> None:
    seen = Seen(rendering().image, [], [], [4])
    assert lose_some([seen], Case(10, 0.5, 1.0), seed=0)[0].overlooked == [4]
