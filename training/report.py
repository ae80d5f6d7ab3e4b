# SPDX-License-Identifier: Apache-2.0
"""Writes an evaluation as one self-contained HTML file: metrics, plots and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.figures import jpeg, render
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.writing import atomic_write
from training.datasets import IGNORE, Labelled, fingerprint
from training.evaluation import ImageResult, NetworkResult, Result
from training.matching import SIZES
from training.plots import (
    Curves,
    plot_curves,
    plot_ious,
    plot_reliability,
    plot_thresholds,
)
from training.tables import Table

TEMPLATE = Path(__file__).with_name('report.html.jinja')
WORST = 12
# Colours of Okabe and Ito, which colour-blind people can distinguish.
TRUE_POSITIVE, FALSE_NEGATIVE, FALSE_POSITIVE = (0, 158, 115), (213, 94, 0), (86, 180, 233)
LEGEND = {
    'true positive': TRUE_POSITIVE,
    'false negative': FALSE_NEGATIVE,
    'false positive': FALSE_POSITIVE,
}
TINT = 0.6
FIGURES = {
    'iou': 'IoU of rock pixels, pooled',
    'mean_iou': 'IoU of rock pixels, mean over images',
    'precision': 'precision of rock pixels',
    'recall': 'recall of rock pixels',
    'boundary_iou': 'boundary IoU (2 % of the diagonal)',
    'false_rock': 'false positive rate of pixels',
    'false_rock_on_empty': 'the same in images without rock',
    'ece': 'calibration error (ECE, 15 bins)',
}
ROCK_FIGURES = {'precision': 'precision', 'recall': 'recall', 'mean_iou': 'mean IoU of matches'}


def write_report(
    output: Path,
    networks: Sequence[NetworkResult],
    command: str,
    curves: Curves | None = None,
    worst: int = WORST,
    tables: Sequence[Table] = (),
) -> None:
    """Writes a report atomically.

    Args:
        output: The HTML file.
        networks: At least one network; all were evaluated on the same sets, the main one first.
        command: The command that makes the report.
        curves: Curves of the training, from `read_curves`.
        worst: Number of images shown per result, lowest score first. With 0 the file contains no
            pixel of the data, for data that must not be redistributed.
        tables: Tables below the overview.

    Raises:
        DataError: An image can no longer be read.
        OSError: The file cannot be written.
    """
    page = render(
        TEMPLATE,
        results=[
            _section(result, network, worst, len(networks) > 1)
            for network in networks
            for result in network.results
        ],
        overview=[
            _row(network.result(result.name), network)
            for result in networks[0].results
            for network in networks
        ],
        several=len(networks) > 1,
        tables=tables,
        figures=FIGURES,
        rock_figures=ROCK_FIGURES,
        networks={network.name: asdict(network.metadata) for network in networks},
        curves=plot_curves(curves) if curves else '',
        legend={name: '#{:02x}{:02x}{:02x}'.format(*colour) for name, colour in LEGEND.items()},
        command=command,
        approximate=any(len(network.metadata.classes) > 2 for network in networks),
    )
    atomic_write(output, lambda temporary: temporary.write_text(page, 'utf-8', 'replace'))


def _row(result: Result, network: NetworkResult) -> dict[str, Any]:
    """Returns the row of a result in the overview."""
    metrics = result.figures
    speed = network.milliseconds
    return {
        'name': result.name,
        'network': network.name,
        'images': metrics['images'],
        'figures': _cells(metrics, metrics['intervals'], FIGURES),
        'rocks': _cells(metrics['rocks'], metrics['intervals']['rocks'], ROCK_FIGURES),
        'milliseconds': '–' if speed is None else f'{speed:.1f}',
    }


def _section(result: Result, network: NetworkResult, worst: int, several: bool) -> dict[str, Any]:
    """Returns the section of a result; with several networks its title names the network."""
    metrics = result.figures
    rocks, intervals = metrics['rocks'], metrics['intervals']
    levels = result.counts.levels.sum(axis=0)
    ious = [image_result.iou for image_result in result.images if image_result.iou is not None]
    samples = {image_result.sample.name: image_result.sample for image_result in result.images}
    return {
        'name': f'{result.name}: {network.name}' if several else result.name,
        'images': metrics['images'],
        'fingerprint': fingerprint(list(samples.values())),
        'figures': _cells(metrics, intervals, FIGURES),
        'sizes': {
            'all': rocks | _cells(rocks, intervals['rocks'], ROCK_FIGURES),
            **{
                size: rocks[size] | _cells(rocks[size], intervals['rocks'][size], ROCK_FIGURES)
                for size in SIZES
            },
        },
        'plots': []
        if result.only_recall
        else [
            plot_ious(ious),
            plot_thresholds(levels, (metrics['precision'], metrics['recall'])),
            plot_reliability(levels),
        ],
        'worst': [
            _errors(image_result, network.metadata)
            for image_result in worst_of(result.images, worst if result.shown else 0)
        ],
    }


def _cells(
    figures: Mapping[str, Any], intervals: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Returns value and interval of each metric as text; '–' and '' for undefined ones."""
    cells = {}
    for name in names:
        value, bounds = figures[name], intervals[name]
        cells[name] = (
            '–' if value is None else f'{value:.3f}',
            f'{bounds[0]:.3f} to {bounds[1]:.3f}' if bounds else '',
        )
    return cells


def worst_of(images: Sequence[ImageResult], count: int) -> list[ImageResult]:
    """Returns the images with the lowest scores, the worst first; ties are ranked by errors.

    Images without true and without predicted rock have no score and are not returned.
    """

    def error_rank(image_result: ImageResult) -> tuple[float, float]:
        (_, false_positives), (false_negatives, _) = image_result.counts.pixels
        return image_result.score or 0.0, -false_positives - false_negatives

    scored = [image_result for image_result in images if image_result.score is not None]
    return sorted(scored, key=error_rank)[:count]


def _errors(image_result: ImageResult, metadata: ModelMetadata) -> dict[str, Any]:
    label = image_result.read()
    (_, false_positives), (false_negatives, true_positives) = image_result.counts.pixels
    return {
        'name': image_result.name,
        'iou': f'{image_result.iou:.3f}',
        'true_positives': int(true_positives),
        'false_negatives': int(false_negatives),
        'false_positives': int(false_positives),
        'image': jpeg(label.image),
        'errors': jpeg(draw_errors(label, image_result.mask, metadata.rock_ids)),
    }


def draw_errors(
    label: Labelled, found: NDArray[np.bool_], rock_ids: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Tints true positives, false negatives and false positives in a grey copy of an image.

    Ignored pixels are dark.

    Args:
        label: The image and its classes.
        found: H×W, the predicted rock pixels.
        rock_ids: The class ids that are rock.

    Returns:
        H×W×3 uint8 RGB.
    """
    grey = cv2.cvtColor(label.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    canvas = np.repeat(grey[..., None], 3, axis=2)
    valid = label.classes != IGNORE
    rock = np.isin(label.classes, rock_ids)
    canvas[~valid] *= 0.4
    for pixels, colour in (
        (rock & found, TRUE_POSITIVE),
        (rock & ~found, FALSE_NEGATIVE),
        (~rock & found & valid, FALSE_POSITIVE),
    ):
        canvas[pixels] = (1 - TINT) * canvas[pixels] + TINT * np.asarray(colour, np.float32)
    return np.rint(canvas).astype(np.uint8)
