# SPDX-License-Identifier: Apache-2.0
"""`rock_seg bench`: measures speed on this machine and compares it with common alternatives."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rock_seg_ros.tools.bench.cases import (
    EAGER,
    OURS,
    PLAIN,
    TORCHVISION,
    Plan,
    measure_in_process,
    measure_nodes,
    measure_overload,
    measure_shell,
)
from rock_seg_ros.tools.bench.implementations import CONFIGURATIONS, Size
from rock_seg_ros.tools.bench.report import machine, plot, table
from rock_seg_ros.tools.bench.timing import Case, ratio
from rock_seg_ros.tools.demo.command import find_data, use_local_domain
from rock_seg_ros.tools.main import exit_on_interrupt

SIZES = ((640, 480), (1280, 720), (1920, 1080))
SHELL_SIZES = ((640, 480), (1920, 1080))
SECONDS = 170.0
# Variables of Fast DDS 2 and 3. Its default shared memory segment is too small for a raw image.
PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
MOST_ROUNDS = 200
OVERLOAD_IMAGES, QUICK_IMAGES = 500, 60
QUICK_SIZES, QUICK_SECONDS, QUICK_ROUNDS = ((64, 48),), 600.0, 2
DIGITS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg bench`."""
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument(
        '-o', '--output', type=Path, metavar='PLOT', help='also write a plot: PNG, SVG or PDF'
    )
    parser.add_argument(
        '--sizes', type=_size, nargs='+', metavar='WxH',
        help='image sizes; half of the time is spent on the first'
        f' (default: {" ".join(f"{w}x{h}" for w, h in SIZES)})',
    )  # fmt: skip
    parser.add_argument(
        '--presets', choices=CONFIGURATIONS, nargs='+', default=tuple(CONFIGURATIONS),
        help='presets to measure: exact, balanced and fast of the embedded ResNet-50, light and'
        f' light_fast of the light network (default: {" ".join(CONFIGURATIONS)})',
    )  # fmt: skip
    parser.add_argument(
        '--weights', type=Path, metavar='FILE',
        help='weights file to measure instead of the embedded ResNet-50 (default: none)',
    )  # fmt: skip
    parser.add_argument(
        '--seconds', type=_above_zero, metavar='S',
        help='time for measuring, without loading, s; cases that take longer are skipped'
        f' (default: {SECONDS:.0f})',
    )  # fmt: skip
    parser.add_argument(
        '--overload', type=_count, metavar='N',
        help='number of images published at 100 Hz, ten times the rate of the network'
        f' (default: {OVERLOAD_IMAGES})',
    )  # fmt: skip
    parser.add_argument(
        '--quick', action='store_true', help='use few small images, to check that everything runs'
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the benchmark and prints the results."""
    with exit_on_interrupt():
        import torch

    start = time.monotonic()
    signal.signal(signal.SIGTERM, _terminate)
    use_local_domain()
    data = find_data()
    for name in PROFILES:
        os.environ.setdefault(name, str(data.parent / 'config' / 'fastdds.xml'))
    quick = arguments.quick
    with tqdm(file=sys.stderr, bar_format='{desc} ({n} runs, {elapsed})') as bar:
        plan = Plan(
            sizes=tuple(arguments.sizes or (QUICK_SIZES if quick else SIZES)),
            presets=tuple(arguments.presets),
            devices=('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',),
            shell_sizes=SHELL_SIZES[: 1 if quick else None],
            seconds=arguments.seconds or (QUICK_SECONDS if quick else SECONDS),
            most=QUICK_ROUNDS if quick else MOST_ROUNDS,
            many=not quick,
            images=arguments.overload or (QUICK_IMAGES if quick else OVERLOAD_IMAGES),
            weights=str(arguments.weights.resolve()) if arguments.weights else '',
            image=min((data / 'samples' / 'images').glob('*.*')),
            bar=bar,
        )
        with redirect_stdout(sys.stderr):  # stdout gets only the results
            cases = measure_shell(plan) + measure_overload(plan)
            alone = [case for device in plan.devices for case in measure_in_process(plan, device)]
            cases = alone + measure_nodes(plan, alone) + cases
    about, ratios = machine(), ratios_of(cases, plan.sizes[0])
    if arguments.json:
        print(json.dumps(to_json(about, cases, ratios), ensure_ascii=False))
    else:
        print(table(cases, ratios))
        print(f'\n{about["gpu"] or about["cpu"]}: measured in {time.monotonic() - start:.0f} s')
    if arguments.output and plot(cases, about, arguments.output):
        print(f'{arguments.output}: plot written', file=sys.stderr)
    return 0


def ratios_of(cases: Sequence[Case], size: Size) -> dict[str, float | None]:
    """Computes the ratios of the medians; above 1 means that this package is faster.

    Args:
        cases: All measurements.
        size: Image size at which networks are compared.
    """

    def find(
        kind: str, name: str, at: Size = size, device: str = 'cpu', precision: str = ''
    ) -> Case | None:
        wanted = (kind, name, at, device)
        found = (
            case
            for case in cases
            if (case.kind, case.implementation, case.size, case.device) == wanted
            and precision in ('', case.precision)
        )
        return next(found, None)

    torchvision = find('network', TORCHVISION)
    gpu = find('network', 'exact', device='cuda', precision='fp16')
    return {
        **{
            f'cpu_{preset}_vs_torchvision': ratio(torchvision, find('network', preset))
            for preset in CONFIGURATIONS
        },
        'cpu_exact_vs_eager': ratio(find('network', EAGER), find('network', 'exact')),
        **{
            f'shell_vs_plain_{w}x{h}': ratio(
                find('shell', PLAIN, (w, h)), find('shell', OURS, (w, h))
            )
            for w, h in SHELL_SIZES
        },
        'gpu_vs_torchvision_fp32': ratio(find('network', TORCHVISION, device='cuda'), gpu),
        'gpu_vs_roofline': gpu.p50 / gpu.limit_ms if gpu and gpu.limit_ms else None,
    }


def to_json(
    about: dict[str, Any], cases: Sequence[Case], ratios: dict[str, float | None]
) -> dict[str, Any]:
    """Returns the object that `--json` prints."""
    return {
        'machine': about,
        'cases': [case.to_json() for case in cases],
        'ratios': {
            name: None if value is None else round(value, DIGITS) for name, value in ratios.items()
        },
    }


def _size(text: str) -> Size:
    width, cross, height = text.partition('x')
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'must be like 640x480, not {text}')
    return int(width), int(height)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, not {text}')
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return value


def _terminate(number: int, *_: object) -> None:
    raise SystemExit(128 + number)
