# SPDX-License-Identifier: Apache-2.0
"""Grain size distribution, as from a sieve analysis: the share of the rocks finer than a size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

WEIGHTINGS = {'number': 0, 'area': 2, 'volume': 3}  # weight of a rock: this power of its size


def percent_passing(sizes: ArrayLike, weighting: str) -> tuple[Floats, Floats]:
    """Returns the cumulative curve.

    Args:
        sizes: N sizes above 0, in any unit and order.
        weighting: 'number', 'area' or 'volume': the weight of a rock is its size to the power of
            0, 2 or 3.

    Returns:
        N sizes, smallest first, and N percentages of the total weight that rocks of at most this
        size have.
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
        For each percentage, the smallest size at which at least this percentage passes.
    """
    ordered, passing = percent_passing(sizes, weighting)
    indices = np.searchsorted(passing, np.asarray(percentages) - 1e-9)
    return [float(size) for size in ordered[np.minimum(indices, len(ordered) - 1)]]
