# SPDX-License-Identifier: Apache-2.0
"""An image larger than the network should see at once, looked at in overlapping tiles.

Only what a convolution sees nearby is worked out tile by tile. The ASPP, which looks far and pools
over the whole image, sees all of it at once, so that the mask is the one of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.inference.backends import PartedBackend
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.pipeline import Classified, Pixels, postprocess
from rock_seg_ros.perception.inference.preprocessing import Preprocessing
from rock_seg_ros.perception.inference.scoring import Scorer, enlargement, resize

MIN_TILE = 128  # of smaller ones half could be less than a step of the grid
STRIDES = (4, 8, 16, 32)  # of what the parts of the networks give


class Span(NamedTuple):
    """Where a tile lies along one side of the image, px.

    Attributes:
        start: Its first.
        end: One after its last.
        first: The first of which it tells; what is before is the neighbour's.
        last: One after the last of which it tells.
    """

    start: int
    end: int
    first: int
    last: int


Part = Callable[[Span, Span], Tensor]


def check_tiling(tile: int, overlap: int) -> None:
    """Raises ValueError if tiles of `tile` px cannot overlap by `overlap` px; tile 0 is none."""
    if tile and tile < MIN_TILE:
        raise ValueError(f'tile must be 0 or at least {MIN_TILE} px, not {tile}')
    if tile and not 0 <= overlap <= tile // 2:
        raise ValueError(
            f'tile_overlap must be 0 to {tile // 2} px (half of tile {tile}), not {overlap}'
        )


class Tiling:
    """Runs the network's local parts tile by tile, and the one that looks far at once."""

    def __init__(self, scorer: Scorer, tile: int, overlap: int) -> None:
        """Takes the network in.

        Args:
            scorer: The network, of a backend that runs its parts, without an input size of its own.
            tile: Largest height and width of the tiles, px.
            overlap: Least overlap of neighbours, px.

        Raises:
            ValueError: The tiles are too small, or overlap by more than half.
        """
        check_tiling(tile, overlap)
        self._runner = cast(PartedBackend, scorer.runner)
        self._card = scorer.card
        self._grid = NETWORKS[self._card.architecture].output_strides[-1]
        self._tile = tile
        self._overlap = overlap
        self._prepare = Preprocessing(scorer.card, scorer.runner.device)

    def needs_tiling(self, image: Pixels) -> bool:
        """Returns whether an image is larger than a tile."""
        return max(image.shape[:2]) > self._tile

    def run(self, image: Pixels, threshold: float) -> Classified:
        """Classifies the pixels of one image, H×W×3 uint8 RGB, any strides."""
        height, width = image.shape[:2]
        scale = enlargement(height, width, self._card)
        seen = round(height * scale), round(width * scale)
        coarse = self._scores(image, seen)
        card = self._card  # a result must not hold the network

        def classified() -> Classified:  # the scores of all pixels are many times as large
            scores = resize(resize(coarse, seen), (height, width))
            return postprocess(scores[0], card, threshold)

        found = classified()
        if coarse.device.type != 'cpu':  # there it holds the confidence alone
            return found
        return found._replace(confidence=lambda: classified().confidence())

    def _scores(self, image: Pixels, seen: tuple[int, int]) -> Tensor:
        """Returns 1×channels×h×w scores, coarser than the image as the network sees it."""
        rows, columns = (tiles_along(side, self._tile, self._overlap, self._grid) for side in seen)
        if enlarged := seen != image.shape[:2]:
            whole = resize(self._prepare([image]), seen)

        def tile(row: Span, column: Span) -> Tensor:
            place = slice(row.start, row.end), slice(column.start, column.end)
            return whole[..., *place] if enlarged else self._prepare([image[place]])

        def deep(row: Span, column: Span) -> Tensor:
            return self._runner.deep(tile(row, column))

        def decode(row: Span, column: Span) -> Tensor:
            return self._runner.decode(tile(row, column), sample(context, row, column, seen))

        context = self._runner.context(stitch(deep, rows, columns))
        return context if self._card.decoder == 'none' else stitch(decode, rows, columns)


def tiles_along(length: int, tile: int, overlap: int, grid: int) -> list[Span]:
    """Lays tiles along one side of an image, evenly, the first and the last at its ends.

    Args:
        length: Of the side, px.
        tile: Largest length of a tile, px, at least `MIN_TILE`.
        overlap: Least overlap of neighbours, px, at most half of `tile`.
        grid: Tiles start and are cut at multiples of it, px: the coarsest stride of the network.

    Returns:
        Tiles that are cut in the middle of their overlaps.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    side = (tile - grid + 1) // grid * grid  # the last one may be longer, up to the image's end
    step = (side - overlap) // grid * grid
    gaps = -(-(length - side) // step)
    starts = [i * (length - side) // gaps // grid * grid for i in range(gaps + 1)]
    ends = [*(start + side for start in starts[:-1]), length]
    cuts = [(end + start) // 2 // grid * grid for end, start in zip(ends, starts[1:], strict=False)]
    return [Span(*own) for own in zip(starts, ends, [0, *cuts], [*cuts, length], strict=True)]


def stitch(part: Part, rows: list[Span], columns: list[Span]) -> Tensor:
    """Puts together what a part of the network gives of each tile, 1×C×h×w at one of `STRIDES`."""
    whole: Tensor | None = None
    for row, column in product(rows, columns):
        own = part(row, column)
        sides = row.end - row.start, column.end - column.start
        stride = next(s for s in STRIDES if _cells(max(sides), s) == max(own.shape[-2:]))
        if whole is None:
            size = [_cells(spans[-1].end, stride) for spans in (rows, columns)]
            whole = own.new_empty(1, own.shape[1], *size)
        (top, bottom), (left, right) = (
            (span.first // stride, _cells(span.last, stride)) for span in (row, column)
        )
        y, x = row.start // stride, column.start // stride
        whole[..., top:bottom, left:right] = own[..., top - y : bottom - y, left - x : right - x]
    assert whole is not None
    return whole


def sample(context: Tensor, row: Span, column: Span, size: tuple[int, int]) -> Tensor:
    """Scales the context of an image bilinearly to a tile's cells of 4 px.

    Args:
        context: 1×C×h×w of the whole image.
        row: Of the tile.
        column: Of the tile.
        size: Height and width of the image, px.

    Returns:
        1×C×H/4×W/4: what scaling all of it to the image's cells would give there.
    """
    y, x = (
        (torch.arange(span.start // 4, _cells(span.end, 4)) + 0.5) * 2 / _cells(side, 4) - 1
        for span, side in zip((row, column), size, strict=True)
    )
    across, down = torch.meshgrid(x, y, indexing='xy')
    grid = torch.stack((across, down), dim=-1)[None].to(context.device)
    return functional.grid_sample(context, grid, padding_mode='border', align_corners=False)


def _cells(length: int, stride: int) -> int:
    return -(-length // stride)
