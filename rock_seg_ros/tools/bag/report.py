# SPDX-License-Identifier: Apache-2.0
"""Writes the statistics of the images of a bag as a self-contained HTML report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.figures import BLUE, GREY, ORANGE, SIZE, jpeg, new_axes, render, svg
from rock_seg_ros.perception.geometry.abundance import (
    Abundance,
    Observation,
    combine,
    compute_abundance,
    cumulative_coverage,
    observe,
)
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.writing import atomic_write

REACH = signature(observe).parameters['reach'].default
TEMPLATE = Path(__file__).with_name('report.html.jinja')
WIDE = (2 * SIZE[0], SIZE[1])
MIN_TRACK_LENGTH = 3  # images; a shorter track may be noise
POINTS = (
    400  # maximum number of points of a curve; each is the mean of several images in longer bags
)


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one image.

    Attributes:
        time: Time since the first image of the bag, s.
        rocks: Number of rocks.
        seen: Visible ground and rocks, for the rock abundance.
    """

    time: float
    rocks: int
    seen: Observation


@dataclass(frozen=True)
class ExampleImage:
    """An image that the report shows.

    Attributes:
        time: Time since the first image of the bag, s.
        caption: Time, number of rocks and share of rock pixels.
        overlay: Overlay as a data URI.
    """

    time: float
    caption: str
    overlay: str


class Record:
    """Collects the data of a report, a few hundred bytes per image.

    Attributes:
        moments: Statistics of the images in their order.
        pixel_diameters: Diameter of the disc of equal area, whole px → number of rocks.
        ids: Track id of a rock → number of images with it.
        shown: Reason why an image is shown → the image.
    """

    def __init__(self, images: int) -> None:
        """Starts without data; `images` is the number of images in the bag."""
        self.moments: list[ImageStatistics] = []
        self.pixel_diameters: Counter[int] = Counter()
        self.ids: Counter[int] = Counter()
        self.shown: dict[str, ExampleImage] = {}
        self._middle = images // 2
        self._most = {'most rocks': -1.0, 'most rock': -1.0}
        self._start: int | None = None

    def add(self, stamp: int, analysis: Analysis) -> None:
        """Adds the results of the next image; `stamp` in ns."""
        self._start = stamp if self._start is None else self._start
        rocks = analysis.rocks
        seen = observe(
            rocks,
            analysis.places,
            analysis.image.shape[:2],
            analysis.view,
            min_area=analysis.settings.rocks.min_area,
        )
        self.moments.append(ImageStatistics((stamp - self._start) * 1e-9, len(rocks), seen))
        self.pixel_diameters.update(round(2 * (rock.area / np.pi) ** 0.5) for rock in rocks)
        self.ids.update(rock.id for rock in rocks)
        self._show(analysis)

    def _show(self, analysis: Analysis) -> None:
        """Keeps the overlay of the first and middle image and of those with the most rock."""
        moment = self.moments[-1]
        special = []
        if len(self.moments) == 1:
            special.append('first')
        if len(self.moments) == self._middle + 1:
            special.append('middle')
        for name, value in (('most rocks', moment.rocks), ('most rock', moment.seen.rock_pixels)):
            if value > self._most[name]:
                self._most[name] = value
                special.append(name)
        if special:
            share = moment.seen.rock_pixels / moment.seen.pixels
            caption = f'{moment.time:.2f} s: {moment.rocks} rocks, {share:.1%} of the pixels'
            shown = ExampleImage(moment.time, caption, jpeg(analysis.overlay))
            self.shown |= dict.fromkeys(special, shown)


@dataclass(frozen=True)
class RunSummary:
    """Inputs and settings of the run that a report describes.

    Attributes:
        command: Command line that creates the report again.
        facts: Name of a topic or setting → its value.
        refused: Reason → number of images that were rejected.
        set_aside: Reason → number of images whose depth or camera_info was ignored.
        tracked: Whether rocks were tracked.
        card: Metadata of the weights.
    """

    command: str
    facts: Mapping[str, str]
    refused: Mapping[str, int]
    set_aside: Mapping[str, int]
    tracked: bool
    card: Card


def write_report(output: Path, name: str, record: Record, about: RunSummary) -> None:
    """Writes a report atomically.

    Args:
        output: The HTML file.
        name: Name of the bag.
        record: Results of the images.
        about: Inputs and settings of the run.

    Raises:
        OSError: The file cannot be written.
    """
    field = statistics_of(record)
    page = render(
        TEMPLATE,
        name=name,
        about=about,
        figures=figures_of(record, field, about),
        plots=_plots(record, field),
        shown=_by_image(record.shown),
        card=asdict(about.card),
        reach=f'{REACH:g} m',
    )
    atomic_write(output, lambda temporary: temporary.write_text(page, 'utf-8', 'replace'))


def statistics_of(record: Record) -> Abundance | None:
    """Returns the rock abundance over all images; None without images."""
    seen = [moment.seen for moment in record.moments]
    return compute_abundance(combine(seen)) if seen else None


def figures_of(record: Record, field: Abundance | None, about: RunSummary) -> dict[str, str]:
    """Returns the table of figures: name → value as text."""
    counts = [moment.rocks for moment in record.moments]
    figures = {
        'images with results': str(len(counts)),
        'rejected images': str(sum(about.refused.values())),
    }
    if field is None:
        return figures
    figures['rocks per image, mean'] = f'{np.mean(counts):.2f}'
    figures['rocks per image, range'] = f'{min(counts)} to {max(counts)}'
    if about.tracked:
        tracked = sum(images >= MIN_TRACK_LENGTH for images in record.ids.values())
        figures['track ids'] = str(len(record.ids))
        figures[f'track ids in {MIN_TRACK_LENGTH} images or more'] = str(tracked)
    figures['share of rock pixels'] = f'{field.pixel_share:.2%}'
    metric = sum(np.isfinite(moment.seen.ground) for moment in record.moments)
    figures['images with metres'] = str(metric)
    if metric:
        figures['visible ground, summed over images'] = f'{field.ground:.1f} m²'
        figures['rock abundance (share of the ground)'] = f'{field.abundance:.2%}'
        figures['k of the Golombek and Rapp model'] = f'{field.k:.4f}'
    return figures


def _by_image(shown: Mapping[str, ExampleImage]) -> dict[str, ExampleImage]:
    """Groups the reasons why an image is shown by image, in the order of time."""
    groups: dict[ExampleImage, list[str]] = {}
    for name, image in shown.items():
        groups.setdefault(image, []).append(name)
    ordered = sorted(groups, key=lambda image: image.time)
    return {', '.join(groups[image]): image for image in ordered}


def _plots(record: Record, field: Abundance | None) -> list[str]:
    if field is None:
        return []
    known = np.isfinite(field.ground) and any(field.covered)
    sizes = [plot_covered(field), plot_numbers(field)] if known else [plot_pixels(record)]
    return [plot_rocks(record.moments), plot_abundance(record.moments), *sizes]


def plot_rocks(moments: Sequence[ImageStatistics]) -> str:
    """Plots the number of rocks per image over time."""
    groups = groups_of(moments)
    figure, axes = new_axes('Rocks per image', 'time in the bag (s)', 'rocks', WIDE)
    means = [float(np.mean([moment.rocks for moment in group])) for group in groups]
    axes.plot(_times(groups), means, color=BLUE, **_marks(groups))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylim=(0, None))
    return svg(figure)


def plot_abundance(moments: Sequence[ImageStatistics]) -> str:
    """Plots the share of rock over time: of the pixels, and of the ground if it is known."""
    groups = groups_of(moments)
    fields = [compute_abundance(combine([moment.seen for moment in group])) for group in groups]
    figure, axes = new_axes('Rock abundance', 'time in the bag (s)', 'share (%)', WIDE)
    for name, colour, shares in (
        ('of the pixels', BLUE, [field.pixel_share for field in fields]),
        ('of the ground', ORANGE, [field.abundance for field in fields]),
    ):
        if np.isfinite(shares).any():
            percent = 100 * np.array(shares)
            axes.plot(_times(groups), percent, color=colour, label=name, **_marks(groups))
    axes.legend(frameon=False)
    axes.set(ylim=(0, None))
    return svg(figure)


def plot_covered(field: Abundance) -> str:
    """Plots the share of ground that rocks of at least a diameter cover, and the fitted model."""
    sizes, covered = np.array(field.sizes), np.array(field.covered)
    there = covered > 0
    figure, axes = new_axes(
        'Cumulative fractional area', 'diameter D (m)', 'covered by rocks of at least D (%)'
    )
    axes.loglog(sizes[there], 100 * covered[there], 'o', color=BLUE, markersize=4, label='measured')
    if np.isfinite(field.k):
        fine = np.geomspace(sizes[there][0], sizes[there][-1], 100)
        label = f'Golombek & Rapp, k = {field.k:.3f}'
        axes.loglog(fine, 100 * cumulative_coverage(fine, field.k), color=ORANGE, label=label)
    _mark_smallest(axes, field)
    _plain_ticks(axes)
    axes.legend(frameon=False, loc='lower left')
    return svg(figure)


def plot_numbers(field: Abundance) -> str:
    """Plots the number of rocks of at least a diameter per square metre."""
    sizes, numbers = np.array(field.sizes), np.array(field.numbers)
    there = numbers > 0
    figure, axes = new_axes(
        'Cumulative number', 'diameter D (m)', 'rocks of at least D per square metre'
    )
    axes.loglog(sizes[there], numbers[there], 'o-', color=BLUE, markersize=4, linewidth=1)
    _mark_smallest(axes, field)
    _plain_ticks(axes)
    return svg(figure)


def plot_pixels(record: Record) -> str:
    """Plots the number of rocks of at least a diameter in pixels per image."""
    sizes = np.array(sorted(record.pixel_diameters), float)
    counts = [record.pixel_diameters[size] for size in sorted(record.pixel_diameters)]
    larger = np.cumsum(counts[::-1])[::-1] / len(record.moments)
    figure, axes = new_axes('Cumulative number', 'diameter D (px)', 'rocks of at least D per image')
    axes.loglog(sizes, larger, color=BLUE)
    _plain_ticks(axes)
    return svg(figure)


def _plain_ticks(axes: Any) -> None:
    """Labels logarithmic axes at 1, 2 and 5 of each decade, in plain numbers."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter('{x:g}')
        axis.set_minor_formatter(NullFormatter())


def _mark_smallest(axes: Any, field: Abundance) -> None:
    """Shades the sizes below which rocks are not found everywhere in view."""
    low, high = axes.get_xlim()
    axes.axvspan(low, max(low, field.smallest), color=GREY, alpha=0.2, linewidth=0)
    axes.set_xlim(low, high)


def groups_of(moments: Sequence[ImageStatistics]) -> list[Sequence[ImageStatistics]]:
    """Divides images into at most `POINTS` groups of successive ones."""
    size = -(-len(moments) // POINTS)
    return [moments[start : start + size] for start in range(0, len(moments), size)]


def _times(groups: Sequence[Sequence[ImageStatistics]]) -> list[float]:
    return [float(np.mean([moment.time for moment in group])) for group in groups]


def _marks(groups: Sequence[Any]) -> dict[str, Any]:
    """Returns the line style, with markers for short bags, where a line may be invisible."""
    return {'linewidth': 1, 'marker': '.' if len(groups) < POINTS / 4 else ''}
