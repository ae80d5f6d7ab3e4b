# SPDX-License-Identifier: Apache-2.0
"""The material of the ground: sand and gravel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.materials import Colour, Floats, octaves
from training.synthetic.noise import (
    GRAVEL_RADII,
    gravel,
    gravel_height,
    noise_2d,
)


@dataclass(frozen=True)
class Soil:
    """Sand and gravel.

    Attributes:
        colour: Linear albedo.
        patch: Linear albedo of its patches.
        patches: Share of the ground with patches, 0 to 1.
        pebbles: Linear albedos of the gravel.
        grain: Slope of each octave of its roughness.
        mottle: Relative standard deviation of the albedo per octave.
        gravel_cover: Share of the ground with gravel, 0 to 1.
        texel: Size of a texel of the finest gravel tile, m.
        ripple: Slope of the ripples.
        ripple_length: Wavelength of the ripples, m.
        ripple_direction: Direction across the crests of the ripples, rad.
        track: Distance of wheel tracks from the origin, m; 0 = none.
        track_width: Width of each track, m.
        path: Width of a path through the origin, m, outside which the ground has the colour
            `patch`; 0 = no path, below 0 = the whole ground has it.
    """

    colour: Colour
    patch: Colour
    patches: float
    pebbles: tuple[Colour, ...]
    grain: float
    mottle: float
    gravel_cover: float
    texel: float
    ripple: float = 0.0
    ripple_length: float = 1.0
    ripple_direction: float = 0.0
    track: float = 0.0
    track_width: float = 0.4
    path: float = 0.0

    def surface(self, points: Floats, footprint: Floats, sun: Floats) -> tuple[Floats, Floats]:
        """Computes small slopes and albedo; see `Ground`."""
        place = points[:, :2]
        slope = np.zeros((len(points), 2), np.float32)
        tint = np.zeros(len(points), np.float32)
        low = np.zeros(len(points), np.float32)
        longest = 600 * self.texel
        for octave, wavelength, shown, weight in octaves(footprint, longest):
            found = noise_2d(place[shown] * np.float32(1 / wavelength), octave)
            slope[shown] += (self.grain / (2 * np.pi) * weight)[:, None] * found[:, 1:]
            tint[shown] += self.mottle * weight * found[:, 0]
            if wavelength > longest / 16:
                low[shown] += 0.5 * weight * found[:, 0]
        share = 1 / (1 + np.exp(-4 * (low + np.float32(3 * (self.patches - 0.5)))))
        if self.path:
            share = self._verge(place, low)
        albedo = np.array(self.colour, np.float32) + share[:, None] * (
            np.array(self.patch, np.float32) - np.array(self.colour, np.float32)
        )
        albedo *= np.maximum(1 + tint, 0.2)[:, None]
        self._ripples(place, footprint, slope, low)
        for level in range(2):
            self._gravel(level, place, footprint, sun, (slope, albedo, low))
        if self.track:
            self._tracks(place, footprint, slope, albedo)
        return slope, albedo.astype(np.float32)

    def _verge(self, place: Floats, low: Floats) -> Floats:
        """Returns the N shares of the second colour beside a path, 0 to 1."""
        if self.path < 0:
            return np.clip(0.9 + 0.1 * low, 0, 1)
        across = np.array([np.cos(self.ripple_direction), np.sin(self.ripple_direction)])
        bend = noise_2d(place / np.float32(8 * self.path), 43)[:, 0]
        beside = np.abs(place @ across + 0.3 * self.path * bend) / self.path - 0.5 + 0.1 * low
        return (1 / (1 + np.exp(-14 * np.clip(beside, -2, 2)))).astype(np.float32)

    def _ripples(self, place: Floats, footprint: Floats, slope: Floats, low: Floats) -> None:
        if self.ripple <= 0:
            return
        across = np.array([np.cos(self.ripple_direction), np.sin(self.ripple_direction)])
        warp = noise_2d(place / (7 * self.ripple_length), 31)
        fine = noise_2d(place / (2.5 * self.ripple_length), 32)
        phase = 2 * np.pi * (place @ across) / self.ripple_length + 2.2 * warp[:, 0] + fine[:, 0]
        fade = np.clip(self.ripple_length / (3 * footprint) - 0.5, 0, 1)
        strength = self.ripple * fade * np.clip(0.7 + 0.6 * warp[:, 1] / 3, 0, 1.5)
        steep = np.cos(phase) + 0.35 * np.cos(2 * phase + 0.8)
        slope += (strength * steep)[:, None].astype(np.float32) * across.astype(np.float32)

    def _gravel(
        self,
        level: int,
        place: Floats,
        footprint: Floats,
        sun: Floats,
        into: tuple[Floats, Floats, Floats],
    ) -> None:
        """Adds a tile of gravel with its small shadows."""
        slope, albedo, low = into
        texel = self.texel * 3.5**level
        fade = np.clip(1.7 * GRAVEL_RADII[1] * texel / (2 * footprint) - 0.6, 0, 1)
        cover = self.gravel_cover * (1, 0.6)[level]
        shown = np.flatnonzero((fade > 0) & (low + 2.4 * (cover - 0.5) > -0.6))
        if not len(shown) or cover <= 0:
            return
        at = place.take(shown, 0) / texel
        found = gravel(at, level)
        # At the edge of a patch of gravel, only the higher pebbles remain.
        needed = 7 * np.clip(0.35 - low[shown] - 2.4 * (cover - 0.5), 0, 1)
        here = found[:, 0] > np.maximum(needed, 0.3)
        reach = sun[:2] / max(float(np.hypot(*sun[:2])), 1e-6)
        rise = sun[2] / max(float(np.hypot(*sun[:2])), 1e-6)
        towards = gravel_height(at + 5 * reach, level)
        above = np.where(towards > np.maximum(needed, 0.3), towards, 0) - here * found[:, 0]
        shadow = np.clip(above - 5 * rise, 0, 1)
        palette = np.array(self.pebbles, np.float32)
        pick = np.clip(((found[:, 3] + 1) / 2 * len(palette)).astype(int), 0, len(palette) - 1)
        strength = fade[shown].astype(np.float32)
        blend = (strength * here)[:, None]
        shade = np.mod(found[:, 3] * 37.0, 1.0)[:, None]
        bare = albedo.take(shown, 0)
        stony = bare + blend * (palette.take(pick, 0) * (0.75 + 0.5 * shade) - bare)
        albedo[shown] = stony * (1 - 0.65 * (strength * shadow)[:, None])
        slope[shown] += 0.8 * blend * np.clip(found[:, 1:3], -1.2, 1.2)

    def _tracks(self, place: Floats, footprint: Floats, slope: Floats, albedo: Floats) -> None:
        """Adds two wheel tracks with cleats."""
        across = np.array([np.cos(self.ripple_direction), np.sin(self.ripple_direction)])
        along = np.array([-across[1], across[0]])
        wander = 0.2 * self.track_width * noise_2d(place / (9 * self.track_width), 41)[:, 0]
        side = np.abs(place @ across + wander) - self.track
        inside = np.clip(1 - np.abs(side) / (self.track_width / 2), 0, 1)
        cleat = self.track_width / 4
        phase = 2 * np.pi * (place @ along) / cleat
        fade = (
            np.clip(cleat / (3 * footprint) - 0.5, 0, 1) * (inside > 0) * np.minimum(3 * inside, 1)
        )
        slope += (0.35 * fade * np.cos(phase))[:, None].astype(np.float32) * along.astype(
            np.float32
        )
        albedo *= (1 - 0.15 * np.minimum(4 * inside, 1))[:, None]
