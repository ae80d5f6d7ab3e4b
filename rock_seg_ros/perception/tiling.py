# SPDX-License-Identifier: Apache-2.0
"""A picture larger than the network should see at once, looked at in overlapping tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.pipeline import Classified, Pixels, read_off
from rock_seg_ros.perception.preparation import Preparation
from rock_seg_ros.perception.scoring import Scorer, enlargement

SMALLEST_TILE = 64
TILES_AT_ONCE = 4  # on CUDA; a CPU is busy with one, and its memory is better kept small


def check_tiling(tile: int, overlap: int) -> None:
    """Raises ValueError if tiles of `tile` px cannot overlap by `overlap` px; tile 0 is none."""
    if tile and tile < SMALLEST_TILE:
        raise ValueError(f'tile must be 0 or at least {SMALLEST_TILE} px, not {tile}')
    if tile and not 0 <= overlap < tile / 2:
        raise ValueError(
            f'tile_overlap must be 0 to {(tile - 1) // 2} px (under half of tile {tile}),'
            f' not {overlap}'
        )


class Tiling:
    """Runs the network tile by tile, and blends the scores linearly where tiles overlap.

    Besides the result, only the scores of one row of tiles are held.
    """

    def __init__(self, scorer: Scorer, tile: int, overlap: int) -> None:
        """Takes the network in.

        Args:
            scorer: The network, without an input size of its own.
            tile: Height and width of the tiles, px.
            overlap: Least overlap of neighbours, px.

        Raises:
            ValueError: The tiles are too small, or overlap by half or more.
        """
        check_tiling(tile, overlap)
        self._scorer = scorer
        self._tile = tile
        self._overlap = overlap
        self._device = scorer.runner.device
        self._prepare = Preparation(scorer.card, self._device)
        self._at_once = TILES_AT_ONCE if self._device.type == 'cuda' else 1

    def concerns(self, picture: Pixels) -> bool:
        """Returns whether a picture is larger than a tile."""
        return max(picture.shape[:2]) > self._tile

    def run(self, picture: Pixels, threshold: float) -> Classified:
        """Classifies the pixels of one picture, H×W×3 uint8 RGB, any strides."""
        class_ids = np.empty(picture.shape[:2], np.uint8)
        confidence = np.empty_like(class_ids)
        for top, scores in self._bands(picture):
            band = slice(top, top + scores.shape[1])
            found = read_off(scores, self._scorer.card, threshold)
            class_ids[band], confidence[band] = found.class_ids, found.confidence()
        return Classified(class_ids, lambda: confidence)

    def _bands(self, picture: Pixels) -> Iterator[tuple[int, Tensor]]:
        """Gives the first row and the channels×rows×W scores of one band after the other."""
        height, width = picture.shape[:2]
        enlarged = enlargement(height, width, self._scorer.card)
        rows, down = tiles_along(height, self._tile, self._overlap)
        columns, across = tiles_along(width, self._tile, self._overlap)
        size = (min(height, self._tile), min(width, self._tile))
        channels = self._scorer.card.channels
        band = torch.zeros(channels, size[0], width, device=self._device)
        for number, top in enumerate(rows):
            weights = down[number].to(self._device)[:, None]
            for lefts in _chunks(range(len(columns)), self._at_once):
                tiles = [
                    picture[top : top + size[0], columns[i] : columns[i] + size[1]] for i in lefts
                ]
                scores = self._scorer.scores(self._prepare(tiles), enlarged)
                for i, own in zip(lefts, scores, strict=True):
                    place = band[:, :, columns[i] : columns[i] + size[1]]
                    place.addcmul_(own, weights * across[i].to(self._device))
            done = (rows[number + 1] if number + 1 < len(rows) else height) - top
            yield top, band[:, :done]
            rest = band[:, done:].clone()
            band.zero_()[:, : rest.shape[1]] = rest


def tiles_along(length: int, tile: int, overlap: int) -> tuple[list[int], Tensor]:
    """Lays tiles along one side of a picture, evenly, the first and the last at its ends.

    Args:
        length: Of the side, px.
        tile: Length of a tile, px.
        overlap: Least overlap of neighbours, px, less than `tile`.

    Returns:
        Where the tiles start, and tiles×min(tile, length) float32 weights, which fall linearly to
        a tile's inner ends and add up to 1 at every px.
    """
    tile = min(tile, length)
    count = 1 if tile == length else -(-(length - overlap) // (tile - overlap))
    starts = [round(i * (length - tile) / max(1, count - 1)) for i in range(count)]
    inside = torch.arange(tile) + 0.5
    ramp = torch.minimum(inside, inside.flip(0)).div(max(overlap, 1)).clamp(max=1)
    weights = ramp.repeat(count, 1)
    weights[0, : tile // 2] = weights[-1, (tile + 1) // 2 :] = 1  # no neighbour at the outer ends
    total = torch.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        total[start : start + tile] += own
    for start, own in zip(starts, weights, strict=True):
        own /= total[start : start + tile]
    return starts, weights


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
