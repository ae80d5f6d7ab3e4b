# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.evaluate_tracking import main
from training.synthetic.rendering import Rendering
from training.tracking_evaluation import (
    Case,
    Frame,
    Score,
    drop_rocks,
    exact_frame,
    predicted_frame,
    score,
)

SQUARES = {1: (10, 10, 12), 2: (40, 10, 12), 3: (60, 40, 5)}  # x and y of the corner, side; px


def rendering(squares: dict[int, tuple[int, int, int]] = SQUARES) -> Rendering:
    instances = np.zeros((60, 80), np.uint16)
    for number, (x, y, side) in squares.items():
        instances[y : y + side, x : x + side] = number
    image = np.repeat((instances > 0).astype(np.uint8)[..., None] * 255, 3, axis=2)
    depth = np.full(instances.shape, np.nan, np.float32)
    return Rendering(image, instances, instances, depth, np.eye(4), np.eye(3))


class FakeSegmenter:
    """Classifies bright pixels as rock."""

    def segment(self, image: NDArray[np.uint8]) -> Segmentation:
        ids = (image[..., 0] > 100).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


def test_constant_track_ids_have_a_perfect_score() -> None:
    result = score([[(1, 7), (2, 9)], [(1, 7), (2, 9)], [(2, 9)]])
    assert result == Score(matched=5, true=5, given=5, switches=0)
    assert result.idf1 == 1


def test_a_track_id_is_matched_with_the_rock_that_has_it_most_often() -> None:
    # Rock 1 has the id 7 three times and 8 twice; rock 2 has 8 only once, but 7 is matched.
    result = score([[(1, 7)], [(1, 7)], [(1, 7)], [(1, 8), (2, 7)], [(1, 8), (2, 8)]])
    assert result.switches == 2
    assert result.matched == 4
    assert result.idf1 == pytest.approx(2 * 4 / (7 + 7))


def test_false_negatives_and_false_positives_reduce_the_score() -> None:
    result = score([[(1, 7)], [(1, 0), (0, 3)], [(1, 7)]])
    assert (result.matched, result.true, result.given, result.switches) == (2, 3, 3, 0)
    assert result.idf1 == pytest.approx(2 / 3)


def test_scores_can_be_added_and_no_rocks_are_a_perfect_score() -> None:
    one, other = score([[(1, 7)]]), score([[(1, 7), (2, 0)]])
    assert one + other == Score(matched=2, true=3, given=2, switches=0)
    assert score([[], []]).idf1 == 1


def test_exact_frames_have_the_true_masks_without_small_rocks() -> None:
    seen = exact_frame(rendering(), min_area=50)
    assert seen.true == [1, 2]
    assert [rock.box for rock in seen.found] == [(10, 10, 12, 12), (40, 10, 12, 12)]
    assert [rock.area for rock in seen.found] == [144, 144]
    assert [int((rock.mask > 0).sum()) for rock in seen.found] == [144, 144]


def test_predicted_rocks_are_matched_with_true_rocks_by_overlap() -> None:
    shown = rendering({1: (10, 10, 12), 2: (40, 30, 12), 3: (60, 40, 5)})
    truth = rendering()
    mixed = Rendering(shown.image, *list(vars(truth).values())[1:])
    # Rock 1 is found, rock 2 is predicted at the wrong position, and rock 3 is too small.
    seen = predicted_frame(FakeSegmenter(), mixed, RockSettings(min_area=20, split_touching=False))
    assert sorted(seen.true) == [0, 1, 3]
    assert seen.false_negatives == [2]
    seen = predicted_frame(FakeSegmenter(), mixed, RockSettings(min_area=50, split_touching=False))
    assert (sorted(seen.true), seen.false_negatives) == ([0, 1], [2])


def test_removed_rocks_return_within_a_second_for_at_least_one_image() -> None:
    drive = [exact_frame(rendering(), 50)] * 300
    case = Case(rate=10, speed=0.5, missing=0.3)
    lost = drop_rocks(drive, case, seed=1)
    for number in (1, 2):
        visible = np.array([number in seen.true for seen in lost])
        gaps = np.diff(np.flatnonzero(visible)) - 1
        assert visible[0]
        assert gaps.max() > 3
        assert gaps.max() <= 9
    assert all(len(seen.found) == len(seen.true) for seen in lost)
    assert [seen.true for seen in drop_rocks(drive, Case(10, 0.5), seed=1)] == [[1, 2]] * 300


def test_the_stride_of_a_case_depends_on_speed_and_rate() -> None:
    assert [Case(10, 0.5).stride, Case(1, 0.5).stride, Case(2, 1.0).stride] == [1, 10, 10]
    assert str(Case(2, 0.5, 0.1)) == '2 Hz, 0.5 m/s, 10% go missing'


def test_the_tracker_is_better_than_mask_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    small = ['--looks', 'mars', '--drives', '1', '--frames', '21', '--size', '160', '120']
    assert main([*small, '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    case = result['exact masks, 2 Hz, 0.5 m/s']
    assert list(case) == ['Tracker', 'depth, poses', 'no memory', 'no motion', 'plain IoU']
    assert case['Tracker']['idf1'] > case['plain IoU']['idf1']
    assert case['depth, poses']['idf1'] > case['plain IoU']['idf1']
    assert case['Tracker']['true'] == case['plain IoU']['true'] > 20


def test_an_invalid_number_of_drives_is_reported_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['--drives', '0']) == 1
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith('training.evaluate_tracking: --drives and --frames must be 1 or more')
    )


def test_removing_rocks_keeps_the_false_negatives() -> None:
    seen = Frame(rendering().image, [], [], [4])
    assert drop_rocks([seen], Case(10, 0.5, 1.0), seed=0)[0].false_negatives == [4]
