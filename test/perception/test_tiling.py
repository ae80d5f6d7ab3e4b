# SPDX-License-Identifier: Apache-2.0
"""A picture looked at in tiles gives what it gives at once, without seams."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.pipeline import PlainPipeline
from rock_seg_ros.perception.scoring import Scorer
from rock_seg_ros.perception.tiling import Tiling, tiles_along
from rock_seg_ros.perception.weights_file import load_weights


class Smoothing:
    """A network that sees 9×9 px: how much brighter a place is than the middle grey."""

    device, precision = torch.device('cpu'), 'fp32'

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def scores(self, pictures: Tensor) -> Tensor:
        self.seen.append(tuple(pictures.shape))
        bright = functional.avg_pool2d(pictures.mean(1, keepdim=True), 9, 1, 4)
        return torch.cat([-bright, bright], dim=1)


class Offset(Smoothing):
    """A network whose answer drifts by one from each tile to the next."""

    def scores(self, pictures: Tensor) -> Tensor:
        super().scores(pictures)
        size = (len(pictures), 1, *pictures.shape[2:])
        return torch.cat([torch.zeros(size), torch.full(size, len(self.seen) - 1.5)], dim=1)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('length', [1, 63, 100, 101, 150, 191, 192, 1000])
@pytest.mark.parametrize('overlap', [0, 1, 10, 49])
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(length: int, overlap: int) -> None:
    starts, weights = tiles_along(length, 100, overlap)
    tile = min(100, length)
    assert (starts[0], starts[-1]) == (0, length - tile)
    total = torch.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        assert own.min() >= 0
        total[start : start + tile] += own
    torch.testing.assert_close(total, torch.ones(length))
    for one, next_one in pairwise(starts):
        assert one + tile - next_one >= overlap


@pytest.mark.parametrize('size', [(150, 333), (64, 500), (301, 64), (97, 130)])
def test_a_tiled_picture_equals_the_whole_one_away_from_what_a_tile_cannot_see(
    size: tuple[int, int],
) -> None:
    picture, scorer = noise(*size), Scorer(Smoothing(), Card())
    (whole,) = PlainPipeline(scorer).run([picture], 0.5)
    tiled = Tiling(scorer, 96, 32).run(picture, 0.5)
    assert tiled.class_ids.shape == tiled.confidence().shape == size
    assert (tiled.class_ids == whole.class_ids).mean() > 0.998
    difference = np.abs(tiled.confidence().astype(int) - whole.confidence())
    assert np.median(difference) == 0
    assert difference.mean() < 0.1


def test_a_step_between_tiles_is_spread_over_the_whole_overlap() -> None:
    found = Tiling(Scorer(Offset(), Card()), 64, 30).run(np.zeros((64, 98, 3), np.uint8), 0.0)
    rock = torch.from_numpy(found.confidence()[7].astype(np.float32) / 255).logit()
    steps = rock.diff()
    assert rock[0] == pytest.approx(-0.5, abs=0.02)
    assert rock[-1] == pytest.approx(0.5, abs=0.02)
    assert steps[:33].abs().max() < 0.01
    assert steps.max() < 2 / 30


def test_memory_is_that_of_a_tile_and_not_of_the_picture() -> None:
    network = Smoothing()
    Tiling(Scorer(network, Card()), 128, 16).run(noise(500, 900), 0.5)
    assert set(network.seen) == {(1, 3, 128, 128)}


def test_tiles_of_a_small_picture_are_enlarged_as_the_picture_would_be() -> None:
    network = Smoothing()
    card = Card(smallest_side=128)
    Tiling(Scorer(network, card), 100, 0).run(noise(80, 300), 0.5)
    assert set(network.seen) == {(1, 3, 128, 160)}


@pytest.mark.parametrize(
    ('tile', 'overlap', 'told'),
    [
        (63, 0, 'tile must be 0 or at least 64 px, not 63'),
        (-1, 0, 'not -1'),
        (64, 32, r'tile_overlap must be 0 to 31 px \(under half of tile 64\), not 32'),
        (65, -1, 'tile_overlap must be 0 to 32 px .* not -1'),
    ],
)
def test_tiles_that_cannot_be_are_refused_in_one_line(tile: int, overlap: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Tiling(Scorer(Smoothing(), Card()), tile, overlap)


def test_a_real_picture_in_tiles_has_nearly_the_rocks_of_the_whole_one() -> None:
    file = Path(__file__).parents[2] / 'demo/samples/images/538.png'
    picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    weights = load_weights()
    runner = TorchBackend(weights, torch.device('cpu'), 'fp32', 16)
    scorer = Scorer(runner, weights.card)
    with torch.inference_mode():
        (whole,) = PlainPipeline(scorer).run([picture], weights.card.threshold)
        tiled = Tiling(scorer, 384, 64).run(picture, weights.card.threshold)
    assert (tiled.class_ids == 1).mean() > 0.1
    assert ((tiled.class_ids == 1) == (whole.class_ids == 1)).mean() > 0.97
    # A seam would be a row or column over whose border the answer jumps.
    for axis in (0, 1):
        ours, theirs = (
            np.abs(np.diff((found.class_ids == 1).astype(int), axis=axis)).mean(1 - axis).max()
            for found in (tiled, whole)
        )
        assert ours < 1.5 * theirs
