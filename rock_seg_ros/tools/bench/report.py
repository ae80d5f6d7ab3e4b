# SPDX-License-Identifier: Apache-2.0
"""The figures of `rock_seg bench` for people: a table and a plot."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.bench.timing import Case

COLUMNS = ('what', 'size', 'device', 'precision', 'p50', 'p95', 'p99', 'fps', 'MB', 'runs', 'limit')
LEGEND = """\
ms an image; fps: sent one after the other, in overload what is published; MB: of its process
limit: FLOP at the rate of a large matrix product, fp32 on the CPU and fp16 on CUDA, or allowed age
network: alone; image: to a mask, in process; node: from publication to the mask, through DDS
shell: the same with a network of no cost, until mask, overlay, polygon_points and rocks came (20
rocks that do not touch) or all outputs (200); echo node: works out nothing
overload: age of the masks, images 10 times too fast
ratios above 1: rock_seg is faster (gpu_vs_roofline: measured / limit)"""
OURS, THEIRS, GREY = '#0072b2', '#d55e00', '#999999'
OTHERS = ('torchvision', 'eager', 'plain node', 'echo node')
LIBRARIES = ('torch', 'torchvision', 'openvino', 'onnxruntime', 'numpy', 'rclpy')


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
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
    """Lays the figures out: the cases, what they mean, the ratios."""
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
        *(f'{name:<{width}}  {_format_value(value)}' for name, value in ratios.items()),
    ]
    return '\n'.join(lines)


def plot(cases: Sequence[Case], about: Mapping[str, Any], file: Path) -> bool:
    """Draws one image of the medians, 95th percentiles and limits.

    Args:
        cases: What was measured.
        about: The machine, see `machine`.
        file: `.png`, `.svg` or `.pdf`.

    Returns:
        Whether matplotlib is there to draw it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print('rock_seg bench: matplotlib is not installed, so there is no plot', file=sys.stderr)
        return False
    groups: dict[str, list[Case]] = {}
    for case in cases:
        if case.who != 'matrix product':
            title = f'{case.kind}, {case.size[0]}×{case.size[1]}, {case.device}'
            groups.setdefault(title, []).append(case)
    heights = [len(group) + 1.2 for group in groups.values()]
    figure = Figure((8, 0.9 + 0.27 * sum(heights)), layout='constrained')
    fields = figure.subplots(len(groups), height_ratios=heights, squeeze=False).ravel()
    for axes, (title, group) in zip(fields, groups.items(), strict=True):
        _bars(axes, title, group)
    figure.suptitle(
        f'rock_seg bench: ms an image, median; line to p95\n{about["gpu"] or about["cpu"]},'
        f' {about["cores"]} cores',
        fontsize=10,
    )
    figure.savefig(file, dpi=120)
    return True


def _bars(axes: Any, title: str, group: Sequence[Case]) -> None:
    for place, case in enumerate(group):
        theirs = case.who in OTHERS
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
    return f'{case.who}, {case.precision}' if case.precision else case.who


def _row(case: Case) -> tuple[str, ...]:
    facts = case.to_json()
    return (
        case.name,
        f'{case.size[0]}×{case.size[1]}',
        case.device,
        case.precision,
        *(_ms(facts[f'p{which}_ms']) for which in (50, 95, 99)),
        f'{facts["fps"]:.3g}',
        f'{facts["rss_mb"]:.0f}',
        str(facts['runs']),
        '' if case.limit_ms is None else _ms(case.limit_ms),
    )


def _ms(value: float) -> str:
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _format_value(value: float | None) -> str:
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
