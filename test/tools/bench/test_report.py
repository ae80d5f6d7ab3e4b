# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import cv2
import pytest

from rock_seg_ros.tools.bench.implementations import Run
from rock_seg_ros.tools.bench.report import machine, plot, table
from rock_seg_ros.tools.bench.timing import Case

CASES = [
    Case('network', 'torchvision', (640, 480), 'cpu', 'fp32', [Run(3.0, 900.0)], 1200.0),
    Case('network', 'fast', (640, 480), 'cpu', 'int8', [Run(0.4, 700.0), Run(0.5, 701.0)], 900.0),
    Case('shell', 'rock_seg', (640, 480), 'cpu', '', [Run(0.00512, 300.0)]),
]


def test_the_table_has_a_row_a_case_and_a_line_a_ratio():
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


def test_the_machine_is_told_with_the_versions_that_matter():
    about = machine()
    assert about['cores'] >= 1
    assert about['memory_gb'] > 0.5
    assert about['cpu']
    assert about['torch'].startswith('2.')


def test_the_plot_is_an_image_with_something_in_it(tmp_path):
    pytest.importorskip('matplotlib')
    assert plot(CASES, machine(), tmp_path / 'plot.png')
    drawn = cv2.imread(str(tmp_path / 'plot.png'))
    assert drawn.shape[1] >= 640
    assert drawn.std() > 10


def test_without_matplotlib_one_line_says_that_there_is_no_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    assert not plot(CASES, machine(), tmp_path / 'plot.png')
    said = capsys.readouterr().err
    assert said == 'rock_seg bench: no plot, because matplotlib is not installed\n'
    assert not list(tmp_path.iterdir())
