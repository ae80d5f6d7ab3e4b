# SPDX-License-Identifier: Apache-2.0
"""Processing of large images in overlapping tiles.

Only the parts of the network with a small receptive field run tile by tile. The ASPP, which has a
large receptive field and pools over the whole image, runs once on the features of the whole image,
so that the mask equals that of the network without tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple, cast

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.inference.backends import TilingBackend
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.pipeline import postprocess
from rock_seg_ros.perception.inference.predictor import Predictor, enlargement, grid_size
from rock_seg_ros.perception.inference.preprocessing import Preprocessing
from rock_seg_ros.perception.inference.scaling import pad, resize
from rock_seg_ros.perception.inference.segmentation import (
    DeferredSegmentation,
    Pixels,
    Segmentation,
)

MIN_TILE = 128  # px; half of a smaller tile could be less than one step of the grid
STRIDES = (4, 8, 16, 32)  # strides of the outputs of the networks' parts


class Span(NamedTuple):
    """The range of a tile along one side of the image, px.

    Attributes:
        start: Start of the tile.
        end: End of the tile, exclusive.
        used_start: Start of the part whose result is used; the rest is used from the neighbours.
        used_end: End of the part whose result is used, exclusive.
    """

    start: int
    end: int
    used_start: int
    used_end: int


Part = Callable[[Span, Span], Tensor]


def check_tiling(tile: int, overlap: int) -> None:
    """Raises ValueError if the tile size or the overlap (px) is not valid; tile 0 = no tiling."""
    if tile and tile < MIN_TILE:
        raise ValueError(f'tile must be 0 or at least {MIN_TILE} px, not {tile}')
    if tile and not 0 <= overlap <= tile // 2:
        raise ValueError(
            f'tile_overlap must be 0 to {tile // 2} px (half of tile {tile}), not {overlap}'
        )


class Tiling:
    """Runs the local parts of the network tile by tile, and the ASPP on the whole image."""

    def __init__(self, predictor: Predictor, tile: int, overlap: int) -> None:
        """Stores the network.

        Args:
            predictor: A predictor without a fixed input size; its backend runs parts separately.
            tile: Maximum height and width of the tiles, px.
            overlap: Minimum overlap of neighbouring tiles, px.

        Raises:
            ValueError: The tiles are too small, or overlap by more than half.
        """
        check_tiling(tile, overlap)
        self._backend = cast(TilingBackend, predictor.backend)
        self._card = predictor.metadata
        self._grid = NETWORKS[self._card.architecture].output_strides[-1]
        self._tile = tile
        self._overlap = overlap
        self._preprocess = Preprocessing(predictor.metadata, predictor.backend.device)

    def needs_tiling(self, image: Pixels) -> bool:
        """Returns whether an image is larger than a tile."""
        return max(image.shape[:2]) > self._tile

    def run(self, image: Pixels, threshold: float) -> Segmentation:
        """Segments one image.

        Args:
            image: H×W×3 uint8 RGB, any strides.
            threshold: Probability from which a pixel is rock, 0 to 1.

        Raises:
            LogitsError: The logits are not finite.
        """
        height, width = image.shape[:2]
        scale = enlargement(height, width, self._card)
        rows, columns = round(height * scale), round(width * scale)
        input_size = grid_size(rows, columns, self._card)
        coarse = self._logits(image, (rows, columns), input_size)
        metadata = self._card  # the result must not hold the network

        def segment() -> Segmentation:
            logits = resize(resize(coarse, input_size)[..., :rows, :columns], (height, width))
            return postprocess(logits[0], metadata, threshold)

        segmentation = segment()
        if coarse.device.type != 'cpu':
            return segmentation
        # On the CPU, the confidence would hold the logits of all pixels. They are computed again
        # from the coarse logits, which are many times smaller.
        rock_confidence = segmentation.rock_confidence
        return DeferredSegmentation(
            segmentation.class_ids,
            lambda: segment().confidence,
            metadata.rock_ids,
            metadata.rim_id,
            lambda: rock_confidence,
        )

    def _logits(
        self, image: Pixels, enlarged_size: tuple[int, int], input_size: tuple[int, int]
    ) -> Tensor:
        """Returns 1×channels×h×w logits, at a lower resolution than the network's input.

        Args:
            image: H×W×3 uint8 RGB, any strides.
            enlarged_size: Height and width of the image in the network's input, px.
            input_size: Height and width of the network's input, px.
        """
        rows, columns = (
            tiles_along(side, self._tile, self._overlap, self._grid) for side in input_size
        )
        if enlarged := enlarged_size != image.shape[:2]:
            whole = pad(resize(self._preprocess([image]), enlarged_size), input_size)
        elif input_size != enlarged_size:  # needs a quarter of the memory of `pad`
            below, right = input_size[0] - enlarged_size[0], input_size[1] - enlarged_size[1]
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)  # type: ignore[assignment]

        def tile(row: Span, column: Span) -> Tensor:
            window = slice(row.start, row.end), slice(column.start, column.end)
            return whole[..., *window] if enlarged else self._preprocess([image[window]])

        def deep(row: Span, column: Span) -> Tensor:
            return self._backend.deep(tile(row, column))

        def decode(row: Span, column: Span) -> Tensor:
            return self._backend.decode(tile(row, column), sample(context, row, column, input_size))

        context = self._backend.context(stitch(deep, rows, columns))
        return context if self._card.decoder == 'none' else stitch(decode, rows, columns)


def tiles_along(length: int, tile: int, overlap: int, grid: int) -> list[Span]:
    """Distributes tiles evenly along one side of an image.

    Args:
        length: Length of the side, px.
        tile: Maximum length of a tile, px, at least `MIN_TILE`.
        overlap: Minimum overlap of neighbouring tiles, px, at most half of `tile`.
        grid: Tiles start and are used at multiples of it, px: the coarsest stride of the network.

    Returns:
        The tiles; each is used up to the middle of its overlaps.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    side = (tile - grid + 1) // grid * grid  # the last tile may be longer, up to the image's end
    step = (side - overlap) // grid * grid
    gaps = -(-(length - side) // step)
    starts = [i * (length - side) // gaps // grid * grid for i in range(gaps + 1)]
    ends = [*(start + side for start in starts[:-1]), length]
    cuts = [(end + start) // 2 // grid * grid for end, start in zip(ends, starts[1:], strict=False)]
    return [Span(*span) for span in zip(starts, ends, [0, *cuts], [*cuts, length], strict=True)]


def stitch(part: Part, rows: list[Span], columns: list[Span]) -> Tensor:
    """Combines the outputs of a part of the network for each tile to one output.

    Args:
        part: Returns 1×C×h×w at one of `STRIDES` for a tile.
        rows: The vertical spans of the tiles.
        columns: The horizontal spans of the tiles.
    """
    whole: Tensor | None = None
    for row, column in product(rows, columns):
        output = part(row, column)
        sides = row.end - row.start, column.end - column.start
        stride = next(s for s in STRIDES if _cells(max(sides), s) == max(output.shape[-2:]))
        if whole is None:
            size = [_cells(spans[-1].end, stride) for spans in (rows, columns)]
            whole = output.new_empty(1, output.shape[1], *size)
        (top, bottom), (left, right) = (
            (span.used_start // stride, _cells(span.used_end, stride)) for span in (row, column)
        )
        y, x = row.start // stride, column.start // stride
        whole[..., top:bottom, left:right] = output[..., top - y : bottom - y, left - x : right - x]
    assert whole is not None
    return whole


def sample(context: Tensor, row: Span, column: Span, size: tuple[int, int]) -> Tensor:
    """Samples the context of an image bilinearly at the stride-4 cells of a tile.

    Args:
        context: 1×C×h×w, the context of the whole image.
        row: Vertical span of the tile.
        column: Horizontal span of the tile.
        size: Height and width of the image, px.

    Returns:
        1×C×H/4×W/4, equal to that part of the context scaled to stride 4.
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
