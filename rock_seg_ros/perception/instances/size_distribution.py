# SPDX-License-Identifier: Apache-2.0
"""Which share of the rocks is finer than a size, as the analysis of sieves gives it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

WEIGHTINGS = {'number': 0, 'area': 2, 'volume': 3}  # power of the size that a rock counts with


def percent_passing(sizes: ArrayLike, weighting: str) -> tuple[Floats, Floats]:
    """Returns the cumulative curve.

    Args:
        sizes: N sizes above 0, in any unit and order.
        weighting: 'number', 'area' or 'volume': a rock counts with the power 0, 2 or 3 of its size.

    Returns:
        N sizes, the smallest first, and which percentage of the total each of them and the smaller
        ones have together, up to 100.
    """
    ordered = np.sort(np.asarray(sizes, np.float64))
    summed = np.cumsum(ordered ** WEIGHTINGS[weighting])
    return ordered, 100 * summed / summed[-1:]


def characteristic_sizes(
    sizes: ArrayLike, weighting: str, percentages: Sequence[float] = (10, 50, 90)
) -> list[float]:
    """Returns the sizes such as D10, D50 and D90.

    Args:
        sizes: N sizes above 0, N at least 1.
        weighting: See `percent_passing`.
        percentages: Percentages, 0 to 100.

    Returns:
        For each percentage, the smallest of the sizes at which at least that much passes.
    """
    ordered, passing = percent_passing(sizes, weighting)
    places = np.searchsorted(passing, np.asarray(percentages) - 1e-9)
    return [float(size) for size in ordered[np.minimum(places, len(ordered) - 1)]]
