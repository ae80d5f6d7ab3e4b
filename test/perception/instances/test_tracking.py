# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import PosedView, View
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, find_rocks
from rock_seg_ros.perception.instances.tracking import Tracker, estimate_motion, move_points

WIDTH, HEIGHT = 320, 240
Discs = dict[str, tuple[int, int, int]]  # x and y on the ground, radius, px
DISCS: Discs = {'a': (400, 300, 14), 'b': (470, 330, 9), 'c': (350, 380, 22), 'd': (520, 290, 6)}


def ground(seed: int = 0) -> NDArray[np.uint8]:
    """Returns an 800×1000×3 image of sand with pebbles of all sizes."""
    rng = np.random.default_rng(seed)
    grey = sum(
        cv2.resize(rng.normal(0, 20, (800 // s, 1000 // s)).astype(np.float32), (1000, 800))
        for s in (2, 5, 20)
    )
    return np.repeat(np.clip(120 + grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


GROUND = ground()


def numbered(mask: NDArray[np.uint8]) -> list[Rock]:
    segmentation = Segmentation((mask > 0).astype(np.uint8), np.full_like(mask, 255), (1,))
    return find_rocks(segmentation, RockSettings(1, 20_000, split_touching=False))


class Camera:
    """Looks straight down on a ground with discs, which are tracked.

    Attributes:
        tracker: The tracker.
        time: Of the next image, s.
    """

    def __init__(self, memory: float = 1.0) -> None:
        self.tracker = Tracker(memory)
        self.time = 0.0
        self.step = 0.1

    def see(
        self, x: int, y: int, hidden: Sequence[str] = (), discs: Discs = DISCS, zoom: float = 1
    ) -> dict[str, int]:
        """Returns the ids of the visible discs; x and y are the first pixel of the image."""
        turn = zoom * np.array([[1.0, 0, -x], [0, 1, -y]])
        image = cv2.warpAffine(GROUND, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        names, rocks = [], []
        for name, (across, down, radius) in discs.items():
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            place = round((across - x) * zoom), round((down - y) * zoom)
            cv2.circle(mask, place, round(radius * zoom), 255, -1)
            if mask.any() and name not in hidden:
                names.append(name)
                rocks += numbered(mask)
        found = self.tracker.update(image, rocks, self.time)
        self.time += self.step
        assert [rock.area for rock in found] == [rock.area for rock in rocks]
        return {name: rock.id for name, rock in zip(names, found, strict=True)}


@pytest.fixture
def camera() -> Camera:
    return Camera()


def test_ids_start_at_one_in_the_order_of_the_rocks(camera):
    assert list(camera.see(300, 250).values()) == [1, 2, 3, 4]


@pytest.mark.parametrize('step', [(0, 0), (7, 3), (30, -22), (-60, 40), (110, 0)])
def test_rocks_keep_their_ids_however_far_the_camera_moves(camera, step):
    before = camera.see(300, 250)
    after = camera.see(300 + step[0], 250 + step[1])
    assert len(after) >= 3
    assert after == {name: before[name] for name in after}


def test_rocks_keep_their_ids_while_the_camera_approaches(camera):
    ids = camera.see(300, 250)
    for zoom in (1.3, 1.7, 2.2):
        seen = camera.see(320, 260, zoom=zoom)
        assert len(seen) >= 2
        assert seen.items() <= ids.items()


@pytest.mark.parametrize('side', [64, 640, 1600])
def test_rocks_keep_their_ids_in_images_of_any_size(side):
    tracker = Tracker()
    size = (side, side * 3 // 4)
    for number in range(3):
        start = 5 * number
        image = cv2.resize(GROUND[200:440, 200 + start : 520 + start], size)
        mask = np.zeros((240, 320), np.uint8)
        for place in ((60 - start, 70), (200 - start, 90), (150 - start, 190)):
            cv2.circle(mask, place, 15, 255, -1)
        rocks = numbered(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
        rocks.sort(key=lambda rock: rock.centroid)
        assert [r.id for r in tracker.update(image, rocks, number / 5)] == [1, 2, 3]


def test_a_rock_missed_for_less_than_a_second_keeps_its_id(camera):
    ids = camera.see(300, 250)
    for number in range(1, 9):
        camera.see(300 + 6 * number, 250, hidden='ac')
    assert camera.see(354, 250) == ids


def test_a_rock_that_leaves_the_view_and_returns_keeps_its_id(camera):
    ids = camera.see(300, 250)
    for x in (340, 380, 420, 440, 420, 380, 340):
        gone = 'a' not in camera.see(x, 250)
        assert gone == (x > 414)
    assert camera.see(300, 250) == ids


def test_a_rock_missed_for_longer_gets_a_new_id(camera):
    before = camera.see(300, 250)
    for _ in range(12):
        camera.see(300, 250, hidden='a')
    after = camera.see(300, 250)
    assert after['a'] == 5
    assert after['b'] == before['b']


def test_at_a_low_frame_rate_a_rock_may_be_missed_in_one_image(camera):
    camera.step = 3.0
    ids = camera.see(300, 250)
    camera.see(310, 250, hidden='b')
    assert camera.see(320, 250) == ids


def test_without_memory_a_missed_rock_gets_a_new_id():
    camera = Camera(memory=0.0)
    camera.see(300, 250)
    camera.see(300, 250, hidden='a')
    assert camera.see(300, 250)['a'] == 5


def test_the_larger_part_of_a_split_rock_keeps_the_id_and_both_ids_return(camera):
    view = GROUND[:HEIGHT, :WIDTH]
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(whole, (50, 50), (149, 99), 255, -1)
    cut = whole.copy()
    cut[:, 110:112] = 0
    tracker = camera.tracker
    ids = [
        [rock.id for rock in tracker.update(view, numbered(mask), number / 10)]
        for number, mask in enumerate((whole, cut, whole, cut))
    ]
    assert ids == [[1], [1, 2], [1], [1, 2]]


def test_a_rock_at_the_former_position_of_its_neighbour_keeps_its_own_id(camera):
    # Each disc is where its neighbour was; only the motion distinguishes them.
    row: Discs = {str(number): (320 + 40 * number, 370, 10) for number in range(8)}
    before = camera.see(300, 250, discs=row)
    after = camera.see(340, 250, discs=row)
    assert len(after) == 7
    assert after == {name: before[name] for name in after}


def test_no_id_is_assigned_twice_even_after_a_reset(camera):
    given = set(camera.see(300, 250).values())
    camera.tracker.reset()
    again = set(camera.see(300, 250).values())
    camera.time = 0.0  # back in time
    earlier = set(camera.see(300, 250).values())
    small = camera.tracker.update(GROUND[:100, :100], numbered(np.full((100, 100), 255, 'u1')), 9.0)
    assert given | again | earlier | {small[0].id} == set(range(1, 14))


def test_another_scene_has_new_ids():
    tracker = Tracker()
    rocks = numbered(np.full((HEIGHT, WIDTH), 255, np.uint8))
    other = ground(seed=1)
    views = (GROUND[:HEIGHT, :WIDTH], other[:HEIGHT, :WIDTH], other[5 : HEIGHT + 5, :WIDTH])
    ids = [tracker.update(view, rocks, float(time))[0].id for time, view in enumerate(views)]
    assert ids == [1, 2, 2]


def test_ids_are_kept_across_a_black_image(camera):
    ids = camera.see(300, 250)
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    assert camera.tracker.update(black, [], 0.1) == []
    assert [rock.id for rock in camera.tracker.update(black, numbered(mask), 0.1)] == [5]
    assert camera.see(305, 250) == ids


def test_ids_are_kept_when_the_brightness_changes():
    tracker = Tracker()
    rocks = numbered(cv2.circle(np.zeros((HEIGHT, WIDTH), np.uint8), (100, 100), 20, 255, -1))
    view = GROUND[:HEIGHT, :WIDTH]
    for time, image in enumerate((view, view // 3, view // 2 + 90)):
        assert tracker.update(image, rocks, float(time))[0].id == 1


def test_many_small_rocks_and_an_image_full_of_rock_are_tracked(camera):
    view = GROUND[:HEIGHT, :WIDTH]
    specks = np.zeros((HEIGHT, WIDTH), np.uint8)
    specks[::6, ::8] = 255
    full = np.full_like(specks, 255)
    tracker = camera.tracker
    ids = [
        {rock.id for rock in tracker.update(view, numbered(mask), number / 10)}
        for number, mask in enumerate((specks, full, specks, full, 0 * full))
    ]
    assert ids == [set(range(1, 1601)), {1601}, ids[2], {1601}, set()]
    assert len(ids[0] & ids[2]) == 1000


@pytest.mark.parametrize('shape', [(1, 1), (500, 3), (20, 320), (31, 200), (250, 4000)])
def test_tiny_and_very_wide_images_are_tracked(shape):
    tracker = Tracker()
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    rocks = numbered(np.full(shape, 255, np.uint8))
    ids = [tracker.update(image, rocks, float(time))[0].id for time in range(3)]
    assert ids in ([1, 1, 1], [1, 2, 3])


def test_images_of_any_strides_are_tracked():
    rocks = numbered(np.full((HEIGHT, WIDTH), 255, np.uint8))
    image = GROUND[HEIGHT:0:-1, :WIDTH, ::-1]
    assert Tracker().update(image, rocks, 0.0)[0].id == 1


def test_the_flow_points_from_the_previous_image_to_the_new_one():
    old, new = GROUND[100:340, 100:420, 0], GROUND[110:350, 105:425, 0]
    flow = estimate_motion(old, new)
    assert np.median(flow[..., 0]) == pytest.approx(-5, abs=0.1)
    assert np.median(flow[..., 1]) == pytest.approx(-10, abs=0.1)


def test_a_large_motion_is_estimated_from_features():
    old, new = GROUND[100:340, 100:420, 0], GROUND[100:340, 200:520, 0]
    flow = estimate_motion(old, new)
    assert np.median(flow[:, 120:, 0]) == pytest.approx(-100, abs=0.5)


def test_points_outside_of_the_image_move_with_the_extrapolated_flow():
    grid = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).astype(np.float32)
    flow = 0.1 * (grid - [160, 120]).astype(np.float32)
    points = np.array([[-100, 160, 800], [120, 120, 500]], np.float32)
    moved = move_points(points, flow, scale=1.0)
    assert np.allclose(moved, [[-126, 160, 864], [120, 120, 538]], atol=1)
    assert np.allclose(move_points(2 * points, flow, scale=2.0), 2 * moved, atol=1)


def striped(shift: int) -> NDArray[np.uint8]:
    """Returns a 240×320×3 image of equal stripes every 40 px with a little noise."""
    wave = 120 + 60 * np.sin(2 * np.pi * (np.arange(600) + shift) / 40)
    image = np.repeat(wave[None, :WIDTH], HEIGHT, axis=0)
    fine = np.random.default_rng(2).normal(0, 6, (HEIGHT, 600))
    image += cv2.GaussianBlur(fine, (0, 0), 3)[:, shift : shift + WIDTH] * 8
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize('posed', [True, False])
def test_depth_and_pose_resolve_the_motion_over_repeating_stripes(
    posed: bool,
) -> None:
    def posed_view(shift: int) -> PosedView | None:
        lens = Intrinsics(np.diag([100.0, 100, 1]), np.zeros(0), size=(WIDTH, HEIGHT))
        pose = np.eye(4)
        pose[0, 3] = shift * 2 / 100
        return (
            PosedView(View(lens, np.full((HEIGHT, WIDTH), 2, np.float32)), pose) if posed else None
        )

    def seen(shift: int) -> list[Rock]:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for x in (120, 160, 200):  # with the distance of the stripes
            cv2.circle(mask, (x - shift, 120), 12, 1, -1)
        return sorted(numbered(mask), key=lambda rock: rock.centroid)

    tracker = Tracker()
    first = tracker.update(striped(0), seen(0), 0.0, posed_view(0))
    second = tracker.update(striped(40), seen(40), 0.5, posed_view(40))
    kept = [rock.id for rock in first] == [rock.id for rock in second]
    assert kept == posed
