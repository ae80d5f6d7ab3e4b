# SPDX-License-Identifier: Apache-2.0
"""The plots of the report, each as a data URI of an SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rock_seg_ros.perception.figures import BLUE, GREY, ORANGE, SIZE, STYLE, new_axes, svg
from training.metrics import calibration_bins

CURVE_COLUMNS = 3

Curves = dict[str, tuple[list[float], list[float]]]


def plot_reliability(levels: NDArray[np.float64]) -> str:
    """Plots the share of true rock pixels, and of all pixels, over the predicted probability.

    Args:
        levels: 2×256 as in `Counts`.
    """
    pixels, probability, rock = calibration_bins(levels)
    filled = pixels > 0
    width = 1 / len(pixels)
    figure, axes = new_axes('Reliability', 'probability of rock', 'share that is rock')
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle='--', label='ideal')
    axes.plot(
        probability[filled] / pixels[filled],
        rock[filled] / pixels[filled],
        color=BLUE,
        marker='o',
        markersize=4,
        label='measured',
    )
    centres = (np.arange(len(pixels)) + 0.5) * width
    share = pixels / max(1.0, pixels.sum())
    axes.bar(centres, share, width * 0.9, color=ORANGE, alpha=0.4, label='share of the pixels')
    axes.legend(frameon=False, loc='upper left')
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    return svg(figure)


def plot_thresholds(levels: NDArray[np.float64], at: tuple[float | None, float | None]) -> str:
    """Plots precision over recall of rock pixels for all thresholds.

    Args:
        levels: 2×256 as in `Counts`.
        at: Measured precision and recall, which are marked.
    """
    false_positives, true_positives = np.cumsum(levels[:, ::-1], axis=1)
    predicted = true_positives + false_positives
    known = predicted > 0
    figure, axes = new_axes('Precision and recall over threshold', 'recall', 'precision')
    if true_positives[-1]:
        axes.plot(
            true_positives[known] / true_positives[-1],
            true_positives[known] / predicted[known],
            color=BLUE,
        )
    precision, recall = at
    if precision is not None and recall is not None:
        axes.plot(recall, precision, color=ORANGE, marker='o', linestyle='', label='as measured')
        axes.legend(frameon=False, loc='lower left')
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    return svg(figure)


def plot_ious(ious: Sequence[float]) -> str:
    """Plots a histogram of the IoU of the images."""
    figure, axes = new_axes('IoU per image', 'IoU of rock pixels', 'images')
    axes.hist(ious, bins=np.linspace(0, 1, 21).tolist(), color=BLUE, edgecolor='white')
    if len(ious):
        axes.axvline(float(np.mean(ious)), color=ORANGE, label=f'mean {np.mean(ious):.3f}')
        axes.legend(frameon=False, loc='upper left')
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlim=(0, 1), ylim=(0, None))
    return svg(figure)


def plot_curves(curves: Curves) -> str:
    """Plots the curves of a training run over its steps, with one plot per name."""
    rows = -(-len(curves) // CURVE_COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure((CURVE_COLUMNS * SIZE[0], rows * 2.2), layout='constrained')
        all_axes = figure.subplots(rows, CURVE_COLUMNS, squeeze=False).ravel()
    for axes in all_axes[len(curves) :]:
        axes.remove()
    for axes, (name, (steps, values)) in zip(all_axes, curves.items(), strict=False):
        axes.plot(steps, values, color=BLUE, linewidth=1)
        axes.set(title=name, xlabel='step')
    return svg(figure)
