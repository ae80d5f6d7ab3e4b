# SPDX-License-Identifier: Apache-2.0
"""Weights are measured on many things in one go, compared in pairs, and shown as they may be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.segmenter import Segmentation
from training.benchmark import main

ROOT = Path(__file__).parents[2]
CAPTION = 18


class Bright:
    """Calls rock what is brighter than its limit; the discs are brighter than 105."""

    card = Card()

    def __init__(self, limit: int = 105) -> None:
        self.limit = limit
        self.seen: list[bytes] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.seen.append(image.tobytes())
        ids = (image.mean(axis=2) > self.limit).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Bright]:
    """Stand-ins by weights and preset; 'poor.safetensors' finds too little."""
    made: dict[str, Bright] = {}

    def segmenter(weights: Any, *_: object, preset: str, **how: object) -> Bright:
        network = Bright(180 if 'poor' in weights.path else 105)
        made[f'{weights.path} {preset}'] = network
        return network

    monkeypatch.setattr(
        'training.benchmark.load_weights', lambda path, _: SimpleNamespace(card=Card(), path=path)
    )
    monkeypatch.setattr('training.benchmark.Segmenter', segmenter)
    monkeypatch.setattr('training.benchmark.MOST_RUNS', 3)
    return made


@pytest.fixture
def cases(discs: Path, tmp_path: Path, networks: dict[str, Bright]) -> Path:
    source = {'path': str(discs)}
    written = {
        'plain': {'source': source, 'split': 'all', 'shown': True},
        'dark': {'source': source, 'split': 'all', 'conditions': {'gain': 0.2}},
    }
    file = tmp_path / 'cases.yaml'
    file.write_text(yaml.safe_dump({'weights': ['light'], 'cases': written}, sort_keys=False))
    return file


def figures(
    cases: Path, capsys: pytest.CaptureFixture[str], *words: str, half: str = 'both'
) -> dict[str, Any]:
    assert main(['--config', str(cases), '--json', '--half', half, *words]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def only(told: dict[str, Any]) -> dict[str, Any]:
    """The cases of the one network that was measured."""
    (network,) = told['networks'].values()
    found: dict[str, Any] = network['cases']
    return found


def test_every_case_is_measured_under_its_conditions(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = only(figures(cases, capsys))
    assert list(told) == ['plain', 'dark']
    assert told['plain']['iou'] > 0.95
    assert told['plain']['images'] == 6
    assert told['dark']['recall'] == 0
    assert told['dark']['conditions']['gain'] == 0.2


def test_an_image_is_segmented_once_by_a_network_whatever_is_asked_of_it(
    cases: Path, networks: dict[str, Bright], capsys: pytest.CaptureFixture[str]
) -> None:
    written = yaml.safe_load(cases.read_text())
    ignored = {'0': 'background', '255': 'ignore'}
    ground = {'source': written['cases']['plain']['source'] | {'class_map': ignored}}
    written['cases']['ground'] = ground | {'split': 'all'}
    cases.write_text(yaml.safe_dump(written))
    told = figures(cases, capsys, '--weights', 'good.safetensors', 'poor.safetensors')
    for network in networks.values():
        timing = 4
        assert len(network.seen) == 12 + timing
        assert len(set(network.seen)) == 12 + 1
    ground = told['networks']['good, auto']['cases']['ground']
    assert ground['recall'] is None
    assert 0 <= ground['false_rock'] < 0.01


def test_the_two_halves_of_a_set_have_no_image_in_common_and_are_all_of_it(
    cases: Path, networks: dict[str, Bright], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}
    for half in ('report', 'tune', 'both'):
        told = figures(cases, capsys, '--only', 'plain', half=half)
        assert told['half'] == half
        assert only(told)['plain']['images'] == {'both': 6}.get(half, 3)
        (network,) = networks.values()
        seen[half] = set(network.seen[: only(told)['plain']['images']])
    assert not seen['report'] & seen['tune']
    assert seen['report'] | seen['tune'] == seen['both']


def test_what_is_reported_is_by_default_the_half_that_nothing_was_chosen_on(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases)]) == 0
    assert 'half of the validation sets: report' in capsys.readouterr().out


def test_what_nothing_is_ever_chosen_on_is_reported_whole(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = only(figures(cases, capsys, '--cases.plain.held_out=true', half='report'))
    assert (whole['plain']['images'], whole['dark']['images']) == (6, 3)
    told = figures(cases, capsys, '--cases.plain.held_out=true', half='tune')
    assert 'half' in told['missing']['plain']
    assert list(only(told)) == ['dark']


def test_people_get_a_row_for_each_case_and_network(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--weights', 'good.safetensors', 'poor.safetensors', '--presets', 'fast', 'balanced']
    assert main(['--config', str(cases), *words]) == 0
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if line.startswith('case'))
    for column in ('network', 'IoU', 'boundary IoU', 'rocks, recall', 'false rock', 'ECE', 'ms'):
        assert column in head
    rows = [line for line in out.splitlines() if line.startswith(('plain', 'dark'))]
    assert [row.split('  ')[0] for row in rows] == ['plain'] * 4 + ['dark'] * 4
    for network in ('good, fast', 'good, balanced', 'poor, fast', 'poor, balanced'):
        assert sum(network in row for row in rows) == 2
    assert '[' in rows[0]


def test_networks_take_turns_in_the_measurement_of_time(
    cases: Path, networks: dict[str, Bright], capsys: pytest.CaptureFixture[str]
) -> None:
    told = figures(cases, capsys, '--weights', 'good.safetensors', '--presets', 'fast', 'exact')
    for network in told['networks'].values():
        assert 0 < network['milliseconds_640x480'] < 1000
    for network in networks.values():
        assert len(network.seen[-1]) == 640 * 480 * 3


def test_the_preset_of_old_is_still_understood(
    cases: Path, networks: dict[str, Bright], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(figures(cases, capsys, '--preset', 'fast')['networks']) == ['light, fast']
    assert list(networks) == ['light fast']


def test_weights_of_one_name_in_two_folders_are_told_by_their_folders(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = figures(cases, capsys, '--weights', 'a/w.safetensors', 'b/w.safetensors')
    assert list(told['networks']) == ['a/w.safetensors, auto', 'b/w.safetensors, auto']


def test_against_other_weights_every_figure_has_a_paired_difference(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors']
    told = figures(cases, capsys, *words, '--presets', 'fast', 'exact')
    assert told['against'] == 'poor'
    assert list(told['networks']) == ['good, fast', 'good, exact', 'poor, fast', 'poor, exact']
    assert list(told['differences']) == ['good, fast', 'good, exact']
    own = told['differences']['good, exact']['plain']['iou']
    each = [
        told['networks'][f'{name}, exact']['cases']['plain']['iou'] for name in ('good', 'poor')
    ]
    assert own['difference'] == pytest.approx(each[0] - each[1])
    assert own['interval'][0] > 0
    assert own['excludes_zero']
    assert not told['differences']['good, exact']['dark']['recall']['excludes_zero']


def test_a_difference_that_is_sure_is_marked(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors', '--half', 'both']
    assert main(['--config', str(cases), *words]) == 0
    out = capsys.readouterr().out
    below = out[out.index('Difference from poor') :].splitlines()
    plain, dark = (next(row for row in below if row.startswith(name)) for name in ('plain', 'dark'))
    assert '] *' in plain
    assert '*' not in dark


def test_data_that_are_not_there_are_left_out_and_named(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--config', str(cases), '--cases.dark.source.path=nowhere']
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith('missing: dark: nowhere')]
    assert not [line for line in out if line.startswith('dark')]
    told = figures(cases, capsys, '--cases.dark.source.path=nowhere')
    assert list(only(told)) == ['plain']
    assert list(told['missing']) == ['dark']


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--only', 'dark', '--cases.dark.source.path=nowhere'], 'nowhere'),
        (['--cases.dark.source.path=nowhere', '--cases.plain.source.path=none'], 'no case has'),
        (['--only', 'bright'], "there is no case 'bright'; legal is plain, dark"),
        (['--cases.dark.only=[a*]', '--only', 'dark'], 'no image of the names'),
        (['--cases.dark.source.class_map={"0": "background"}'], 'grey value 255'),
        (['--cases.dark.tiles=3'], 'tiles must be 0 or at least 32 px, not 3'),
        (['--run', 'nowhere'], 'curves.csv'),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], told: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('training.benchmark: ')
    assert told in error


def test_a_case_takes_only_the_images_that_it_names(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--cases.plain.only=["[0-3]"]', '--cases.plain.without=["0"]']
    assert only(figures(cases, capsys, *words))['plain']['images'] == 3


def test_tiles_of_one_image_are_units_of_halves_and_intervals(
    cases: Path, networks: dict[str, Bright], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--only', 'plain', '--cases.plain.only=["0"]', '--cases.plain.tiles=32']
    whole = only(figures(cases, capsys, *words))['plain']
    assert whole['images'] == 6, '96×80 px are 3×2 tiles'
    assert whole['intervals']['iou'][0] <= whole['iou'] <= whole['intervals']['iou'][1]
    halves = [
        only(figures(cases, capsys, *words, half=half))['plain'] for half in ('tune', 'report')
    ]
    assert [half['images'] for half in halves] == [3, 3]
    assert sum(half['rocks']['true'] for half in halves) == whole['rocks']['true']
    (network,) = networks.values()
    assert len(network.seen[0]) == 96 * 80 * 3, 'the network sees the whole image'


def test_of_incomplete_labels_only_recall_is_told(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--cases.plain.only_recall=true', '--report', str(tmp_path / 'report.html')]
    told = only(figures(cases, capsys, *words))['plain']
    assert told['recall'] > 0.9
    assert told['rocks']['recall'] > 0.9
    assert told['iou'] is told['false_rock'] is told['rocks']['precision'] is None


def test_ious_are_left_open_where_there_is_no_rock(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        '--only',
        'plain',
        '--cases.plain.source.class_map={"0": "background", "255": "ignore"}',
    ]
    assert main(['--config', str(cases), *words]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if r.startswith('plain'))
    assert row.split()[4:8] == ['–'] * 4


def test_the_tables_can_be_had_as_markdown_and_json_files_too(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {kind: tmp_path / f'table.{kind}' for kind in ('json', 'markdown')}
    words = [word for kind, file in files.items() for word in (f'--{kind}', str(file))]
    assert main(['--config', str(cases), *words]) == 0
    assert capsys.readouterr().out.startswith('Figures')
    assert 'plain' in only(json.loads(files['json'].read_text()))
    lines = files['markdown'].read_text().splitlines()
    rows = [line for line in lines if line.startswith('|')]
    assert len(rows) == 4
    assert len({row.count('|') for row in rows}) == 1
    assert main(['--config', str(cases), '--markdown']) == 0
    assert rows[:2] == capsys.readouterr().out.splitlines()[2:4]


def test_the_report_shows_images_only_of_what_may_be_shown(cases: Path, tmp_path: Path) -> None:
    report = tmp_path / 'report.html'
    words = ['--config', str(cases), '--half', 'both', '--report', str(report)]
    assert main(words) == 0
    page = report.read_text()
    assert page.count('data:image/jpeg') == 12  # six images, plain and with errors drawn
    assert main([*words, '--cases.plain.shown=false']) == 0
    assert 'data:image/jpeg' not in report.read_text()


def test_the_report_has_all_networks_and_their_differences(cases: Path, tmp_path: Path) -> None:
    report = tmp_path / 'report.html'
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors']
    assert main(['--config', str(cases), *words, '--report', str(report)]) == 0
    page = report.read_text()
    for part in ('plain: good, auto', 'dark: poor, auto', 'Difference from poor, paired'):
        assert part in page


def test_the_sheet_shows_the_worst_images_of_all_cases_each_once(
    cases: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / 'sheet.png'
    words = ['--config', str(cases), '--weights', 'poor.safetensors', '--sheet', str(sheet)]
    assert main([*words, '--half', 'both']) == 0
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    assert drawn.shape[1] == 4 * 320
    assert drawn.shape[0] == 3 * (320 + CAPTION), 'six images, true and found, two in a row'
    halves = drawn[:320, :320], drawn[:320, 320:640]
    assert not np.array_equal(*halves), 'not all of the rock was found'
    assert main([*words, '--half', 'both', '--only', 'plain']) == 0
    assert np.array_equal(cv2.imread(str(sheet)), drawn), 'images that were changed are not shown'
    assert main([*words, '--half', 'both', '--only', 'dark']) == 0
    assert not np.array_equal(cv2.imread(str(sheet)), drawn), 'unless there are no others'


def test_each_network_has_a_sheet_of_its_own(cases: Path, tmp_path: Path) -> None:
    words = ['--presets', 'fast', 'exact', '--sheet', str(tmp_path / 'sheet.jpg')]
    assert main(['--config', str(cases), *words]) == 0
    assert {file.name for file in tmp_path.glob('*.jpg')} == {
        'sheet-light__fast.jpg',
        'sheet-light__exact.jpg',
    }


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
