# SPDX-License-Identifier: Apache-2.0
"""The material of rocks: roughness, layers, patches, veins, cracks and grains."""

from __future__ import annotations

import numpy as np

from training.synthetic.materials import Floats, octaves
from training.synthetic.noise import (
    noise_3d,
    noise_3d_value,
)
from training.synthetic.vectors import dot, length


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
