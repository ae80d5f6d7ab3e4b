# SPDX-License-Identifier: Apache-2.0
"""`rock_seg bench`: measures speed on this machine and compares it with common alternatives."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.tools.bench.contenders import PRESETS, choose_contenders
from rock_seg_ros.tools.bench.measurements import Bench
from rock_seg_ros.tools.bench.report import machine, plot, ratios_of, table
from rock_seg_ros.tools.bench.timing import Case, parse_size
from rock_seg_ros.tools.demo.command import find_data
from rock_seg_ros.tools.doctor.dds import PROFILES
from rock_seg_ros.tools.jobs import positive
from rock_seg_ros.tools.local_domain import use_local_domain
from rock_seg_ros.tools.main import exit_on_interrupt, exit_on_termination

SIZES = ((640, 480), (1280, 720), (1920, 1080))
SECONDS = 170
OVERLOAD_IMAGES = 500
QUICK = ((64, 48),), 0, 60  # sizes, seconds and images of the overload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg bench`."""
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument(
        '-o', '--output', type=Path, metavar='PLOT', help='also write a plot: PNG, SVG or PDF'
    )
    parser.add_argument(
        '--sizes', type=parse_size, nargs='+', metavar='WxH',
        help='image sizes; on a CPU, torchvision and exact are measured only at the first, because'
        f' they are slow (default: {" ".join(f"{w}x{h}" for w, h in SIZES)})',
    )  # fmt: skip
    parser.add_argument(
        '--presets', choices=PRESETS, nargs='+', default=tuple(PRESETS),
        help='presets to measure: exact, balanced and fast of the embedded ResNet-50, light and'
        f' light_fast of the light network (default: {" ".join(PRESETS)})',
    )  # fmt: skip
    parser.add_argument(
        '--weights', type=Path, metavar='FILE',
        help='weights file to measure instead of the embedded ResNet-50 (default: none)',
    )  # fmt: skip
    parser.add_argument(
        '--seconds', type=positive, metavar='S',
        help='time for measuring, without loading, s; with a GPU, networks take as long again'
        f' (default: {SECONDS})',
    )  # fmt: skip
    parser.add_argument(
        '--overload', type=positive, metavar='N',
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

        if arguments.output:
            import matplotlib  # noqa: F401  # a missing one is reported before the measurements

    start = time.monotonic()
    exit_on_termination()
    use_local_domain()
    data = find_data()
    for name in PROFILES:  # the default shared memory segment is too small for a raw image
        os.environ.setdefault(name, str(data.parent / 'config' / 'fastdds.xml'))
    sizes, seconds, overload = QUICK if arguments.quick else (SIZES, SECONDS, OVERLOAD_IMAGES)
    sizes = arguments.sizes or sizes
    weights = str(arguments.weights.resolve()) if arguments.weights else ''
    image = read_rgb(min((data / 'samples' / 'images').glob('*.*')))
    images = {size: np.asarray(cv2.resize(image, size), np.uint8) for size in sizes}
    cases: list[Case] = []
    bar = tqdm(file=sys.stderr, bar_format='{desc} ({n} runs, {elapsed})')
    with bar, redirect_stdout(sys.stderr):  # stdout gets only the results
        bench = Bench(images, arguments.seconds or seconds, bar)
        for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
            contenders = choose_contenders(arguments.presets, weights, device)
            measured, loaded = bench.measure_networks(contenders)
            cases += measured
        cases += bench.measure_nodes(loaded)
        cases += bench.measure_shell()
        cases.append(bench.measure_overload(arguments.overload or overload))
    about, ratios = machine(), ratios_of(cases, sizes[0], weights)
    if arguments.json:
        rounded = {name: ratio and round(ratio, 3) for name, ratio in ratios.items()}
        results = [case.to_json() for case in cases]
        print(json.dumps({'machine': about, 'cases': results, 'ratios': rounded}))
    else:
        print(table(cases))
        if ratios['gpu_vs_roofline']:
            print(f'gpu_vs_roofline: {ratios["gpu_vs_roofline"]:.2f}')
        print(f'\n{about["gpu"] or about["cpu"]}: measured in {time.monotonic() - start:.0f} s')
    if arguments.output:
        plot(cases, about, arguments.output)
        print(f'{arguments.output}: plot written', file=sys.stderr)
    return 0
