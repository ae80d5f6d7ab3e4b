# SPDX-License-Identifier: Apache-2.0
"""The benchmark evaluates weights on many sets, compares them, and shows only permitted images."""

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

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from training.benchmark import main

ROOT = Path(__file__).parents[2]
CAPTION = 18
OUTPUTS = ['json', 'markdown', 'report', 'sheet']


class FakeSegmenter:
    """Classifies pixels brighter than a limit as rock; the discs are brighter than 105."""

    metadata = ModelMetadata()

    def __init__(self, limit: int = 105) -> None:
        self.limit = limit
        self.seen: list[bytes] = []

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.seen.append(image.tobytes())
        ids = (image.mean(axis=2) > self.limit).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 255), (1,))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeSegmenter]:
    """Returns the fake networks by weights and preset; 'poor.safetensors' has a low recall."""
    made: dict[str, FakeSegmenter] = {}

    def segmenter(weights: Any, *_: object, preset: str, **how: object) -> FakeSegmenter:
        network = FakeSegmenter(180 if 'poor' in weights.path else 105)
        made[f'{weights.path} {preset}'] = network
        return network

    monkeypatch.setattr(
        'training.benchmark.load_weights',
        lambda path, _: SimpleNamespace(metadata=ModelMetadata(), path=path),
    )
    monkeypatch.setattr('training.benchmark.Segmenter', segmenter)
    monkeypatch.setattr('training.benchmark.MAX_RUNS', 3)
    return made


@pytest.fixture
def cases(discs: Path, tmp_path: Path, networks: dict[str, FakeSegmenter]) -> Path:
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
    results: dict[str, Any] = json.loads(capsys.readouterr().out)
    return results


def only(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the cases of the only network in the results."""
    (network,) = results['networks'].values()
    cases: dict[str, Any] = network['cases']
    return cases


def test_every_case_is_evaluated_with_its_perturbation(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = only(figures(cases, capsys))
    assert list(results) == ['plain', 'dark']
    assert results['plain']['iou'] > 0.95
    assert results['plain']['images'] == 6
    assert results['dark']['recall'] == 0
    assert results['dark']['conditions']['gain'] == 0.2


def test_each_network_segments_an_image_of_several_cases_once(
    cases: Path, networks: dict[str, FakeSegmenter], capsys: pytest.CaptureFixture[str]
) -> None:
    written = yaml.safe_load(cases.read_text())
    ignored = {'0': 'background', '255': 'ignore'}
    ground = {'source': written['cases']['plain']['source'] | {'class_map': ignored}}
    written['cases']['ground'] = ground | {'split': 'all'}
    cases.write_text(yaml.safe_dump(written))
    results = figures(cases, capsys, '--weights', 'good.safetensors', 'poor.safetensors')
    for network in networks.values():
        timing = 4
        assert len(network.seen) == 12 + timing
        assert len(set(network.seen)) == 12 + 1
    ground = results['networks']['good, auto']['cases']['ground']
    assert ground['recall'] is None
    assert 0 <= ground['false_rock'] < 0.01


def test_the_halves_of_a_set_are_disjoint_and_cover_it(
    cases: Path, networks: dict[str, FakeSegmenter], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}
    for half in ('report', 'tune', 'both'):
        results = figures(cases, capsys, '--only', 'plain', half=half)
        assert results['half'] == half
        assert only(results)['plain']['images'] == {'both': 6}.get(half, 3)
        (network,) = networks.values()
        seen[half] = set(network.seen[: only(results)['plain']['images']])
    assert not seen['report'] & seen['tune']
    assert seen['report'] | seen['tune'] == seen['both']


def test_the_default_half_is_report(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['--config', str(cases)]) == 0
    assert 'half of the validation sets: report' in capsys.readouterr().out


def test_a_held_out_case_is_reported_as_a_whole(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = only(figures(cases, capsys, '--cases.plain.held_out=true', half='report'))
    assert (whole['plain']['images'], whole['dark']['images']) == (6, 3)
    results = figures(cases, capsys, '--cases.plain.held_out=true', half='tune')
    assert 'half' in results['missing']['plain']
    assert list(only(results)) == ['dark']


def test_the_table_has_a_row_per_case_and_network(
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


def test_the_time_of_each_network_is_measured(
    cases: Path, networks: dict[str, FakeSegmenter], capsys: pytest.CaptureFixture[str]
) -> None:
    results = figures(cases, capsys, '--weights', 'good.safetensors', '--presets', 'fast', 'exact')
    for network in results['networks'].values():
        assert 0 < network['milliseconds_640x480'] < 1000
    for network in networks.values():
        assert len(network.seen[-1]) == 640 * 480 * 3


def test_the_old_option_preset_still_works(
    cases: Path, networks: dict[str, FakeSegmenter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(figures(cases, capsys, '--preset', 'fast')['networks']) == ['light, fast']
    assert list(networks) == ['light fast']


def test_weights_files_with_the_same_name_are_listed_with_their_folders(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = figures(cases, capsys, '--weights', 'a/w.safetensors', 'b/w.safetensors')
    assert list(results['networks']) == ['a/w.safetensors, auto', 'b/w.safetensors, auto']


def test_every_metric_has_a_paired_difference_from_the_other_weights(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors']
    results = figures(cases, capsys, *words, '--presets', 'fast', 'exact')
    assert results['against'] == 'poor'
    assert list(results['networks']) == ['good, fast', 'good, exact', 'poor, fast', 'poor, exact']
    assert list(results['differences']) == ['good, fast', 'good, exact']
    own = results['differences']['good, exact']['plain']['iou']
    each = [
        results['networks'][f'{name}, exact']['cases']['plain']['iou'] for name in ('good', 'poor')
    ]
    assert own['difference'] == pytest.approx(each[0] - each[1])
    assert own['interval'][0] > 0
    assert own['excludes_zero']
    assert not results['differences']['good, exact']['dark']['recall']['excludes_zero']


def test_a_significant_difference_is_marked(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors', '--half', 'both']
    assert main(['--config', str(cases), *words]) == 0
    out = capsys.readouterr().out
    below = out[out.index('Difference from poor') :].splitlines()
    plain, dark = (next(row for row in below if row.startswith(name)) for name in ('plain', 'dark'))
    assert '] *' in plain
    assert '*' not in dark


def test_missing_data_are_skipped_and_reported(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--config', str(cases), '--cases.dark.source.path=nowhere']
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith('missing: dark: nowhere')]
    assert not [line for line in out if line.startswith('dark')]
    results = figures(cases, capsys, '--cases.dark.source.path=nowhere')
    assert list(only(results)) == ['plain']
    assert list(results['missing']) == ['dark']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--only', 'dark', '--cases.dark.source.path=nowhere'], 'nowhere'),
        (['--cases.dark.source.path=nowhere', '--cases.plain.source.path=none'], 'no case has'),
        (['--only', 'bright'], "unknown case 'bright'; expected: plain, dark"),
        (['--cases.dark.only=[a*]', '--only', 'dark'], 'no image name matches'),
        (['--cases.dark.source.class_map={"0": "background"}'], 'pixel value 255'),
        (['--cases.dark.tiles=3'], 'tiles must be 0 or at least 32 px, not 3'),
        (['--run', 'nowhere'], 'curves.csv'),
    ],
)
def test_errors_are_reported_in_one_line(
    words: list[str], message: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(cases), *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('training.benchmark: ')
    assert message in error


def test_only_and_without_select_the_images_of_a_case(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--cases.plain.only=["[0-3]"]', '--cases.plain.without=["0"]']
    assert only(figures(cases, capsys, *words))['plain']['images'] == 3


def test_tiles_of_an_image_are_divided_into_halves_and_resampled(
    cases: Path, networks: dict[str, FakeSegmenter], capsys: pytest.CaptureFixture[str]
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
    assert len(network.seen[0]) == 96 * 80 * 3, 'the network processes the whole image'


def test_only_recall_is_reported_for_incomplete_labels(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--cases.plain.only_recall=true', '--report', str(tmp_path / 'report.html')]
    results = only(figures(cases, capsys, *words))['plain']
    assert results['recall'] > 0.9
    assert results['rocks']['recall'] > 0.9
    assert results['iou'] is results['false_rock'] is results['rocks']['precision'] is None


def test_ious_are_undefined_without_rock(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        '--only',
        'plain',
        '--cases.plain.source.class_map={"0": "background", "255": "ignore"}',
    ]
    assert main(['--config', str(cases), *words]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if r.startswith('plain'))
    assert row.split()[4:8] == ['–'] * 4


def test_the_tables_are_written_as_markdown_and_json(
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


def test_the_report_shows_only_images_of_permitted_cases(cases: Path, tmp_path: Path) -> None:
    report = tmp_path / 'report.html'
    words = ['--config', str(cases), '--half', 'both', '--report', str(report)]
    assert main(words) == 0
    page = report.read_text()
    assert page.count('data:image/jpeg') == 12  # six images, each also with its errors
    assert main([*words, '--cases.plain.shown=false']) == 0
    assert 'data:image/jpeg' not in report.read_text()


def test_the_report_has_all_networks_and_their_differences(cases: Path, tmp_path: Path) -> None:
    report = tmp_path / 'report.html'
    words = ['--weights', 'good.safetensors', '--against', 'poor.safetensors']
    assert main(['--config', str(cases), *words, '--report', str(report)]) == 0
    page = report.read_text()
    for part in ('plain: good, auto', 'dark: poor, auto', 'Difference from poor, paired'):
        assert part in page


@pytest.mark.parametrize('blocked', OUTPUTS)
def test_each_output_is_written_although_another_cannot_be(
    blocked: str, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: (cases if name == blocked else tmp_path) / f'{name}.png' for name in OUTPUTS}
    words = [word for name, file in files.items() for word in (f'--{name}', str(file))]
    assert main(['--config', str(cases), *words]) == 1
    assert str(cases) in capsys.readouterr().err.splitlines()[-1]
    assert [name for name in OUTPUTS if not files[name].exists()] == [blocked]


def test_the_sheet_shows_each_of_the_worst_images_once(cases: Path, tmp_path: Path) -> None:
    sheet = tmp_path / 'sheet.png'
    words = ['--config', str(cases), '--weights', 'poor.safetensors', '--sheet', str(sheet)]
    assert main([*words, '--half', 'both']) == 0
    drawn = cv2.imread(str(sheet))
    assert drawn is not None
    assert drawn.shape[1] == 4 * 320
    assert drawn.shape[0] == 3 * (320 + CAPTION), 'labels and predictions of two images per row'
    halves = drawn[:320, :320], drawn[:320, 320:640]
    assert not np.array_equal(*halves), 'labels and predictions differ'
    assert main([*words, '--half', 'both', '--only', 'plain']) == 0
    assert np.array_equal(cv2.imread(str(sheet)), drawn), 'perturbed images are not shown'
    assert main([*words, '--half', 'both', '--only', 'dark']) == 0
    assert not np.array_equal(cv2.imread(str(sheet)), drawn), 'except if there are no others'


def test_each_network_has_a_separate_sheet(cases: Path, tmp_path: Path) -> None:
    words = ['--presets', 'fast', 'exact', '--sheet', str(tmp_path / 'sheet.jpg')]
    assert main(['--config', str(cases), *words]) == 0
    assert {file.name for file in tmp_path.glob('*.jpg')} == {
        'sheet-light__fast.jpg',
        'sheet-light__exact.jpg',
    }


def test_only_redistributable_images_of_the_project_benchmark_are_shown() -> None:
    cases = yaml.safe_load((ROOT / 'config/training/benchmark.yaml').read_text())['cases']
    shown = [name for name, case in cases.items() if case.get('shown')]
    assert [cases[name]['source']['path'] for name in shown] == ['demo/samples']


def test_preset_and_output_stride_are_passed_to_the_network(
    cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def segmenter(*_: object, **how: object) -> FakeSegmenter:
        asked.update(how)
        return FakeSegmenter()

    monkeypatch.setattr('training.benchmark.Segmenter', segmenter)
    words = ['--preset', 'fast', '--output-stride', '8']
    assert main(['--config', str(cases), *words]) == 0
    assert asked == {'preset': 'fast', 'output_stride': 8}
