# SPDX-License-Identifier: Apache-2.0
"""The plots of the report, each as the data URI of an SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from rock_seg_ros.perception.figures import BLUE, GREY, ORANGE, SIZE, new_axes, svg
from rock_seg_ros.perception.geometry.abundance import Abundance, cumulative_coverage
from rock_seg_ros.perception.instances.size_distribution import percent_passing

MAX_POINTS = 2000  # of the size distribution
MAX_TIMES = 400  # of a curve over time; in longer recordings, a point is a mean of several images
WIDE = (1.5 * SIZE[0], 1.2 * SIZE[1])
COLOURS = {'number': GREY, 'area': BLUE, 'volume': ORANGE}


@dataclass
class Sizes:
    """The diameters of the rocks, in mm if a scale is known for any of them, else in px.

    Attributes:
        unit: 'mm' or 'px'.
        values: N.
        left_out: Number of rocks without a size in this unit.
    """

    unit: str
    values: list[float]
    left_out: int


def plot_passing(sizes: Sizes) -> str:
    """Plots the cumulative percentage that is finer than a size."""
    figure, axes = new_axes(
        'Size distribution', f'equivalent diameter ({sizes.unit})', 'passing (%)', WIDE
    )
    for weighting, colour in COLOURS.items():
        size, passing = percent_passing(sizes.values, weighting)
        # A step up at each size, from 0, of at most MAX_POINTS points.
        indices = np.unique(np.linspace(0, len(size) - 1, min(len(size), MAX_POINTS)).astype(int))
        x, y = np.append(size[0], size[indices]), np.append(0, passing[indices])
        axes.step(x, y, where='post', color=colour, label=f'by {weighting}')
    for percentage in (10, 50, 90):
        axes.axhline(percentage, color=GREY, linewidth=0.6, linestyle=':')
    axes.set(xscale='log', ylim=(0, 100), yticks=range(0, 101, 10))
    axes.grid(which='both', axis='x', color=GREY, alpha=0.25, linewidth=0.6)
    _plain_ticks(axes.xaxis)
    axes.legend(frameon=False, loc='upper left')
    return svg(figure)


def plot_classes(sizes: Sizes) -> str:
    """Plots the number of rocks per size class, whose limits grow by a factor of √2."""
    half_powers = np.floor(2 * np.log2(sizes.values)).astype(int)
    edges = 2.0 ** (np.arange(half_powers.min(), half_powers.max() + 2) / 2)
    figure, axes = new_axes(
        'Rocks per size class', f'equivalent diameter ({sizes.unit})', 'rocks', WIDE
    )
    axes.hist(sizes.values, edges.tolist(), color=BLUE, edgecolor='white', linewidth=0.6)
    axes.set(xscale='log')
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _plain_ticks(axes.xaxis)
    return svg(figure)


def plot_over_time(
    title: str, unit: str, times: Sequence[float], curves: Mapping[str, Sequence[float]]
) -> str:
    """Plots values of the images over time; of long recordings, means of successive images.

    Args:
        title: What the values are.
        unit: Label of their axis.
        times: T times since the first image, s.
        curves: Label → T values; those that are NaN are left out.
    """
    size = -(-len(times) // MAX_TIMES)
    figure, axes = new_axes(title, 'time since the first image (s)', unit, WIDE)
    for (label, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=False):
        x, y = (means(np.asarray(each, float), size) for each in (times, values))
        # Few points get markers, because a line of one point is invisible.
        marker = '.' if len(x) < MAX_TIMES / 4 else ''
        axes.plot(x, y, color=colour, label=label, linewidth=1, marker=marker)
    if len(curves) > 1:
        axes.legend(frameon=False)
    axes.set(ylim=(0, None))
    return svg(figure)


def means(values: np.ndarray[Any, Any], size: int) -> list[float]:
    """Returns the means of successive groups of `size` values; NaN values do not count."""
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    known = [group[np.isfinite(group)] for group in groups]
    return [float(group.mean()) if len(group) else np.nan for group in known]


def plot_covered(abundance: Abundance) -> str:
    """Plots the share of ground that rocks of at least a diameter cover, and the fitted model."""
    sizes, covered = np.array(abundance.sizes), np.array(abundance.covered)
    nonzero = covered > 0
    figure, axes = new_axes(
        'Cumulative fractional area', 'width D (m)', 'covered by rocks of at least D (%)', WIDE
    )
    sizes, covered = sizes[nonzero], covered[nonzero]
    axes.loglog(sizes, 100 * covered, 'o', color=BLUE, markersize=4, label='measured')
    if np.isfinite(abundance.k):
        fine = np.geomspace(sizes[0], sizes[-1], 100)
        label = f'Golombek & Rapp, k = {abundance.k:.3f}'
        axes.loglog(fine, 100 * cumulative_coverage(fine, abundance.k), color=ORANGE, label=label)
    _mark_smallest(axes, abundance)
    _plain_ticks(axes.xaxis, axes.yaxis)
    axes.legend(frameon=False, loc='lower left')
    return svg(figure)


def plot_numbers(abundance: Abundance) -> str:
    """Plots the number of rocks of at least a diameter per square metre."""
    sizes, numbers = np.array(abundance.sizes), np.array(abundance.numbers)
    nonzero = numbers > 0
    figure, axes = new_axes(
        'Cumulative number', 'width D (m)', 'rocks of at least D per square metre', WIDE
    )
    axes.loglog(sizes[nonzero], numbers[nonzero], 'o-', color=BLUE, markersize=4, linewidth=1)
    _mark_smallest(axes, abundance)
    _plain_ticks(axes.xaxis, axes.yaxis)
    return svg(figure)


def _plain_ticks(*logarithmic: Axis) -> None:
    """Labels logarithmic axes at 1, 2 and 5 of each decade, in plain numbers."""
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter('{x:g}')
        axis.set_minor_formatter(NullFormatter())


def _mark_smallest(axes: Axes, abundance: Abundance) -> None:
    """Shades the sizes that are found only near the camera."""
    low, high = axes.get_xlim()
    axes.axvspan(low, max(low, abundance.smallest), color=GREY, alpha=0.2, linewidth=0)
    axes.set_xlim(low, high)
