# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import cv2
import pytest

from rock_seg_ros.tools.bench.report import machine, plot, table
from rock_seg_ros.tools.bench.timing import Case, Run

CASES = [
    Case('network', 'torchvision', (640, 480), 'cpu', 'fp32', [Run(3.0, 900.0)], 1200.0),
    Case('network', 'fast', (640, 480), 'cpu', 'int8', [Run(0.4, 700.0), Run(0.5, 701.0)], 900.0),
    Case('shell', 'rock_seg', (640, 480), 'cpu', '', [Run(0.00512, 300.0)]),
]


def test_the_table_has_a_row_per_case_and_a_line_per_ratio():
    lines = table(CASES, {'cpu_fast_vs_torchvision': 6.666, 'gpu_vs_roofline': None}).splitlines()
    assert lines[1].split() == [
        *('network:', 'torchvision', '640×480', 'cpu', 'fp32'),
        *('3000', '3000', '3000', '0.333', '900', '1', '1200'),
    ]
    assert lines[2].split()[5:8] == ['450', '495', '499']
    assert lines[3].split() == [
        *('shell:', 'rock_seg', '640×480', 'cpu'),
        *('5.12', '5.12', '5.12', '195', '300', '1'),
    ]
    assert lines[-2:] == ['cpu_fast_vs_torchvision  6.67', 'gpu_vs_roofline          not measured']


def test_the_machine_has_its_hardware_and_library_versions():
    about = machine()
    assert about['cores'] >= 1
    assert about['memory_gb'] > 0.5
    assert about['cpu']
    assert about['torch'].startswith('2.')


def test_the_plot_is_an_image_that_is_not_empty(tmp_path):
    pytest.importorskip('matplotlib')
    assert plot(CASES, machine(), tmp_path / 'plot.png')
    drawn = cv2.imread(str(tmp_path / 'plot.png'))
    assert drawn.shape[1] >= 640
    assert drawn.std() > 10


def test_a_missing_matplotlib_is_reported_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    assert not plot(CASES, machine(), tmp_path / 'plot.png')
    error = capsys.readouterr().err
    assert error == 'rock_seg bench: no plot, because matplotlib is not installed\n'
    assert not list(tmp_path.iterdir())
