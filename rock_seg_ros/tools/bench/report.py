# SPDX-License-Identifier: Apache-2.0
"""Formats the results of `rock_seg bench` as a table and a plot."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.bench.timing import Case

COLUMNS = ('case', 'size', 'device', 'precision', 'p50', 'p95', 'p99', 'fps', 'MB', 'runs', 'limit')
LEGEND = """\
p50, p95, p99: percentiles of the time per image, ms. fps: images per second, one after the other;
in overload, published masks per second. MB: resident memory of the process.
limit: lower bound in ms, the FLOP of the network at the rate of a large matrix product (fp32 on a
CPU, fp16 on CUDA); in overload, the allowed age.
network: the network alone. image: from an image in memory to its mask, without ROS.
node: from the publication of an image to the arrival of its mask, through DDS.
shell: as node, with a stub instead of the network, until mask, overlay, polygon_points and rocks
arrived (20 rocks that do not touch), or all outputs (200 rocks). echo node: computes nothing.
overload: age of the masks when images arrive 10 times as fast as they are processed.
ratios: above 1, rock_seg is faster. gpu_vs_roofline: measured time / limit."""
OURS, THEIRS, GREY = '#0072b2', '#d55e00', '#999999'
OTHERS = ('torchvision', 'eager', 'plain node', 'echo node')
LIBRARIES = ('torch', 'torchvision', 'openvino', 'onnxruntime', 'numpy', 'rclpy')


def machine() -> dict[str, Any]:
    """Returns a description of the machine and of the installed libraries."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        'cpu': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
        'gpu': gpu,
        'system': platform.platform(),
        'python': platform.python_version(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def table(cases: Sequence[Case], ratios: Mapping[str, float | None]) -> str:
    """Formats the cases, the legend and the ratios as text."""
    rows = [COLUMNS, *(_row(case) for case in cases)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = [
        '  '.join(
            cell.ljust(width) if place < 4 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    width = max(map(len, ratios), default=0)
    lines += [
        '',
        LEGEND,
        '',
        *(f'{name:<{width}}  {_format_ratio(value)}' for name, value in ratios.items()),
    ]
    return '\n'.join(lines)


def plot(cases: Sequence[Case], about: Mapping[str, Any], file: Path) -> bool:
    """Plots the medians, 95th percentiles and limits.

    Args:
        cases: All measurements.
        about: The machine, see `machine`.
        file: `.png`, `.svg` or `.pdf`.

    Returns:
        Whether the plot was written; False if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('rock_seg bench: no plot, because matplotlib is not installed', file=sys.stderr)
        return False
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if case.implementation != 'matrix product':
            title = f'{case.kind}, {case.size[0]}×{case.size[1]}, {case.device}'
            groups.setdefault(title, []).append(case)
    heights = [len(group) + 1.2 for group in groups.values()]
    figure = Figure((8, 0.9 + 0.27 * sum(heights)), layout='constrained')
    fields = figure.subplots(len(groups), height_ratios=heights, squeeze=False).ravel()
    for axes, (title, group) in zip(fields, groups.items(), strict=True):
        _bars(axes, title, group)
    figure.suptitle(
        f'rock_seg bench: ms per image, median; line to p95\n{about["gpu"] or about["cpu"]},'
        f' {about["cores"]} cores',
        fontsize=10,
    )
    figure.savefig(file, dpi=120)
    return True


def _bars(axes: Any, title: str, group: Sequence[Case]) -> None:
    for place, case in enumerate(group):
        theirs = case.implementation in OTHERS
        axes.barh(place, case.p50, color=THEIRS if theirs else OURS, height=0.7)
        axes.plot([case.p50, case.percentile(95)], [place, place], color='black', linewidth=1)
        axes.annotate(f' {_ms(case.p50)}', (case.percentile(95), place), va='center', fontsize=8)
        if case.limit_ms is not None:
            axes.plot([case.limit_ms] * 2, [place - 0.4, place + 0.4], color=GREY, linewidth=2)
    axes.set_yticks(range(len(group)), [_label(case) for case in group], fontsize=8)
    axes.set_title(title + (', grey: limit' if any(c.limit_ms for c in group) else ''), fontsize=9)
    axes.title.set_ha('left')
    axes.title.set_x(0)
    axes.set_xlim(0, 1.15 * max(case.percentile(95) for case in group))
    axes.tick_params(axis='x', labelsize=8)
    axes.invert_yaxis()
    axes.spines[['top', 'right']].set_visible(False)


def _label(case: Case) -> str:
    return f'{case.implementation}, {case.precision}' if case.precision else case.implementation


def _row(case: Case) -> tuple[str, ...]:
    values = case.to_json()
    return (
        case.name,
        f'{case.size[0]}×{case.size[1]}',
        case.device,
        case.precision,
        *(_ms(values[f'p{which}_ms']) for which in (50, 95, 99)),
        f'{values["fps"]:.3g}',
        f'{values["rss_mb"]:.0f}',
        str(values['runs']),
        '' if case.limit_ms is None else _ms(case.limit_ms),
    )


def _ms(value: float) -> str:
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _format_ratio(value: float | None) -> str:
    return 'not measured' if value is None else f'{value:.2f}'


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.machine())


def _version(name: str) -> str | None:
    try:
        return version('ros-jazzy-rclpy' if name == 'rclpy' else name)
    except PackageNotFoundError:
        return None
