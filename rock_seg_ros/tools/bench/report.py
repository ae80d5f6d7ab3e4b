# SPDX-License-Identifier: Apache-2.0
"""The results of `rock_seg bench` as a JSON object, a table and a plot."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.bench.contenders import PRESETS, PRODUCT, RESNET, TORCHVISION, roofline_ms
from rock_seg_ros.tools.bench.measurements import OURS, PLAIN
from rock_seg_ros.tools.bench.timing import Case, Size

SHELL_SIZES = ((640, 480), (1920, 1080))  # their ratios are always in the JSON object
# Kind of a case → contender that it is compared with.
REFERENCES = {'network': TORCHVISION, 'image': TORCHVISION, 'node': PLAIN, 'shell': PLAIN}
# Column → format of its cells.
COLUMNS = {
    **{'case': '<26', 'size': '<9', 'device': '<6', 'precision': '<9'},
    **dict.fromkeys(('p50', 'p95', 'p99', 'fps', 'MB', 'runs', '×'), '>7'),
}
LEGEND = """\
p50, p95, p99: percentiles of the time per image, ms. fps: images per second, one after the other;
in overload, published masks per second. MB: resident memory of the process.
×: how many times as fast as torchvision or the plain node, by the median; below 1, slower.
network: the network alone. image: from an image in memory to its mask, without ROS.
node: from the publication of an image to the arrival of its mask, through DDS.
shell: as node, with a stub instead of the network and 20 rocks, until mask, overlay,
polygon_points and rocks have arrived.
overload: age of the masks when images arrive ten times as fast as they are processed."""
OURS_COLOUR, REFERENCE_COLOUR = '#0072b2', '#d55e00'


def machine() -> dict[str, Any]:
    """Returns a description of the machine and of the installed libraries."""
    import torch

    cpu = re.search(r'^model name\s*: (.*)', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    return {
        'cpu': cpu[1] if cpu else platform.machine(),
        'cores': len(os.sched_getaffinity(0)),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'system': platform.platform(),
        'python': platform.python_version(),
        **{package: version(package) for package in ('torch', 'torchvision', 'numpy')},
    }


def find_case(
    cases: Sequence[Case],
    kind: str,
    contender: str | None,
    size: Size,
    device: str = 'cpu',
    precision: str = '',
) -> Case | None:
    """Returns the first case with these properties; an empty precision matches any."""
    wanted = (kind, contender, size, device)
    for case in cases:
        found = (case.kind, case.contender, case.size, case.device)
        if found == wanted and precision in ('', case.precision):
            return case
    return None


def speed_up(case: Case | None, cases: Sequence[Case]) -> float | None:
    """Returns how many times as fast as its reference a case is, by the medians; None = unknown."""
    if case is None or case.contender == PRODUCT:
        return None
    contender = REFERENCES.get(case.kind)
    reference = find_case(cases, case.kind, contender, case.size, case.device)
    return reference.percentile(50) / case.percentile(50) if reference else None


def ratios_of(cases: Sequence[Case], size: Size, weights: str = '') -> dict[str, float | None]:
    """Computes the ratios of the JSON object; above 1 means that this package is faster.

    Args:
        cases: All measurements.
        size: Image size at which networks are compared.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.

    Returns:
        Name → ratio; None if it was not measured. 'gpu_vs_roofline' is the time of the network
        divided by the time that it would take at the rate of a large matrix product.
    """
    shell_sizes = dict.fromkeys([*SHELL_SIZES, *(c.size for c in cases if c.kind == 'shell')])
    gpu = find_case(cases, 'network', 'exact', size, 'cuda', 'fp16')
    product = find_case(cases, 'network', PRODUCT, size, 'cuda')
    roofline = product and roofline_ms(product.percentile(50), weights or RESNET, size)
    return {
        **{
            f'cpu_{name}_vs_torchvision': speed_up(find_case(cases, 'network', name, size), cases)
            for name in PRESETS
        },
        **{
            f'shell_vs_plain_{w}x{h}': speed_up(find_case(cases, 'shell', OURS, (w, h)), cases)
            for w, h in shell_sizes
        },
        'gpu_vs_torchvision_fp32': speed_up(gpu, cases),
        'gpu_vs_roofline': gpu.percentile(50) / roofline if gpu and roofline else None,
    }


def to_json(
    about: Mapping[str, Any], cases: Sequence[Case], ratios: Mapping[str, float | None]
) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    return {
        'machine': about,
        'cases': [case.to_json() for case in cases],
        'ratios': {name: ratio and round(ratio, 3) for name, ratio in ratios.items()},
    }


def table(cases: Sequence[Case]) -> str:
    """Formats the cases and the legend as text."""
    rows = [tuple(COLUMNS), *(_row(case, cases) for case in cases)]
    lines = [' '.join(map(format, row, COLUMNS.values())).rstrip() for row in rows]
    return '\n'.join([*lines, '', LEGEND])


def plot(cases: Sequence[Case], about: Mapping[str, Any], file: Path) -> None:
    """Plots the medians and the 95th percentiles.

    Args:
        cases: All measurements.
        about: The machine, see `machine`.
        file: `.png`, `.svg` or `.pdf`.
    """
    from matplotlib.figure import Figure

    groups: dict[str, list[Case]] = {}
    for case in cases:
        title = f'{case.kind}, {case.size[0]}×{case.size[1]}, {case.device}'
        groups.setdefault(title, []).append(case)
    heights = [len(group) + 1.2 for group in groups.values()]
    figure = Figure((8, 0.9 + 0.27 * sum(heights)), layout='constrained')
    all_axes = figure.subplots(len(groups), height_ratios=heights, squeeze=False).ravel()
    for axes, (title, group) in zip(all_axes, groups.items(), strict=True):
        _draw_bars(axes, group)
        axes.set_title(title, fontsize=9, loc='left')
    figure.suptitle(
        f'rock_seg bench: ms per image, median; line to p95\n{about["gpu"] or about["cpu"]},'
        f' {about["cores"]} cores',
        fontsize=10,
    )
    figure.savefig(file, dpi=120)


def _draw_bars(axes: Any, group: Sequence[Case]) -> None:
    medians = [case.percentile(50) for case in group]
    above = [case.percentile(95) - median for case, median in zip(group, medians, strict=True)]
    is_reference = [case.contender == REFERENCES.get(case.kind) for case in group]
    colours = [REFERENCE_COLOUR if found else OURS_COLOUR for found in is_reference]
    bars = axes.barh(
        [' '.join(filter(None, (case.contender, case.precision))) for case in group],
        medians,
        xerr=[[0.0] * len(group), above],
        color=colours,
    )
    axes.bar_label(bars, [_format_ms(median) for median in medians], padding=3, fontsize=8)
    axes.margins(x=0.15)
    axes.tick_params(labelsize=8)
    axes.invert_yaxis()
    axes.spines[['top', 'right']].set_visible(False)


def _row(case: Case, cases: Sequence[Case]) -> tuple[str, ...]:
    values, ratio = case.to_json(), speed_up(case, cases)
    return (
        values['name'],
        f'{case.size[0]}×{case.size[1]}',
        case.device,
        case.precision,
        *(_format_ms(values[f'p{which}_ms']) for which in (50, 95, 99)),
        f'{values["fps"]:.3g}',
        f'{values["rss_mb"]:.0f}',
        str(values['runs']),
        '' if ratio is None else f'{ratio:.2f}',
    )


def _format_ms(value: float) -> str:
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'
