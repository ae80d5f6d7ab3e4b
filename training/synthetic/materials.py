# SPDX-License-Identifier: Apache-2.0
"""Materials: albedo and small slopes at each point, with the detail that a pixel resolves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.synthetic.noise import (
    noise_2d,
    noise_3d_value,
)

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


class Ground(Protocol):
    """The material of a surface that is not rock.

    Attributes:
        colour: Linear albedo, also of the dust on rocks.
    """

    @property
    def colour(self) -> Colour:
        """Linear albedo."""
        ...  # pragma: no cover

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo.

        Args:
            points: N×3 points in the world, m.
            footprint: N widths of a pixel on the surface, m.
            sun: Unit vector towards the sun.

        Returns:
            N×2 slopes dz/dx and dz/dy, and N×3 linear albedo.
        """
        ...  # pragma: no cover


def octaves(
    footprint: Floats, longest: float
) -> Iterator[tuple[int, float, NDArray[np.intp] | slice, Floats]]:
    """Yields the octaves that pixels resolve, short ones first.

    Args:
        footprint: N widths of a pixel on the surface, m.
        longest: Longest wavelength, m.

    Yields:
        Number of the octave, wavelength (m), indices of the points where it is resolved (a slice if
        it is resolved at all points, which avoids a copy), and its weight there (0 to 1, which
        approaches 0 at two pixels per wavelength).
    """
    if not len(footprint):
        return
    finest = np.log2(np.float32(1.5) * footprint)
    everywhere = float(finest.max())
    for octave in range(int(np.floor(finest.min())), int(np.ceil(np.log2(longest))) + 1):
        shown = slice(None) if everywhere < octave else np.flatnonzero(finest < octave)
        if isinstance(shown, slice) or len(shown):
            yield octave, 2.0**octave, shown, np.minimum(octave - finest[shown], 1)


@dataclass(frozen=True)
class Rubber:
    """The rubber of a conveyor belt along y, with streaks, scratches and stains.

    Attributes:
        colour: Linear albedo of the rubber.
        stain: Linear albedo of the stains.
        stains: Share of the belt with stains, 0 to 1.
        streaks: Relative standard deviation of the albedo across the belt.
        width: Width of the view, m.
        shift: Shift of the pattern, in widths.
    """

    colour: Colour
    stain: Colour
    stains: float
    streaks: float
    width: float
    shift: tuple[float, float] = (0.0, 0.0)

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo; see `Ground`."""
        place = points[:, :2] / self.width + np.array(self.shift, np.float32)
        stretched = place * np.array([1.0, 0.04])
        lines = np.zeros(len(points), np.float32)
        blots = np.zeros(len(points), np.float32)
        for octave, wavelength in enumerate((0.5, 0.2, 0.08, 0.03, 0.012)):
            lines += noise_2d(stretched / wavelength, octave)[:, 0]
            blot = noise_2d(place * np.array([1.0, 0.5]) / wavelength, 7 + octave)[:, 0]
            blots += blot * (0.8, 0.7, 0.5, 0.45, 0.4)[octave]
        band = noise_2d(place * np.array([1.0, 0.02]) / 0.6, 17)[:, 0]
        cover = 1 / (1 + np.exp(-5 * (blots + 1.2 * band + 3.5 * (self.stains - 0.6))))
        scratch = np.clip(noise_2d(stretched / 0.016, 19)[:, 0] - 2.0, 0, 1)
        albedo = np.array(self.colour, np.float32) * np.maximum(
            1 + self.streaks * lines + 1.5 * scratch, 0.3
        ).reshape(-1, 1)
        mottled = np.array(self.stain, np.float32) * np.maximum(1 + 0.25 * blots, 0.2)[:, None]
        albedo += cover[:, None] * (mottled - albedo)
        slope = 0.03 * np.stack([noise_2d(place / 0.02, 23)[:, 1], np.zeros(len(points))], -1) / 6
        return slope.astype(np.float32), albedo.astype(np.float32)


@dataclass(frozen=True)
class Foliage:
    """Leaves and blades of grass.

    Attributes:
        colour: Linear albedo.
        other: Linear albedo of the leaves that differ most.
        leaf: Size of a leaf, m, within which the colour is uniform.
    """

    colour: Colour
    other: Colour
    leaf: float

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo; see `Ground`."""
        fine = noise_3d_value(points / np.float32(0.8 * self.leaf), 3)
        coarse = noise_3d_value(points / np.float32(12 * self.leaf), 5)
        share = np.clip(0.35 + 0.25 * fine + 0.25 * coarse, 0, 1)[:, None]
        colour, other = np.array(self.colour, np.float32), np.array(self.other, np.float32)
        albedo = colour + share * (other - colour)
        albedo *= np.maximum(1 + 0.18 * fine, 0.4)[:, None]
        return np.zeros((len(points), 2), np.float32), albedo.astype(np.float32)


@dataclass(frozen=True)
class Water:
    """A water surface with small waves.

    Attributes:
        colour: Linear albedo of the ground below the water.
        waves: Slope of each octave.
        longest: Longest wavelength, m.
        gloss: Strength of the reflection, 0 to 1.
    """

    colour: Colour
    waves: float
    longest: float
    gloss: float = 1.0

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo; see `Ground`."""
        slope = np.zeros((len(points), 2), np.float32)
        for octave, wavelength, shown, weight in octaves(footprint, self.longest):
            found = noise_2d(points[shown, :2] * np.float32(1 / wavelength), octave)
            slope[shown] += (self.waves / (2 * np.pi) * weight)[:, None] * found[:, 1:]
        return slope, np.tile(np.array(self.colour, np.float32), (len(points), 1))
