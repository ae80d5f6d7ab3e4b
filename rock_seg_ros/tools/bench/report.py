# SPDX-License-Identifier: Apache-2.0
"""The results of `rock_seg bench` as ratios, a table and a plot."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rock_seg_ros.tools.bench.contenders import PRESETS, RESNET, TORCHVISION
from rock_seg_ros.tools.bench.measurements import OURS, PLAIN
from rock_seg_ros.tools.bench.timing import Case, Size

PRODUCT_SIDE = 8192  # large enough to reach the peak rate of a GPU
SHELL_SIZES = ((640, 480), (1920, 1080))  # their ratios are always in the JSON object
# Kind of a case → contender that it is compared with.
REFERENCES = {'network': TORCHVISION, 'image': TORCHVISION, 'node': PLAIN, 'shell': PLAIN}
HEADER = (
    f'{"case":<26} {"size":<9} device precision {"p50":>8} {"p95":>8} {"p99":>8}'
    f' {"fps":>7} {"MB":>6} {"runs":>5} {"×":>6}'
)
ROW = (
    '{name:<26} {size:<9} {device:<6} {precision:<9} {p50_ms:8.2f} {p95_ms:8.2f} {p99_ms:8.2f}'
    ' {fps:7.2f} {rss_mb:6.0f} {runs:5} {ratio:>6}'
)
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


def find_case(cases: Sequence[Case], **wanted: Any) -> Case | None:
    """Returns the first case whose attributes have these values."""
    return next((c for c in cases if all(getattr(c, k) == v for k, v in wanted.items())), None)


def speed_up(case: Case, cases: Sequence[Case]) -> float | None:
    """Returns how many times as fast as its reference a case is, by the medians; None = unknown."""
    same = {name: getattr(case, name) for name in ('kind', 'size', 'device')}
    reference = find_case(cases, contender=REFERENCES.get(case.kind), **same)
    return reference.percentile(50) / case.percentile(50) if reference else None


def roofline_ms(weights: str, size: Size, device: str = 'cuda') -> float:
    """Returns the time of the network of `exact` at the peak rate of the device, ms.

    The peak rate is that of a product of two large fp16 matrices.

    Args:
        weights: Weights file or name of embedded weights.
        size: Width and height of the image, px.
        device: Device whose rate is measured.
    """
    import torch
    from torch.utils.benchmark import Timer
    from torch.utils.flop_counter import FlopCounterMode

    from rock_seg_ros.perception.inference.model import build
    from rock_seg_ros.perception.inference.presets import preset_stride
    from rock_seg_ros.perception.inference.weights_file import load_weights

    metadata = load_weights(weights).metadata
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = build(metadata, preset_stride('exact', metadata)).eval()
        model(torch.empty(1, 3, size[1], size[0]))
    matrix = torch.rand(PRODUCT_SIDE, PRODUCT_SIDE, device=device, dtype=torch.float16)
    product = Timer('matrix @ matrix', globals={'matrix': matrix}).blocked_autorange()
    return product.median * 1e3 * counter.get_total_flops() / (2 * PRODUCT_SIDE**3)


def ratios_of(cases: Sequence[Case], size: Size, weights: str = '') -> dict[str, float | None]:
    """Computes ratios of medians; above 1 means that this package is faster.

    Args:
        cases: All measurements.
        size: Image size at which networks are compared.
        weights: Weights file that replaces the embedded ResNet-50; empty = none.

    Returns:
        Name in the JSON object → ratio; None if it was not measured. 'gpu_vs_roofline' is the time
        of the network divided by its time at the peak rate of the GPU.
    """

    def ratio(case: Case | None) -> float | None:
        return speed_up(case, cases) if case else None

    network = partial(find_case, cases, kind='network', size=size)
    gpu = network(contender='exact', device='cuda', precision='fp16')
    shells = {**dict.fromkeys(SHELL_SIZES), **{c.size: c for c in cases if c.contender == OURS}}
    return {
        **{
            f'cpu_{name}_vs_torchvision': ratio(network(contender=name, device='cpu'))
            for name in PRESETS
        },
        **{f'shell_vs_plain_{w}x{h}': ratio(case) for (w, h), case in shells.items()},
        'gpu_vs_torchvision_fp32': ratio(gpu),
        'gpu_vs_roofline': gpu.percentile(50) / roofline_ms(weights or RESNET, size)
        if gpu
        else None,
    }


def table(cases: Sequence[Case]) -> str:
    """Formats the cases and the legend as text."""
    lines = [HEADER]
    for case in cases:
        ratio = speed_up(case, cases)
        values = {
            **case.to_json(),
            'size': f'{case.size[0]}×{case.size[1]}',
            'ratio': f'{ratio:.2f}' if ratio else '',
        }
        lines.append(ROW.format(**values).rstrip())
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
        axes.set_title(title, fontsize=9, loc='left')
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.tick_params(labelsize=8)
        for case in group:
            median = case.percentile(50)
            bar = axes.barh(
                f'{case.contender} {case.precision}',
                median,
                xerr=[[0.0], [case.percentile(95) - median]],
                color=REFERENCE_COLOUR if case.contender in (TORCHVISION, PLAIN) else OURS_COLOUR,
            )
            axes.bar_label(bar, [f'{median:.2f}'], padding=3, fontsize=8)
    processor = f'{about["gpu"] or about["cpu"]}, {about["cores"]} cores'
    figure.suptitle(f'ms per image, median; line to p95\n{processor}', fontsize=10)
    figure.savefig(file, dpi=120)
