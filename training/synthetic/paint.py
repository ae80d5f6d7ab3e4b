# SPDX-License-Identifier: Apache-2.0
"""The material of artificial surfaces: plain or with a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.materials import Colour, Floats
from training.synthetic.noise import (
    noise_3d_value,
)

PATTERNS = ('plain', 'bricks', 'planks', 'tiles', 'windows', 'checks', 'scale', 'grooves')


@dataclass(frozen=True)
class Painted:
    """An artificial surface: plain or with a pattern, and with dirt.

    Attributes:
        colour: Linear albedo.
        other: Linear albedo of the joints, windows or marks of the pattern.
        pattern: One of `PATTERNS`.
        scale: Size of a brick, a tile or a mark, m.
        origin: Origin of the pattern, m.
        axes: Two unit vectors along the pattern.
        dirt: Share of the surface with dirt, 0 to 1.
        soil: Linear albedo of the dirt.
    """

    colour: Colour
    other: Colour = (0.05, 0.05, 0.05)
    pattern: str = 'plain'
    scale: float = 1.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[tuple[float, float, float], tuple[float, float, float]] = ((1, 0, 0), (0, 1, 0))
    dirt: float = 0.0
    soil: Colour = (0.2, 0.15, 0.1)

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo; see `Ground`."""
        place = points - np.array(self.origin, np.float32)
        u, v = (place @ np.array(self.axes, np.float32).T / np.float32(self.scale)).T
        marked, shade = _pattern(self.pattern, u, v)
        # Marks that are finer than a pixel are averaged with their background.
        keep = np.clip(self.scale / (2 * footprint) - 0.2, 0, 1)
        marked = 0.3 + keep * (marked - 0.3) if self.pattern != 'plain' else marked
        colour, other = np.array(self.colour, np.float32), np.array(self.other, np.float32)
        albedo = colour * (1 + keep * shade)[:, None]
        albedo += marked[:, None] * (other - albedo)
        blots = np.zeros(len(points), np.float32)
        for octave, wavelength in enumerate((40, 15, 5, 2)):
            size = wavelength * float(np.median(footprint)) if len(footprint) else 1.0
            blots += 0.5 * noise_3d_value(
                points / np.float32(2.0 ** np.round(np.log2(size))), octave
            )
        cover = self.dirt / (1 + np.exp(-3 * (blots + 3 * (self.dirt - 0.6))))
        albedo += cover[:, None] * (np.array(self.soil, np.float32) - albedo)
        albedo *= (1 + 0.03 * blots)[:, None]
        return np.zeros((len(points), 2), np.float32), np.maximum(albedo, 0.004).astype(np.float32)


def _pattern(name: str, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Returns the opacity of the second colour, 0 to 1, and the relative brightness of parts."""
    none = np.zeros_like(u)
    if name == 'plain':
        return none, none
    if name in ('bricks', 'planks', 'tiles'):
        long = {'bricks': 2.4, 'planks': 9.0, 'tiles': 1.0}[name]
        row = np.floor(v)
        across = u / long + (0 if name == 'tiles' else np.mod(0.37 * row, 1))
        joint = (np.mod(v, 1) < 0.1) | (np.mod(across, 1) < 0.1 / long)
        shade = 0.4 * (np.mod(np.sin(12.99 * np.floor(across) + 78.23 * row) * 437.5, 1) - 0.5)
        return joint.astype(np.float32), shade.astype(np.float32)
    if name == 'windows':
        pane = (np.abs(np.mod(u, 1) - 0.5) < 0.28) & (np.abs(np.mod(v, 1) - 0.55) < 0.25)
        return pane.astype(np.float32), none
    if name == 'checks':
        return np.mod(np.floor(u) + np.floor(v), 2), none
    if name == 'grooves':
        return (np.mod(v, 1) < 0.3).astype(np.float32), none
    # A scale: a chequered bar, fine marks, and shapes like letters.
    bar = (np.abs(v - 1.2) < 0.5) & (np.mod(np.floor(u), 2) < 1)
    marks = (np.abs(v + 0.6) < np.where(np.mod(u, 1) < 0.2, 0.5, 0.25)) & (np.mod(5 * u, 1) < 0.3)
    letters = (np.abs(v + 2.0) < 0.35) & (np.sin(9 * u + 4 * np.sin(3.7 * u) + 8 * v) > 0.3)
    return (bar | marks | letters).astype(np.float32), none
