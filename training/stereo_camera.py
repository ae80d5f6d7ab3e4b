# SPDX-License-Identifier: Apache-2.0
"""Simulates the depth image of a stereo camera from exact depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class StereoCamera:
    """A simulated stereo camera.

    Attributes:
        baseline: Distance between the two lenses, m.
        noise: Standard deviation of the disparity, px.
        smoothness: Standard deviation of the blur of the noise, px; the noise of neighbouring
            pixels is correlated because the windows of a stereo matcher overlap.
        window: Side of the window that blurs disparities at edges, px.
        holes: Share of pixels without depth, in connected holes.
        farthest: Maximum depth, m.
    """

    baseline: float = 0.1
    noise: float = 0.15
    smoothness: float = 1.5
    window: int = 3
    holes: float = 0.05
    farthest: float = 20.0

    def simulate(
        self, depth: NDArray[np.float32], focal: float, rng: Generator
    ) -> NDArray[np.float32]:
        """Returns the H×W measured depth, m, rounded to mm; NaN where it is unknown.

        Args:
            depth: H×W exact depth, m; NaN = no surface.
            focal: Focal length, px.
            rng: Random generator for noise and holes.
        """
        exact = np.where(np.isnan(depth), 0, self.baseline * focal / depth)
        column = np.arange(depth.shape[1]) - exact
        leftmost = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
        occluded = np.zeros(depth.shape, bool)
        occluded[:, :-1] = column[:, :-1] > leftmost[:, 1:]
        noise = self._blurred_noise(rng, depth.shape, self.smoothness)
        disparity = cv2.blur(exact, (self.window, self.window)) + self.noise * noise
        hole_noise = self._blurred_noise(rng, depth.shape, 4.0)
        holes = hole_noise < np.quantile(hole_noise, self.holes)
        z = self.baseline * focal / np.maximum(disparity, 1e-6)
        z[occluded | np.isnan(depth) | holes | (z > self.farthest)] = np.nan
        return (np.rint(z * 1000) / 1000).astype(np.float32)

    def _blurred_noise(self, rng: Generator, shape: tuple[int, ...], blur: float) -> NDArray[Any]:
        """Returns blurred noise with standard deviation 1."""
        noise = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), blur)
        return noise / noise.std()
