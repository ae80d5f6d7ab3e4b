# SPDX-License-Identifier: Apache-2.0
"""Periodic smooth noise of one wavelength with its gradient, and a periodic tile of gravel.

An octave is sampled at position / wavelength. Sums of octaves are fractals (spectral synthesis,
Saupe 1988, in The Science of Fractal Images).
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TEXELS = 8  # per wavelength
PLANE = 512  # side of the noise tile, texels
VOLUME = 64
GRAVEL = 1024  # side of the gravel tile, texels
GRAVEL_RADII = (2.0, 13.0)  # radii of the pebbles, texels


def noise_2d(points: NDArray[np.floating], octave: int) -> Floats:
    """Samples noise in the plane.

    Args:
        points: …×2 positions in wavelengths.
        octave: Number that rotates and shifts the tile, so that octaves are not aligned.

    Returns:
        …×3 float32: value (mean 0, standard deviation 1) and its gradient with respect to `points`.
    """
    angle = 0.73 * octave + 0.3
    at = points @ (TEXELS * _turn(angle)).astype(points.dtype)
    at += TEXELS * 0.37 * octave
    found = _lookup(_plane(), at)
    found[..., 1:] = found[..., 1:] @ _turn(-angle).astype(np.float32)
    return found


def _turn(angle: float) -> NDArray[np.float64]:
    """Returns the 2×2 matrix that rotates row vectors."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def noise_3d(points: NDArray[np.floating], octave: int) -> Floats:
    """Samples noise in space.

    Args:
        points: N×3 positions in wavelengths.
        octave: Number that shifts the tile.

    Returns:
        N×4 float32: value (mean 0, standard deviation 1) and its gradient with respect to `points`.
    """
    return _between_slices(_slices(), points, octave)


def noise_3d_value(points: NDArray[np.floating], octave: int) -> Floats:
    """Returns the N float32 values of `noise_3d` without the gradient, which is faster."""
    return _between_slices(_slices_of_values(), points, octave)[:, 0]


def _between_slices(slices: Floats, points: NDArray[np.floating], octave: int) -> Floats:
    """Interpolates linearly in two neighbouring slices of the volume, and between them."""
    at = _wrap(TEXELS * points + 11.3 * octave, VOLUME)
    below = at[:, 0].astype(np.int32)
    part = (at[:, 0] - below)[:, None]
    below &= VOLUME - 1
    above = (below + 1) & (VOLUME - 1)
    place = np.empty((len(at), 2), np.float32)
    place[:, 0] = at[:, 2]
    place[:, 1] = at[:, 1] + (VOLUME + 1) * below
    low = _remap(slices, place)
    place[:, 1] = at[:, 1] + (VOLUME + 1) * above
    high = _remap(slices, place)
    high -= low
    high *= part
    low += high
    return low


def gravel(points: NDArray[np.floating], variant: int) -> Floats:
    """Samples the gravel tile.

    Args:
        points: …×2 positions in texels.
        variant: Number that rotates the tile.

    Returns:
        …×4 float32: height in texels (0 = no pebble), its gradient, and the tint of the pebble, −1
        to 1.
    """
    angle = 1.1 * variant
    found = _lookup(_gravel(), points @ _turn(angle).astype(points.dtype))
    found[..., 1:3] = found[..., 1:3] @ _turn(-angle).astype(np.float32)
    return found


def gravel_height(points: NDArray[np.floating], variant: int) -> Floats:
    """Returns the … float32 heights of `gravel` without the gradient, which is faster."""
    turned = points @ _turn(1.1 * variant).astype(points.dtype)
    return _lookup(_gravel_height(), turned)[..., 0]


def _lookup(tile: Floats, at: NDArray[np.floating]) -> Floats:
    """Interpolates a periodic tile; `at` is …×2 in texels, x first."""
    found = _remap(tile, _wrap(at.reshape(-1, 2), tile.shape[0]))
    return found.reshape(*at.shape[:-1], found.shape[1])


def _wrap(at: NDArray[np.floating], size: int) -> Floats:
    """Returns the positions modulo the size of a tile."""
    return (at - size * np.floor(at * (1 / size))).astype(np.float32, copy=False)


def _remap(tile: Floats, place: Floats) -> Floats:
    """Interpolates H×W×C at N×2 positions (texels, x first); returns N×C."""
    count = len(place)
    channels = tile.shape[2] if tile.ndim == 3 else 1
    if not count:
        return np.zeros((0, channels), np.float32)
    # OpenCV cannot process arrays wider than 32766, so a long list of points is reshaped.
    rows = -(-count // 16384)
    width = -(-count // rows)
    if rows * width > count:
        place = np.concatenate([place, np.zeros((rows * width - count, 2), np.float32)])
    across = place.reshape(rows, width, 2)
    found = cv2.remap(
        tile,
        across,
        None,  # type: ignore[call-overload]
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(found, np.float32).reshape(rows * width, channels)[:count]


def _band(shape: tuple[int, ...], seed: int) -> list[NDArray[np.float64]]:
    """Makes periodic band-pass noise around one wavelength: value and gradient per wavelength."""
    white = np.random.default_rng(seed).standard_normal(shape)
    axes = np.meshgrid(*[np.fft.fftfreq(side) * TEXELS for side in shape], indexing='ij')
    frequency = np.sqrt(sum(axis**2 for axis in axes))
    band = np.exp(-0.5 * (np.log2(np.maximum(frequency, 1e-6)) / 0.6) ** 2)
    spectrum = np.fft.fftn(white) * band
    value = np.fft.ifftn(spectrum).real
    parts = [value] + [np.fft.ifftn(2j * np.pi * axis * spectrum).real for axis in axes]
    return [part / value.std() for part in parts]


@cache
def _plane() -> Floats:
    value, by_row, by_column = _band((PLANE, PLANE), 1)
    return np.stack([value, by_column, by_row], axis=-1).astype(np.float32)


@cache
def _slices() -> Floats:
    """Makes the volume as a column of slices, each with its first row and column repeated."""
    volume = np.stack(_band((VOLUME,) * 3, 2), axis=-1).astype(np.float32)
    padded = np.pad(volume, ((0, 0), (0, 1), (0, 1), (0, 0)), mode='wrap')
    return padded.reshape(VOLUME * (VOLUME + 1), VOLUME + 1, 4)


@cache
def _slices_of_values() -> Floats:
    return np.ascontiguousarray(_slices()[..., 0])


@cache
def _gravel() -> Floats:
    """Places half ellipsoids on the tile, the largest first."""
    rng = np.random.default_rng(3)
    height = np.zeros((GRAVEL, GRAVEL), np.float32)
    tint = np.zeros_like(height)
    low, high = GRAVEL_RADII
    count = 5200
    # The cumulative number of radii is a power law with the exponent −2.2.
    draw = rng.uniform(size=count)
    radii = (low**-2.2 + draw * (high**-2.2 - low**-2.2)) ** (-1 / 2.2)
    for radius in np.sort(radii)[::-1]:
        reach = int(np.ceil(radius))
        centre = rng.integers(0, GRAVEL, 2)
        x = np.arange(-reach, reach + 1)
        y = x[:, None]
        angle = rng.uniform(0, np.pi)
        along, across = (
            np.cos(angle) * x + np.sin(angle) * y,
            np.cos(angle) * y - np.sin(angle) * x,
        )
        squeeze = rng.uniform(0.55, 0.95)
        power = rng.uniform(2.0, 4.0)
        reachness = (np.abs(along) ** power + np.abs(across / squeeze) ** power) / radius**power
        tilt = rng.normal(0, 0.25, 2)
        body = radius * rng.uniform(0.4, 0.8) * np.sqrt(np.maximum(1 - reachness, 0))
        body = np.where(body > 0, body + 0.5 * (tilt[0] * x + tilt[1] * y), 0).astype(np.float32)
        place = (centre[0] + y) % GRAVEL, (centre[1] + x) % GRAVEL
        over = body > height[place]
        height[place] = np.where(over, body, height[place])
        tint[place] = np.where(over, rng.uniform(-1, 1), tint[place])
    by_column = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / 2
    by_row = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) / 2
    return np.stack([height, by_column, by_row, tint], axis=-1)


@cache
def _gravel_height() -> Floats:
    return np.ascontiguousarray(_gravel()[..., 0])
