# SPDX-License-Identifier: Apache-2.0
"""A self-contained HTML report: size distribution, rock cover, small images and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import visible
from rock_seg_ros.perception.figures import BLUE, GREY, ORANGE, SIZE, jpeg, new_axes, render, svg
from rock_seg_ros.perception.instances.size_distribution import (
    characteristic_sizes,
    percent_passing,
)
from rock_seg_ros.perception.writing import atomic_write
from rock_seg_ros.tools.results.results import Results

TEMPLATE = Path(__file__).with_name('report.html.jinja')
MAX_IMAGES = 48  # number of images in the report
THUMBNAIL_WIDTH = 320  # px
MAX_POINTS = 2000  # points per curve
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


@dataclass
class Summary:
    """The content of the report.

    Attributes:
        captions: A line per image.
        counts: Number of rocks per image.
        pixels: Number of pixels of all images.
        rock_pixels: Of these, number on rocks.
        px: Diameter of each rock, px.
        mm: The same in mm; None where it is unknown.
        made_by: Versions, weights and settings, each different one once.
    """

    captions: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    pixels: int = 0
    rock_pixels: int = 0
    px: list[float] = field(default_factory=list)
    mm: list[float | None] = field(default_factory=list)
    made_by: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sizes(self) -> Sizes:
        """The sizes in the best unit that is known."""
        known = [size for size in self.mm if size is not None]
        if known:
            return Sizes('mm', known, len(self.mm) - len(known))
        return Sizes('px', self.px, 0)


def write(path: Path, results: Results) -> None:
    """Writes the report atomically. Equal records give equal bytes.

    Raises:
        OSError: The file cannot be written.
    """
    summary = summarize(results)
    sizes = summary.sizes
    page = render(
        TEMPLATE,
        name=visible(results.name),
        figures=figures_of(summary),
        unit=sizes.unit,
        left_out=sizes.left_out,
        characteristic=characteristic_table(sizes),
        plots=[plot_passing(sizes), plot_classes(sizes)] if sizes.values else [],
        shown=list(_shown(results, summary)),
        total=len(summary.counts),
        made_by=[_flat(made_by) for made_by in summary.made_by],
    )
    atomic_write(path, lambda temporary: temporary.write_text(page, 'utf-8', 'replace'))


def summarize(results: Results) -> Summary:
    """Reads the records once."""
    summary = Summary()
    for record in results.records:
        rocks = record['rocks']
        pixels, area = record['width'] * record['height'], sum(rock['area'] for rock in rocks)
        summary.counts.append(len(rocks))
        summary.pixels += pixels
        summary.rock_pixels += area
        summary.px += [rock['diameter'] for rock in rocks]
        summary.mm += [rock['diameter_mm'] for rock in rocks]
        if record['made_by'] not in summary.made_by:
            summary.made_by.append(record['made_by'])
        time = f', {record["time"]:.2f} s' if 'time' in record else ''
        number = '1 rock' if len(rocks) == 1 else f'{len(rocks)} rocks'
        name = visible(record['image'])
        summary.captions.append(f'{name}{time}: {number}, {area / pixels:.1%} of the image')
    return summary


def figures_of(summary: Summary) -> dict[str, str]:
    """Returns the table of figures: name → value as text."""
    counts = summary.counts
    figures = {'images': str(len(counts)), 'rocks': str(sum(counts))}
    if counts:
        figures['rocks per image, mean'] = f'{np.mean(counts):.1f}'
        figures['rocks per image, range'] = f'{min(counts)} to {max(counts)}'
        figures['images without rocks'] = str(counts.count(0))
        figures['rock cover (share of the pixels)'] = f'{summary.rock_pixels / summary.pixels:.1%}'
    return figures


def characteristic_table(sizes: Sizes) -> dict[str, list[str]]:
    """Returns D10, D50 and D90 for each weighting; empty without rocks."""
    if not sizes.values:
        return {}
    return {
        weighting: [f'{size:.4g}' for size in characteristic_sizes(sizes.values, weighting)]
        for weighting in COLOURS
    }


def plot_passing(sizes: Sizes) -> str:
    """Plots the cumulative percentage that is finer than a size."""
    figure, axes = new_axes(
        'Size distribution', f'equivalent diameter ({sizes.unit})', 'passing (%)', WIDE
    )
    for weighting, colour in COLOURS.items():
        size, passing = percent_passing(sizes.values, weighting)
        # The curve has a step at each size, but at most MAX_POINTS points.
        indices = np.unique(np.linspace(0, len(size) - 1, min(len(size), MAX_POINTS)).astype(int))
        x, y = np.append(size[0], size[indices]), np.append(0, passing[indices])
        axes.step(x, y, where='post', color=colour, label=f'by {weighting}')
    for percentage in (10, 50, 90):
        axes.axhline(percentage, color=GREY, linewidth=0.6, linestyle=':')
    axes.set(xscale='log', ylim=(0, 100), yticks=range(0, 101, 10))
    axes.grid(which='both', axis='x', color=GREY, alpha=0.25, linewidth=0.6)
    _plain_ticks(axes)
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
    _plain_ticks(axes)
    return svg(figure)


def _plain_ticks(axes: Axes) -> None:
    """Labels a logarithmic x axis at 1, 2 and 5 of each decade, in plain numbers."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(NullFormatter())


def _shown(results: Results, summary: Summary) -> Iterator[tuple[str, str]]:
    """Yields at most `MAX_IMAGES` overlays, evenly spread, as data URIs, and their captions."""
    count = len(summary.captions)
    indices = np.unique(np.linspace(0, max(0, count - 1), min(count, MAX_IMAGES)).astype(int))
    chosen: Sequence[int] = indices.tolist()
    for index, overlay in zip(chosen, results.overlays(chosen), strict=True):
        if overlay is not None:
            yield jpeg(_thumbnail(overlay)), summary.captions[index]


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[Any]:
    height, width = image.shape[:2]
    factor = min(1.0, THUMBNAIL_WIDTH / width)
    size = round(width * factor), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _flat(made_by: dict[str, Any]) -> dict[str, str]:
    """Returns the version, weights and settings as name → text."""
    values = {name: value for name, value in made_by.items() if name != 'settings'}
    return {
        name: visible(value if isinstance(value, str) else json.dumps(value))
        for name, value in {**values, **made_by['settings']}.items()
    }
