# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import cv2
import pytest

from rock_seg_ros.tools.bench import report
from rock_seg_ros.tools.bench.report import machine, plot, ratios_of, roofline_ms, table
from rock_seg_ros.tools.bench.timing import Case, Run

SIZE = (640, 480)


def case(kind, name, seconds, size=SIZE, device='cpu', precision='fp32'):
    return Case(kind, name, size, device, precision, [Run(seconds, 900.0)])


CASES = [
    case('network', 'torchvision', 3.0),
    case('network', 'exact', 2.0),
    case('network', 'exact', 0.1, size=(64, 48)),
    case('network', 'torchvision', 0.08, device='cuda'),
    case('network', 'exact', 0.04, device='cuda'),
    case('network', 'exact', 0.01, device='cuda', precision='fp16'),
    case('shell', 'rock_seg', 0.00512, precision=''),
    case('shell', 'plain node', 0.02048, precision=''),
    case('shell', 'rock_seg', 0.001, size=(64, 48), precision=''),
    case('shell', 'plain node', 0.002, size=(64, 48), precision=''),
]


def test_ratios_compare_medians_and_are_none_without_measurements(monkeypatch):
    monkeypatch.setattr(report, 'roofline_ms', lambda weights, size: 4.0)
    ratios = ratios_of(CASES, SIZE)
    assert ratios['cpu_exact_vs_torchvision'] == 1.5
    assert ratios['cpu_fast_vs_torchvision'] is None
    assert ratios['shell_vs_plain_640x480'] == pytest.approx(4)
    assert ratios['shell_vs_plain_64x48'] == pytest.approx(2)
    assert ratios['shell_vs_plain_1920x1080'] is None
    assert ratios['gpu_vs_torchvision_fp32'] == 8.0
    assert ratios['gpu_vs_roofline'] == 2.5
    assert ratios_of(CASES[:1], SIZE)['gpu_vs_roofline'] is None


def test_the_roofline_is_the_flop_of_the_network_at_the_rate_of_a_matrix_product(monkeypatch):
    monkeypatch.setattr(report, 'PRODUCT_SIDE', 1000)  # 2 GFLOP
    measured = SimpleNamespace(blocked_autorange=lambda: SimpleNamespace(median=0.003))
    monkeypatch.setattr('torch.utils.benchmark.Timer', lambda *_, **__: measured)
    assert 3 * 1e9 < roofline_ms('light', (640, 480), 'cpu') * 2e9 < 3 * 20e9


def test_the_table_has_a_row_per_case_with_its_ratio():
    lines = table(CASES).splitlines()
    assert lines[1].split() == [
        *('network:', 'torchvision', '640×480', 'cpu', 'fp32'),
        *('3000.00', '3000.00', '3000.00', '0.33', '900', '1', '1.00'),
    ]
    assert lines[2].split()[-1] == '1.50'
    assert lines[3].split()[-1] == '1'  # torchvision was not measured at this size
    assert lines[7].split() == [
        *('shell:', 'rock_seg', '640×480', 'cpu'),
        *('5.12', '5.12', '5.12', '195.31', '900', '1', '4.00'),
    ]


def test_the_machine_has_its_hardware_and_library_versions():
    about = machine()
    assert about['cores'] >= 1
    assert about['cpu']
    assert about['torch'].startswith('2.')


def test_the_plot_is_an_image_that_is_not_empty(tmp_path):
    pytest.importorskip('matplotlib')
    plot(CASES, machine(), tmp_path / 'plot.png')
    drawn = cv2.imread(str(tmp_path / 'plot.png'))
    assert drawn.shape[1] >= 640
    assert drawn.std() > 10
