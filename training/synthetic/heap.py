# SPDX-License-Identifier: Apache-2.0
"""A height field on which stones and fines are placed on top of each other."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.synthetic.noise import noise_2d
from training.synthetic.rocks import Shape, rotation_about_z


class Heap:
    """The upper surface of a heap as a height field.

    Attributes:
        extent: Side of the square around the origin, m.
        cells: Number of cells along a side.
        cell: Side of a cell, m.
        base: cells×cells height of the ground, m; the first axis is x.
        surface: cells×cells height of the upper surface, m.
    """

    def __init__(self, extent: float, cells: int = 320) -> None:
        """Starts with level ground.

        Args:
            extent: Side of the square around the origin, m.
            cells: Number of cells along a side.
        """
        self.extent = extent
        self.cells = cells
        self.cell = extent / cells
        self.surface = np.zeros((cells, cells))
        self.base = np.zeros((cells, cells))

    def points(self) -> NDArray[np.float64]:
        """Returns the cells×cells×2 x and y of the cells, m; the first axis is x."""
        axis = (np.arange(self.cells) + 0.5) * self.cell - self.extent / 2
        return np.stack(np.meshgrid(axis, axis, indexing='ij'), axis=-1)

    def height(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the N heights of the surface at N×2 points, m; NaN outside the height field."""
        index = np.floor((points + self.extent / 2) / self.cell).astype(int)
        inside = ((index >= 0) & (index < self.cells)).all(axis=1)
        found = np.full(len(points), np.nan)
        found[inside] = self.surface[tuple(index[inside].T)]
        return found

    def fines(
        self, rng: Generator, thickness: float, lump: float, edges: tuple[float, float]
    ) -> NDArray[np.float64]:
        """Makes an uneven bed of fines between two lines along the belt.

        Args:
            rng: Random generator.
            thickness: Thickness of the bed, m.
            lump: Size of its lumps, m.
            edges: The two lines across the belt, m.

        Returns:
            cells×cells heights, m; below 0 where the belt is bare.
        """
        points = self.points()
        shift = rng.uniform(0, 100, 2)
        height = np.zeros((self.cells, self.cells))
        for octave in range(5):
            wavelength = lump * 4 / 2.0**octave
            height += 0.1 * wavelength * noise_2d((points + shift) / wavelength, octave)[..., 0]
        across = points[..., 0] + 2 * lump * noise_2d((points + shift) / (6 * lump), 9)[..., 0]
        slope = np.minimum(across - edges[0], edges[1] - across)
        return np.minimum(thickness, slope * 0.6) + np.where(slope > 0, height, -lump)

    def settle(
        self,
        shape: Shape,
        diameter: float,
        turn: float,
        places: NDArray[np.intp],
        sink: float,
    ) -> tuple[float, float, float] | None:
        """Places a stone at the candidate position where it rests lowest above the ground.

        Args:
            shape: Shape of the stone.
            diameter: Diameter of the stone, m.
            turn: Rotation about the vertical, rad.
            places: N×2 candidate cells.
            sink: Share of its height that it sinks into the surface.

        Returns:
            Position of the centre of the stone, m; None if it would be outside the height field.
        """
        upper, lower = self._profile(shape, diameter, turn)
        side = upper.shape[0]
        best: tuple[float, float, int, int] | None = None
        for row, column in places - side // 2:
            if row < 0 or column < 0 or row + side > self.cells or column + side > self.cells:
                continue
            part = slice(row, row + side), slice(column, column + side)
            rest = float((self.surface[part] - lower).max())
            bare = float((self.base[part] - lower).max())
            if best is None or rest - bare < best[0]:
                best = (rest - bare, rest, row, column)
        if best is None:
            return None
        _, rest, row, column = best
        part = slice(row, row + side), slice(column, column + side)
        # On a slope a stone would tilt, which is not modelled; it is placed lower instead.
        level = float(self.base[row + side // 2, column + side // 2] - lower.min())
        rest -= sink * float(upper.max() - lower.min())
        rest -= 0.6 * max(float((self.base[part] - lower).max()) - level, 0.0)
        np.maximum(self.surface[part], upper + rest, out=self.surface[part])
        half = side / 2
        return (
            (row + half) * self.cell - self.extent / 2,
            (column + half) * self.cell - self.extent / 2,
            rest,
        )

    def _profile(
        self, shape: Shape, diameter: float, turn: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the upper and lower surface of a stone on the cells; infinite outside it."""
        vertices, _ = shape.body(min(max(3, math.ceil(math.log2(diameter / self.cell)) - 1), 5))
        vertices = diameter * vertices @ rotation_about_z(turn).T
        side = int(np.ceil(diameter / self.cell)) | 1
        index = np.clip(np.floor(vertices[:, :2] / self.cell + side / 2).astype(int), 0, side - 1)
        upper = np.full((side, side), -np.inf)
        lower = np.full((side, side), np.inf)
        np.maximum.at(upper, (index[:, 0], index[:, 1]), vertices[:, 2])
        np.minimum.at(lower, (index[:, 0], index[:, 1]), vertices[:, 2])
        if side > 60:
            # The vertices of a large stone do not reach every cell.
            upper, lower = cv2.dilate(upper, np.ones((5, 5))), cv2.erode(lower, np.ones((5, 5)))
        return upper, lower
