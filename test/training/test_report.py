# SPDX-License-Identifier: Apache-2.0
"""The report is one self-contained file with the metrics of the evaluation."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation
from training.curves import read_curves
from training.datasets import DataError, DatasetConfig, Labelled, Sample, find_samples, fingerprint
from training.evaluate import main
from training.evaluation import NetworkResult, Perturbation, Result, evaluate
from training.report import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    draw_errors,
    worst_of,
    write_report,
)

METADATA = ModelMetadata(data='<discs> & more', metrics={'discs_val_iou': 0.75})
VOID = {'meta', 'img', 'br'}
pytestmark = pytest.mark.usefixtures('torch_backend')


class Page(HTMLParser):
    """Parses a page, and checks that its elements are nested correctly."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.text = ''
        self.feed(file.read_text('utf-8'))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if tag == 'img' and name == 'src':
                self.images.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if 'style' not in self.open:
            self.text += data


def measured(*results: Result) -> NetworkResult:
    return NetworkResult('', METADATA, list(results))


class FakeSegmenter:
    """Classifies pixels brighter than a limit as rock."""

    def __init__(self, limit: int = 105) -> None:
        self.metadata = METADATA
        self.limit = limit

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        ids = (image[..., 1] > self.limit).astype(np.uint8)
        return Segmentation(ids, np.full_like(ids, 230), (1,))


@pytest.fixture(scope='module')
def samples(discs: Path) -> list[Sample]:
    return find_samples(DatasetConfig(str(discs)), 'all', METADATA.classes)


@pytest.fixture(scope='module')
def result(samples: list[Sample]) -> Result:
    return evaluate(FakeSegmenter(50), samples, name='discs, all')  # type: ignore[arg-type]


def test_a_report_is_valid_html_without_external_references(result: Result, tmp_path: Path) -> None:
    file = tmp_path / 'new' / 'report.html'
    write_report(file, [measured(result)], 'python -m training.evaluate --data x', worst=4)
    page = Page(file)
    kinds = [re.match(r'data:image/([a-z+]+);base64,', uri) for uri in page.images]
    assert [kind and kind[1] for kind in kinds] == ['svg+xml'] * 3 + ['jpeg'] * 8
    assert not re.search(r'(src|href)="(?!data:)', file.read_text())
    for uri in page.images:
        content = base64.b64decode(uri.partition(',')[2])
        if uri.startswith('data:image/jpeg'):
            assert cv2.imdecode(np.frombuffer(content, np.uint8), -1).shape == (80, 96, 3)
        else:
            assert content.rstrip().endswith(b'</svg>')


def test_a_report_has_metrics_intervals_metadata_command_and_data(
    result: Result, samples: list[Sample], tmp_path: Path
) -> None:
    file = tmp_path / 'report.html'
    write_report(file, [measured(result)], 'python -m training.evaluate --data "a<b"')
    text = Page(file).text
    metrics = result.figures
    for name in ('iou', 'boundary_iou', 'ece'):
        low, high = metrics['intervals'][name]
        assert f'{metrics[name]:.3f}{low:.3f} to {high:.3f}' in text
    assert f'{metrics["rocks"]["recall"]:.3f}' in text
    for part in ('<discs> & more', '0.7500', '--data "a<b"', fingerprint(samples), 'discs, all'):
        assert part in text
    assert 'Training' not in text
    assert 'Overview' not in text


def test_the_metadata_in_the_report_do_not_list_activation_ranges(
    result: Result, tmp_path: Path
) -> None:
    file = tmp_path / 'report.html'
    metadata = replace(METADATA, activation_ranges={'backbone.conv1': (0, 1)})
    write_report(file, [NetworkResult('', metadata, [result])], 'x')
    assert 'backbone.conv1' not in Page(file).text


def test_several_results_have_an_overview(
    result: Result, samples: list[Sample], tmp_path: Path
) -> None:
    grey = evaluate(FakeSegmenter(), samples, Perturbation(grey=True), name='discs, grey')  # type: ignore[arg-type]
    file = tmp_path / 'report.html'
    write_report(file, [measured(result, grey)], 'x')
    text = Page(file).text
    assert 'Overview' in text
    assert text.count('discs, grey') == 2


def test_a_report_without_images_has_no_pixels_of_the_data(result: Result, tmp_path: Path) -> None:
    file = tmp_path / 'report.html'
    write_report(file, [measured(result)], 'x', worst=0)
    assert all(uri.startswith('data:image/svg+xml') for uri in Page(file).images)
    assert 'worst' not in Page(file).text


def test_the_worst_images_come_first(result: Result) -> None:
    worst = worst_of(result.images, 3)
    ious = sorted(
        image_result.iou for image_result in result.images if image_result.iou is not None
    )
    assert [image_result.iou for image_result in worst] == ious[:3]
    assert ious[0] < ious[-1]


def test_errors_are_tinted_in_a_grey_image() -> None:
    image = np.full((10, 40, 3), (200, 100, 50), np.uint8)
    classes = np.zeros((10, 40), np.uint8)
    classes[:, :20], classes[:5, 30:] = 1, 255
    found = np.zeros((10, 40), bool)
    found[:, 10:30] = True
    drawn = draw_errors(Labelled(image, classes, None), found, (1,)).astype(int)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[0, 0]
    for column, colour in ((15, TRUE_POSITIVE), (5, FALSE_NEGATIVE), (25, FALSE_POSITIVE)):
        wanted = 0.4 * grey + 0.6 * np.array(colour)
        assert np.abs(drawn[:, column] - wanted).max() <= 1
    assert (drawn[9, 35] == grey).all()
    assert (drawn[0, 35] < 0.5 * grey).all()


def test_curves_are_read_and_shown(result: Result, tmp_path: Path) -> None:
    (tmp_path / 'curves.csv').write_text('step,name,value\n1,loss,0.9\n1,val_iou,0.2\n2,loss,0.5\n')
    curves = read_curves(tmp_path)
    assert curves == {'loss': ([1, 2], [0.9, 0.5]), 'val_iou': ([1], [0.2])}
    file = tmp_path / 'report.html'
    write_report(file, [measured(result)], 'x', curves, worst=0)
    page = Page(file)
    assert 'Training' in page.text
    assert len(page.images) == 4


@pytest.mark.parametrize(
    'content', ['a,b\n1,2\n', 'step,name,value\n1,loss\n', 'step,name,value\nx,y,1']
)
def test_an_invalid_curves_file_is_reported(content: str, tmp_path: Path) -> None:
    (tmp_path / 'curves.csv').write_text(content)
    with pytest.raises(DataError, match=r'curves\.csv: is not a table'):
        read_curves(tmp_path)


def test_evaluate_writes_a_report_and_checks_the_run_folder_first(
    light_weights_file: Path, own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / 'report.html'
    given = ['--weights', str(light_weights_file), '--data', str(own_discs), '--report', str(file)]
    assert main([*given, '--run', str(tmp_path)]) == 1
    assert 'curves.csv: cannot be read' in capsys.readouterr().err
    assert not file.exists()
    assert main([*given, '--worst', '1']) == 0
    text = Page(file).text
    assert f'python -m training.evaluate --weights {light_weights_file}' in text
    assert 'data, val' in text


def test_the_metrics_are_printed_even_if_the_report_cannot_be_written(
    light_weights_file: Path, own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').touch()
    file = tmp_path / 'file' / 'report.html'
    given = ['--weights', str(light_weights_file), '--data', str(own_discs), '--report', str(file)]
    assert main([*given, '--split', 'all', '--device', 'cpu', '--json']) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)['images'] == 5
    assert f'training.evaluate: {file}: the report cannot be written: ' in output.err
