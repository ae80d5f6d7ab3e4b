# SPDX-License-Identifier: Apache-2.0
"""Materials: albedo and small slopes at each point, with the detail that a pixel resolves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.synthetic.noise import (
    GRAVEL_RADII,
    gravel,
    gravel_height,
    noise_2d,
    noise_3d,
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


def dot(one: Floats, other: Floats) -> Floats:
    """Returns the N dot products of N×3 and N×3 vectors."""
    return np.einsum('ij,ij->i', one, other)


def length(vectors: Floats) -> Floats:
    """Returns the N×1 lengths of N×3 vectors."""
    return np.sqrt(dot(vectors, vectors))[:, None]


def rock_surface(
    points: Floats,
    normals: Floats,
    footprint: Floats,
    bedding: Floats,
    colour: Floats,
    roughness: Floats,
    longest: float,
) -> tuple[Floats, Floats, Floats]:
    """Computes roughness, layers and mottle of rock.

    Args:
        points: N×3 points relative to the centre of the rock, m.
        normals: N×3 unit normals.
        footprint: N widths of a pixel on the surface, m.
        bedding: N×3 normals of the layers; a greater length means finer layers.
        colour: N×3 linear albedo of the rock.
        roughness: N slopes of each octave.
        longest: Longest wavelength, m.

    Returns:
        N×3 rough unit normals, N×3 linear albedo, and N values of the coarse noise, about −1 to 1.
    """
    finer = length(bedding)
    axis = np.divide(bedding, np.maximum(finer, 1e-6), dtype=np.float32)
    stretch = finer - 1
    along = dot(points, axis)[:, None]
    place = points + stretch * along * axis
    bump = np.zeros_like(points)
    tint = np.zeros(len(points), np.float32)
    coarse = np.zeros(len(points), np.float32)
    for octave, wavelength, shown, weight in octaves(footprint, longest):
        found = noise_3d(place[shown] * np.float32(1 / wavelength), octave)
        gradient = found[:, 1:] * (roughness[shown] * weight / (2 * np.pi))[:, None]
        # The chain rule of `place`, so that layers change the normal across and not along them.
        lean = dot(gradient, axis[shown])[:, None]
        bump[shown] += gradient + np.minimum(stretch[shown], 1.5) * lean * axis[shown]
        tint[shown] += 0.09 * weight * found[:, 0]
        if wavelength > longest / 8:
            coarse[shown] += 0.5 * weight * found[:, 0]
    bump -= dot(bump, normals)[:, None] * normals
    bent = normals - bump
    bent /= length(bent)
    return bent, colour * np.maximum(1 + tint, 0.25)[:, None], coarse


def mark(
    albedo: Floats,
    points: Floats,
    footprint: Floats,
    diameter: Floats,
    bedding: Floats,
    other: Floats,
    marks: Floats,
) -> None:
    """Adds patches, layers, veins, cracks and grains to the albedo of rocks.

    Args:
        albedo: N×3 linear albedo; changed in place.
        points: N×3 points relative to the centre of the rock, m.
        footprint: N widths of a pixel on the surface, m.
        diameter: N diameters of the rock, m.
        bedding: N×3 normals of the layers.
        other: N×3 linear albedo of the marks.
        marks: N×5: patches, stripes, veins, cracks and speckle; see `Marks`.
    """
    place = points / diameter[:, None]
    pixel = footprint / diameter
    shown = [np.flatnonzero(strength > 0) for strength in marks.T]
    patched, striped, veined, cracked, speckled = shown
    for of, share in (
        (patched, _patches(place[patched], marks[patched, 0])),
        (veined, marks[veined, 2] * _lines(place[veined], pixel[veined], (11, 12), 1.3, 0.035)),
    ):
        albedo[of] += share[:, None] * (other[of] - albedo[of])
    for of, factor in (
        (striped, 1 + marks[striped, 1] * _layers(place[striped], bedding[striped])),
        (
            cracked,
            1 - marks[cracked, 3] * _lines(place[cracked], pixel[cracked], (21, 22), 0.9, 0.012),
        ),
        (speckled, 1 + marks[speckled, 4] * _grains(place[speckled], pixel[speckled])),
    ):
        albedo[of] *= np.clip(factor, 0.1, 2.0)[:, None]
    np.clip(albedo, 0.005, 0.95, out=albedo)


def _patches(place: Floats, share: Floats) -> Floats:
    """Returns the N opacities of patches that cover a share of the rock, 0 to 1."""
    blots = noise_3d_value(place * 2.2, 1) + 0.6 * noise_3d_value(place * 5.5, 2)
    blots += 0.35 * noise_3d_value(place * 14, 4)
    return 1 / (1 + np.exp(-7 * (blots + 2.6 * (share - 0.5))))


def _lines(
    place: Floats, pixel: Floats, seeds: tuple[int, int], often: float, width: float
) -> Floats:
    """Returns the N opacities of thin curved lines with gaps, 0 to 1.

    The lines are the zero crossings of a smooth field.
    """
    strongest = np.zeros(len(place), np.float32)
    for seed, often_here in zip(seeds, (often, 2.1 * often), strict=True):
        field = noise_3d_value(place * often_here, seed)
        field += 0.2 * noise_3d_value(place * 5 * often_here, seed + 3)
        # Lines are at least one pixel wide; the slope of the field is about 4 per wavelength.
        line = np.clip(1.4 - np.abs(field) / (width + 4 * often_here * pixel), 0, 1)
        line *= np.clip(1 + noise_3d_value(place * 1.5, seed + 5), 0, 1)
        np.maximum(strongest, line, out=strongest)
    return strongest


def _layers(place: Floats, bedding: Floats) -> Floats:
    """Returns the N relative brightnesses of layers, with mean 0."""
    axis = (bedding / np.maximum(length(bedding), 1e-6)).astype(np.float32)
    level = dot(place, axis) + 0.03 * noise_3d_value(place * 3, 6)
    beside = np.full_like(level, 0.3)
    layer = noise_3d_value(np.stack([5 * level, beside, beside], -1), 7)
    return layer + 0.6 * noise_3d_value(np.stack([17 * level, beside, beside], -1), 8)


def _grains(place: Floats, pixel: Floats) -> Floats:
    """Returns the N relative brightnesses of grains, with mean 0."""
    size = 2.0 ** np.ceil(np.log2(np.maximum(0.02, 1.6 * pixel)))
    return noise_3d_value(place / size[:, None].astype(np.float32), 31)
