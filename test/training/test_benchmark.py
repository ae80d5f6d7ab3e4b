# SPDX-License-Identifier: Apache-2.0
"""Weights are measured on many things in one go, and the report shows only what it may."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.segmenter import Segmentation
from training.benchmark import main

ROOT = Path(__file__).parents[2]


class Bright:
    """Calls rock what is bright, as the discs are."""

    card = Card()

    def segment(self, picture: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = (picture.mean(axis=2) > 100).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


@pytest.fixture
def cases(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr('training.benchmark.load_weights', lambda _: SimpleNamespace(card=Card()))
    monkeypatch.setattr('training.benchmark.Segmenter', lambda *_, **__: Bright())
    source = {'path': str(discs)}
    written = {
        'plain': {'source': source, 'split': 'all', 'shown': True},
        'dark': {'source': source, 'split': 'all', 'conditions': {'gain': 0.2}},
    }
    file = tmp_path / 'cases.yaml'
    file.write_text(yaml.safe_dump({'cases': written}, sort_keys=False))
    return file


def test_every_case_is_measured_under_its_conditions(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ['plain', 'dark']
    assert told['plain']['iou'] > 0.95
    assert told['dark']['recall'] == 0
    assert told['dark']['conditions']['gain'] == 0.2


def test_people_get_a_line_a_case(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--config', str(cases)]) == 0
    plain, dark = capsys.readouterr().out.splitlines()
    assert plain.startswith('plain ')
    assert 'boundary IoU' in plain
    assert dark.startswith('dark ')


def test_the_report_shows_pictures_only_of_what_may_be_shown(cases: Path, tmp_path: Path) -> None:
    report = tmp_path / 'report.html'
    assert main(['--config', str(cases), '--report', str(report)]) == 0
    page = report.read_text()
    assert page.count('data:image/jpeg') == 12  # six pictures, plain and with errors drawn
    assert main(['--config', str(cases), '--cases.plain.shown=false', '--report', str(report)]) == 0
    assert 'data:image/jpeg' not in report.read_text()


def test_data_that_are_not_there_are_one_line(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), '--cases.dark.source.path=nowhere']) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('training.benchmark: nowhere')


def test_what_the_embedded_weights_are_measured_on_shows_nothing_that_may_not_be_shipped() -> None:
    cases = yaml.safe_load((ROOT / 'config/training/benchmark.yaml').read_text())['cases']
    shown = [name for name, case in cases.items() if case.get('shown')]
    assert [cases[name]['source']['path'] for name in shown] == ['demo/samples']


def test_the_network_is_measured_at_the_preset_and_stride_that_are_asked_for(
    cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def segmenter(*_: object, **how: object) -> Bright:
        asked.update(how)
        return Bright()

    monkeypatch.setattr('training.benchmark.Segmenter', segmenter)
    words = ['--preset', 'fast', '--output-stride', '8']
    assert main(['--config', str(cases), *words]) == 0
    assert asked == {'preset': 'fast', 'output_stride': 8}
