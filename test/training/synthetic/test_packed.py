# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.synthetic.appearance import Appearance, Packing
from training.synthetic.heap import Heap
from training.synthetic.objects import ObjectProbabilities
from training.synthetic.packed import packed
from training.synthetic.rendering import Rendering
from training.synthetic.rocks import Shape
from training.synthetic.scene_kinds import SCENE_KINDS
from training.synthetic.sensor import Sensor
from training.synthetic.terrain import Terrain

SIZE = (192, 192)
DENSE = Packing(largest=0.25, smallest=0.1, power=1.5, cover=2.0, overhead=1.0)


def drawn(name: str, packing: Packing) -> Appearance:
    appearance = SCENE_KINDS[name](np.random.default_rng(0))
    return replace(appearance, packing=packing, objects=ObjectProbabilities(), relief=0.02)


def image(appearance: Appearance) -> Rendering:
    world, cameras = packed(appearance, np.random.default_rng(3), SIZE, 1)
    return world.render(cameras[0], appearance.light, Sensor(), np.random.default_rng(0))


def touching(instances: np.ndarray) -> int:
    """Counts pairs of rocks that touch."""
    pairs = set()
    for one, other in (
        (instances[:, 1:], instances[:, :-1]),
        (instances[1:], instances[:-1]),
    ):
        rim = (one != other) & (one > 0) & (other > 0)
        pairs |= set(zip(one[rim].tolist(), other[rim].tolist(), strict=True))
    return len({frozenset(pair) for pair in pairs})


@pytest.mark.parametrize('overhead', [0.0, 1.0])
def test_stones_of_a_beach_cover_the_ground_and_touch_with_different_instance_ids(
    overhead: float,
) -> None:
    rendering = image(drawn('beach', replace(DENSE, overhead=overhead)))
    assert (rendering.classes == 255).mean() > 0.4
    assert touching(rendering.instances) > 30


def test_a_boulder_is_one_large_rock() -> None:
    sparse = replace(DENSE, largest=0.08, smallest=0.05, cover=0.0, boulders=1)
    rendering = image(drawn('boulder', sparse))
    assert set(np.unique(rendering.instances)) == {0, 1}
    assert (rendering.instances == 1).mean() > 0.03


def test_buried_stones_are_lower() -> None:
    tops = []
    for sink in (0.0, 1.0):
        appearance = replace(drawn('creek', replace(DENSE, cover=0.3, sink=sink)), relief=0.0)
        world, _ = packed(appearance, np.random.default_rng(3), SIZE, 1)
        heights = [rock.position[2] / rock.diameter for rock in world.rocks]
        tops.append(np.mean(heights))
    assert tops[1] < tops[0] - 0.1


def test_a_stone_is_placed_on_top_of_another_one() -> None:
    heap = Heap(2.0, cells=80)
    places = np.array([[40, 40]])
    first = heap.settle(Shape('pebble', 1), 0.4, 0.0, places, 0.0)
    second = heap.settle(Shape('pebble', 1), 0.4, 0.0, places, 0.0)
    assert first
    assert second
    height = Shape('pebble', 1).body(3)[0][:, 2].max() * 0.4
    assert second[2] - first[2] == pytest.approx(2 * height, rel=0.1)
    assert heap.height(np.array([[0.0, 0.0], [5.0, 0.0]]))[0] == pytest.approx(
        second[2] + height, rel=0.1
    )


def test_a_stone_is_placed_in_a_gap_on_a_slope_instead_of_on_another_stone() -> None:
    heap = Heap(2.0, cells=80)
    heap.base = np.maximum(heap.points()[..., 0], 0) * 0.6
    heap.surface = heap.base.copy()
    level, slope = [20, 40], [60, 40]
    assert heap.settle(Shape('cobble', 1), 0.3, 0.0, np.array([level]), 0.0)
    at = heap.settle(Shape('cobble', 2), 0.3, 0.0, np.array([level, slope]), 0.0)
    assert at
    assert at[0] == pytest.approx(0.5, abs=0.05)


def test_a_mound_has_its_height_and_radius() -> None:
    terrain = Terrain(0.0, 1.0, mounds=np.array([[3.0, 1.0, 2.0, 1.0]]))
    middle, slope, beside = terrain.height(np.array([[3.0, 1.0], [4.0, 1.0], [9.0, 1.0]]))
    assert middle == pytest.approx(0.92, abs=0.05)
    assert slope == pytest.approx(0.54, abs=0.05)
    assert beside < 0.01
