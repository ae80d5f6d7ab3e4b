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
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.writing import atomic_write

REACH = signature(observe).parameters['reach'].default
TEMPLATE = Path(__file__).with_name('report.html.jinja')
WIDE = (2 * SIZE[0], SIZE[1])
MIN_TRACK_LENGTH = 3  # images; a shorter track may be noise
MAX_POINTS = 400  # of a curve; in longer bags, a point is the mean of several images


@dataclass(frozen=True)
class ImageStatistics:
    """Statistics of one image.

    Attributes:
        time: Time since the first image of the bag, s.
        rocks: Number of rocks.
        observation: Visible ground and rocks, for the rock abundance.
    """

    time: float
    rocks: int
    observation: Observation


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
        images: Statistics of the images in their order.
        pixel_diameters: Diameter of the disc of equal area, whole px → number of rocks.
        ids: Track id of a rock → number of images with it.
        shown: Reason why an image is shown → the image.
    """

    def __init__(self, images: int) -> None:
        """Starts without data; `images` is the number of images in the bag."""
        self.images: list[ImageStatistics] = []
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
        observation = observe(
            rocks,
            analysis.locations,
            analysis.image.shape[:2],
            analysis.view,
            min_area=analysis.settings.rocks.min_area,
        )
        time = (stamp - self._start) * 1e-9
        self.images.append(ImageStatistics(time, len(rocks), observation))
        self.pixel_diameters.update(round(2 * (rock.area / np.pi) ** 0.5) for rock in rocks)
        self.ids.update(rock.id for rock in rocks)
        self._show(analysis)

    def _show(self, analysis: Analysis) -> None:
        """Keeps the overlay of the first and middle image and of those with the most rock."""
        image = self.images[-1]
        pixels = image.observation.rock_pixels
        reasons = []
        if len(self.images) == 1:
            reasons.append('first')
        if len(self.images) == self._middle + 1:
            reasons.append('middle')
        for name, value in (('most rocks', image.rocks), ('most rock', pixels)):
            if value > self._most[name]:
                self._most[name] = value
                reasons.append(name)
        if reasons:
            share = pixels / image.observation.pixels
            caption = f'{image.time:.2f} s: {image.rocks} rocks, {share:.1%} of the pixels'
            shown = ExampleImage(image.time, caption, jpeg(analysis.overlay))
            self.shown |= dict.fromkeys(reasons, shown)


@dataclass(frozen=True)
class RunSummary:
    """Inputs and settings of the run that a report describes.

    Attributes:
        command: Command line that creates the report again.
        facts: Name of a topic or setting → its value.
        rejected: Reason → number of rejected images.
        ignored: Reason → number of images whose depth or camera_info was ignored.
        tracked: Whether rocks were tracked.
        metadata: Metadata of the weights.
    """

    command: str
    facts: Mapping[str, str]
    rejected: Mapping[str, int]
    ignored: Mapping[str, int]
    tracked: bool
    metadata: ModelMetadata


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
    abundance = statistics_of(record)
    page = render(
        TEMPLATE,
        name=name,
        about=about,
        figures=figures_of(record, abundance, about),
        plots=_plots(record, abundance),
        shown=_by_image(record.shown),
        metadata=asdict(about.metadata),
        reach=f'{REACH:g} m',
    )
    atomic_write(output, lambda temporary: temporary.write_text(page, 'utf-8', 'replace'))


def statistics_of(record: Record) -> Abundance | None:
    """Returns the rock abundance over all images; None without images."""
    observations = [image.observation for image in record.images]
    return compute_abundance(combine(observations)) if observations else None


def figures_of(record: Record, abundance: Abundance | None, about: RunSummary) -> dict[str, str]:
    """Returns the table of figures: name → value as text."""
    counts = [image.rocks for image in record.images]
    figures = {
        'images with results': str(len(counts)),
        'rejected images': str(sum(about.rejected.values())),
    }
    if abundance is None:
        return figures
    figures['rocks per image, mean'] = f'{np.mean(counts):.2f}'
    figures['rocks per image, range'] = f'{min(counts)} to {max(counts)}'
    if about.tracked:
        tracked = sum(images >= MIN_TRACK_LENGTH for images in record.ids.values())
        figures['track ids'] = str(len(record.ids))
        figures[f'track ids in {MIN_TRACK_LENGTH} images or more'] = str(tracked)
    figures['share of rock pixels'] = f'{abundance.pixel_share:.2%}'
    metric = sum(np.isfinite(image.observation.ground) for image in record.images)
    figures['images with metres'] = str(metric)
    if metric:
        figures['visible ground, summed over images'] = f'{abundance.ground:.1f} m²'
        figures['rock abundance (share of the ground)'] = f'{abundance.abundance:.2%}'
        figures['k of the Golombek and Rapp model'] = f'{abundance.k:.4f}'
    return figures


def _by_image(shown: Mapping[str, ExampleImage]) -> dict[str, ExampleImage]:
    """Groups the reasons why an image is shown by image, in the order of time."""
    groups: dict[ExampleImage, list[str]] = {}
    for name, image in shown.items():
        groups.setdefault(image, []).append(name)
    ordered = sorted(groups, key=lambda image: image.time)
    return {', '.join(groups[image]): image for image in ordered}


def _plots(record: Record, abundance: Abundance | None) -> list[str]:
    if abundance is None:
        return []
    known = np.isfinite(abundance.ground) and any(abundance.covered)
    sizes = [plot_covered(abundance), plot_numbers(abundance)] if known else [plot_pixels(record)]
    return [plot_rocks(record.images), plot_abundance(record.images), *sizes]


def plot_rocks(images: Sequence[ImageStatistics]) -> str:
    """Plots the number of rocks per image over time."""
    groups = groups_of(images)
    figure, axes = new_axes('Rocks per image', 'time in the bag (s)', 'rocks', WIDE)
    means = [float(np.mean([image.rocks for image in group])) for group in groups]
    axes.plot(_times(groups), means, color=BLUE, **_marks(groups))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylim=(0, None))
    return svg(figure)


def plot_abundance(images: Sequence[ImageStatistics]) -> str:
    """Plots the share of rock over time: of the pixels, and of the ground if it is known."""
    groups = groups_of(images)
    results = [
        compute_abundance(combine([image.observation for image in group])) for group in groups
    ]
    figure, axes = new_axes('Rock abundance', 'time in the bag (s)', 'share (%)', WIDE)
    for name, colour, shares in (
        ('of the pixels', BLUE, [result.pixel_share for result in results]),
        ('of the ground', ORANGE, [result.abundance for result in results]),
    ):
        if np.isfinite(shares).any():
            percent = 100 * np.array(shares)
            axes.plot(_times(groups), percent, color=colour, label=name, **_marks(groups))
    axes.legend(frameon=False)
    axes.set(ylim=(0, None))
    return svg(figure)


def plot_covered(abundance: Abundance) -> str:
    """Plots the share of ground that rocks of at least a diameter cover, and the fitted model."""
    sizes, covered = np.array(abundance.sizes), np.array(abundance.covered)
    nonzero = covered > 0
    figure, axes = new_axes(
        'Cumulative fractional area', 'diameter D (m)', 'covered by rocks of at least D (%)'
    )
    sizes, covered = sizes[nonzero], covered[nonzero]
    axes.loglog(sizes, 100 * covered, 'o', color=BLUE, markersize=4, label='measured')
    if np.isfinite(abundance.k):
        fine = np.geomspace(sizes[0], sizes[-1], 100)
        label = f'Golombek & Rapp, k = {abundance.k:.3f}'
        axes.loglog(fine, 100 * cumulative_coverage(fine, abundance.k), color=ORANGE, label=label)
    _mark_smallest(axes, abundance)
    _plain_ticks(axes)
    axes.legend(frameon=False, loc='lower left')
    return svg(figure)


def plot_numbers(abundance: Abundance) -> str:
    """Plots the number of rocks of at least a diameter per square metre."""
    sizes, numbers = np.array(abundance.sizes), np.array(abundance.numbers)
    nonzero = numbers > 0
    figure, axes = new_axes(
        'Cumulative number', 'diameter D (m)', 'rocks of at least D per square metre'
    )
    axes.loglog(sizes[nonzero], numbers[nonzero], 'o-', color=BLUE, markersize=4, linewidth=1)
    _mark_smallest(axes, abundance)
    _plain_ticks(axes)
    return svg(figure)


def plot_pixels(record: Record) -> str:
    """Plots the number of rocks of at least a diameter in pixels per image."""
    sizes = np.array(sorted(record.pixel_diameters), float)
    counts = [record.pixel_diameters[size] for size in sorted(record.pixel_diameters)]
    larger = np.cumsum(counts[::-1])[::-1] / len(record.images)
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


def _mark_smallest(axes: Any, abundance: Abundance) -> None:
    """Shades the sizes that are found only near the camera."""
    low, high = axes.get_xlim()
    axes.axvspan(low, max(low, abundance.smallest), color=GREY, alpha=0.2, linewidth=0)
    axes.set_xlim(low, high)


def groups_of(images: Sequence[ImageStatistics]) -> list[Sequence[ImageStatistics]]:
    """Divides images into at most `MAX_POINTS` groups of successive ones."""
    size = -(-len(images) // MAX_POINTS)
    return [images[start : start + size] for start in range(0, len(images), size)]


def _times(groups: Sequence[Sequence[ImageStatistics]]) -> list[float]:
    return [float(np.mean([image.time for image in group])) for group in groups]


def _marks(groups: Sequence[Any]) -> dict[str, Any]:
    """Returns the line style; short bags get markers, because a short line may be invisible."""
    return {'linewidth': 1, 'marker': '.' if len(groups) < MAX_POINTS / 4 else ''}
