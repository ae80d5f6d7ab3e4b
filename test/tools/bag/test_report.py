# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import View
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.instances.rocks import RockSettings
from rock_seg_ros.tools.bag import report as bag_report
from rock_seg_ros.tools.bag.report import Record, RunSummary, figures_of, write_report

NS = 10**9
SVG = re.compile('data:image/svg\\+xml;base64,([^"]+)')


def run_summary(**changes):
    values = {
        'command': 'rock_seg bag in -o out',
        'facts': {'images': '/image'},
        'rejected': {},
        'ignored': {},
        'tracked': True,
        'metadata': ModelMetadata(classes=('background', 'rock')),
    }
    return RunSummary(**values | changes)


@pytest.fixture
def view():
    """A view of ground 2 m in front of the camera, perpendicular to the optical axis."""
    matrix = np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    return View(Intrinsics(matrix, np.zeros(0), size=(64, 48)), np.full((48, 64), 2, np.float32))


@pytest.fixture
def record(segmenter, scene):
    """Builds a record of images that are 0.5 s apart, with or without a view."""

    def build(images, view=None):
        made = Record(len(images))
        for number, image in enumerate(images):
            settings = Settings(rocks=RockSettings(min_area=2))  # small rocks for the model fit
            analysis = Analysis(image, segmenter, settings, view=view)
            made.add(1_700_000_000 * NS + number * NS // 2, analysis)
        return made

    return build


@pytest.fixture
def empty(scene):
    return np.full_like(scene, 60)


@pytest.fixture
def written(tmp_path):
    """Writes a report; returns the page and the text of its plots."""

    def write(*arguments):
        write_report(tmp_path / 'report.html', 'drive', *arguments)
        page = (tmp_path / 'report.html').read_text()
        plots = [base64.b64decode(plot).decode() for plot in SVG.findall(page)]
        return page, '\n'.join(plots)

    return write


def test_figures_summarize_all_images(record, scene, empty):
    figures = figures_of(*of(record([scene, empty])), run_summary(rejected={'cut short': 3}))
    assert figures['images with results'] == '2'
    assert figures['rejected images'] == '3'
    assert figures['rocks per image, mean'] == '1.00'
    assert figures['rocks per image, range'] == '0 to 2'
    assert figures['share of rock pixels'] == f'{320 / (2 * 48 * 64):.2%}'


def of(record):
    """Returns a record and its statistics."""
    return record, bag_report.statistics_of(record)


def test_track_ids_are_counted_only_with_tracking(record, scene):
    figures = figures_of(*of(record([scene] * 3)), run_summary())
    assert figures['track ids'] == '2'
    assert figures['track ids in 3 images or more'] == '2'
    figures = figures_of(*of(record([scene] * 3)), run_summary(tracked=False))
    assert not any('track ids' in name for name in figures)


def test_figures_have_the_ground_and_the_rock_abundance_with_metres(record, scene, view):
    figures = figures_of(*of(record([scene, scene], view)), run_summary())
    share = 320 / (48 * 64)
    assert figures['images with metres'] == '2'
    assert float(figures['visible ground, summed over images'].split()[0]) == pytest.approx(
        2 * (64 / 30) * (48 / 30), abs=0.1
    )
    abundance = float(figures['rock abundance (share of the ground)'].rstrip('%')) / 100
    assert abundance == pytest.approx(share, rel=0.3)  # abundance models rocks as discs


def test_sizes_with_metres_are_plotted_with_the_model(record, scene, view, written):
    page, plots = written(record([scene, scene], view), run_summary())
    assert 'Golombek &amp; Rapp, k = ' in plots
    assert 'diameter D (m)' in plots
    assert 'diameter D (px)' not in plots
    assert page.count('<img') == 4 + 2


def test_sizes_without_metres_are_plotted_in_pixels(record, scene, written):
    _, plots = written(record([scene, scene]), run_summary())
    assert 'diameter D (px)' in plots
    assert 'diameter D (m)' not in plots
    assert 'of the ground' not in plots


def test_an_image_is_shown_once_with_all_its_reasons(record, scene, empty, written):
    page, _ = written(record([empty, empty, scene]), run_summary())
    captions = re.findall('<figcaption>(.*)</figcaption>', page)
    assert captions == [
        'first. 0.00 s: 0 rocks, 0.0% of the pixels',
        'middle. 0.50 s: 0 rocks, 0.0% of the pixels',
        'most rocks, most rock. 1.00 s: 2 rocks, 10.4% of the pixels',
    ]


def test_the_reasons_of_rejected_images_and_ignored_inputs_are_shown(record, scene, written):
    page, _ = written(
        record([scene]), run_summary(rejected={'unknown encoding': 2}, ignored={'depth: late': 1})
    )
    assert '<tr><td>unknown encoding</td><td class="number">2</td></tr>' in page
    assert '<tr><td>depth: late</td><td class="number">1</td></tr>' in page


def test_the_command_and_the_settings_are_escaped(record, scene, written):
    page, _ = written(record([scene]), run_summary(command="rock_seg bag '<b>'"))
    assert '<code>rock_seg bag &#39;&lt;b&gt;&#39;</code>' in page
    assert '<tr><td>images</td><td>/image</td></tr>' in page


@pytest.mark.parametrize('images', [0, 1])
def test_a_report_without_rocks_or_without_images_is_written(record, empty, view, written, images):
    page, _ = written(record([empty] * images, view), run_summary(rejected={'cut short': 1}))
    assert 'cut short' in page


def test_long_bags_are_plotted_with_means_of_successive_images(record, empty, scene, monkeypatch):
    monkeypatch.setattr(bag_report, 'MAX_POINTS', 2)
    groups = bag_report.groups_of(record([empty, scene, scene]).images)
    assert [[image.rocks for image in group] for group in groups] == [[0, 2], [2]]


def test_a_record_does_not_keep_all_images(record, scene):
    """A bag of one day may have a million images."""
    made = record([scene] * 5)
    observation = vars(made.images[0].observation)
    sizes = [value for value in observation.values() if hasattr(value, 'nbytes')]
    assert sum(value.nbytes for value in sizes) < 1000
    assert sum(len(shown.overlay) for shown in made.shown.values()) < 100_000
