# SPDX-License-Identifier: Apache-2.0
"""A self-contained HTML report: size distribution, rock cover, small images and settings.

Of a recording, it also has plots over time, and the rock abundance where the ground is known.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import visible
from rock_seg_ros.perception.figures import jpeg, render
from rock_seg_ros.perception.geometry.abundance import (
    MAX_DISTANCE,
    Abundance,
    Observation,
    combine,
    compute_abundance,
)
from rock_seg_ros.perception.instances.size_distribution import characteristic_sizes
from rock_seg_ros.perception.writing import atomic_write
from rock_seg_ros.tools.results.ground import observation_of
from rock_seg_ros.tools.results.plots import (
    COLOURS,
    Sizes,
    plot_classes,
    plot_covered,
    plot_numbers,
    plot_over_time,
    plot_passing,
)
from rock_seg_ros.tools.results.results import Record, Results

TEMPLATE = Path(__file__).with_name('report.html.jinja')
MAX_IMAGES = 48  # number of images in the report
THUMBNAIL_WIDTH = 320  # px
MIN_TRACK_LENGTH = 3  # images; a shorter track may be noise


@dataclass
class Summary:
    """The content of the report.

    Attributes:
        captions: A line per image.
        counts: Number of rocks per image.
        pixels: Number of pixels of all images.
        rock_pixels: Of these, number on rocks.
        shares: Share of rock of each image, 0 to 1.
        px: Diameter of each rock, px.
        mm: The same in mm; None where it is unknown.
        made_by: Versions, weights and settings, each different one once.
        starts: Name of a video or bag → time of its first image, s.
        times: Time of each image of a video or bag since its first one, s.
        tracks: Video or bag and track id of a rock → number of images with it.
        ground: What each image shows of the ground; None where it is unknown.
    """

    captions: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    pixels: int = 0
    rock_pixels: int = 0
    px: list[float] = field(default_factory=list)
    mm: list[float | None] = field(default_factory=list)
    made_by: list[dict[str, Any]] = field(default_factory=list)
    starts: dict[str, float] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    tracks: Counter[tuple[str, int]] = field(default_factory=Counter)
    ground: list[Observation | None] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Adds the record of the next image."""
        rocks = record['rocks']
        pixels, area = record['width'] * record['height'], sum(rock['area'] for rock in rocks)
        self.counts.append(len(rocks))
        self.pixels += pixels
        self.rock_pixels += area
        self.px += [rock['diameter'] for rock in rocks]
        self.mm += [rock['diameter_mm'] for rock in rocks]
        if record['made_by'] not in self.made_by:
            self.made_by.append(record['made_by'])
        number = '1 rock' if len(rocks) == 1 else f'{len(rocks)} rocks'
        self.captions.append(
            f'{visible(record["image"])}{self._add_time(record)}: {number},'
            f' {area / pixels:.1%} of the image'
        )
        self.shares.append(area / pixels)
        self.ground.append(observation_of(record))

    def _add_time(self, record: Record) -> str:
        """Adds time and tracks of an image of a video or bag; returns its time for the caption."""
        if 'time' not in record:
            return ''
        name = record['image']
        self.times.append(record['time'] - self.starts.setdefault(name, record['time']))
        if record['made_by']['settings'].get('track'):
            self.tracks.update((name, rock['id']) for rock in record['rocks'])
        return f', {self.times[-1]:.2f} s'

    @property
    def abundance(self) -> Abundance | None:
        """The rock abundance of all images whose ground is known; None if there are none."""
        known = [seen for seen in self.ground if seen is not None]
        return compute_abundance(combine(known)) if known else None

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
    sizes, abundance = summary.sizes, summary.abundance
    page = render(
        TEMPLATE,
        name=visible(results.name),
        figures=figures_of(summary, abundance),
        unit=sizes.unit,
        left_out=sizes.left_out,
        characteristic=characteristic_table(sizes),
        plots=[plot_passing(sizes), plot_classes(sizes)] if sizes.values else [],
        covered=covered_plots(abundance),
        reach=f'{MAX_DISTANCE:g} m',
        over_time=plots_over_time(summary),
        shown=list(_shown(results, summary)),
        total=len(summary.counts),
        tables={title: list(map(_visible, rows)) for title, rows in results.tables.items()},
        made_by=[_flat(made_by) for made_by in summary.made_by],
    )
    atomic_write(path, lambda temporary: temporary.write_text(page, 'utf-8', 'replace'))


def summarize(results: Results) -> Summary:
    """Returns the figures that the report needs, from one pass over the records."""
    summary = Summary()
    for record in results.records:
        summary.add(record)
    return summary


def figures_of(summary: Summary, abundance: Abundance | None) -> dict[str, str]:
    """Returns the table of figures: name → value as text."""
    counts = summary.counts
    figures = {'images': str(len(counts)), 'rocks': str(sum(counts))}
    if counts:
        figures['rocks per image, mean'] = f'{np.mean(counts):.1f}'
        figures['rocks per image, range'] = f'{min(counts)} to {max(counts)}'
        figures['images without rocks'] = str(counts.count(0))
        figures['rock cover (share of the pixels)'] = f'{summary.rock_pixels / summary.pixels:.1%}'
    if summary.tracks:
        long = sum(images >= MIN_TRACK_LENGTH for images in summary.tracks.values())
        figures['track ids'] = str(len(summary.tracks))
        figures[f'track ids in {MIN_TRACK_LENGTH} images or more'] = str(long)
    if abundance:
        figures['images with known ground'] = str(abundance.images)
        figures['visible ground, summed over images'] = f'{abundance.ground:.1f} m²'
        figures['rock abundance (share of the ground)'] = f'{abundance.abundance:.1%}'
        if math.isfinite(abundance.k):
            figures['k of the Golombek and Rapp model'] = f'{abundance.k:.4f}'
    return figures


def covered_plots(abundance: Abundance | None) -> list[str]:
    """Returns the plots of the rock abundance; empty without known ground or rocks on it."""
    known = abundance is not None and any(value > 0 for value in abundance.covered)
    return [plot_covered(abundance), plot_numbers(abundance)] if abundance and known else []


def plots_over_time(summary: Summary) -> list[str]:
    """Returns the plots over time of a single video or bag; empty without one."""
    if len(summary.starts) != 1 or len(summary.times) != len(summary.counts):
        return []
    shares = {'of the pixels': [100 * share for share in summary.shares]}
    if any(summary.ground):
        shares['of the ground'] = [
            100 * compute_abundance(seen).abundance if seen else math.nan for seen in summary.ground
        ]
    return [
        plot_over_time('Rocks per image', 'rocks', summary.times, {'rocks': summary.counts}),
        plot_over_time('Rock cover', 'share of rock (%)', summary.times, shares),
    ]


def characteristic_table(sizes: Sizes) -> dict[str, list[str]]:
    """Returns D10, D50 and D90 for each weighting; empty without rocks."""
    if not sizes.values:
        return {}
    return {
        weighting: [f'{size:.4g}' for size in characteristic_sizes(sizes.values, weighting)]
        for weighting in COLOURS
    }


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


def _visible(row: Mapping[str, str]) -> dict[str, str]:
    return {name: visible(value) for name, value in row.items()}
