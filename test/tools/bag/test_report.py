# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import View
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.instances.rocks import RockSettings
from rock_seg_ros.tools.bag import report as bag_report
from rock_seg_ros.tools.bag.report import Record, RunSummary, figures_of, write_report

NS = 10**9
SVG = re.compile('data:image/svg\\+xml;base64,([^"]+)')


def told(**changes):
    values = {
        'command': 'rock_seg bag in -o out',
        'facts': {'images': '/image'},
        'refused': {},
        'set_aside': {},
        'tracked': True,
        'card': Card(classes=('background', 'rock')),
    }
    return RunSummary(**values | changes)


@pytest.fixture
def view():
    """Ground 2 m before the camera, which looks straight at it."""
    matrix = np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    return View(Intrinsics(matrix, np.zeros(0), size=(64, 48)), np.full((48, 64), 2, np.float32))


@pytest.fixture
def record(segmenter, scene):
    """Builds a record of some images, 0.5 s apart, with a view or without."""

    def build(images, view=None):
        made = Record(len(images))
        for number, image in enumerate(images):
            settings = Settings(rocks=RockSettings(min_area=2))  # else all are too small to fit
            analysis = Analysis(image, segmenter, settings, view=view)
            made.add(1_700_000_000 * NS + number * NS // 2, analysis)
        return made

    return build


@pytest.fixture
def empty(scene):
    return np.full_like(scene, 60)


@pytest.fixture
def written(tmp_path):
    """Writes a report; returns the page, and the text in its plots."""

    def write(*arguments):
        write_report(tmp_path / 'report.html', 'drive', *arguments)
        page = (tmp_path / 'report.html').read_text()
        plots = [base64.b64decode(plot).decode() for plot in SVG.findall(page)]
        return page, '\n'.join(plots)

    return write


def test_figures_are_those_of_all_images(record, scene, empty):
    figures = figures_of(*of(record([scene, empty])), told(refused={'cut short': 3}))
    assert figures['images with results'] == '2'
    assert figures['rejected images'] == '3'
    assert figures['rocks per image, mean'] == '1.00'
    assert figures['rocks per image, range'] == '0 to 2'
    assert figures['share of rock pixels'] == f'{320 / (2 * 48 * 64):.2%}'


def of(record):
    """A record and its statistics."""
    return record, bag_report.statistics_of(record)


def test_rocks_are_counted_by_id_where_ids_last(record, scene):
    figures = figures_of(*of(record([scene] * 3)), told())
    assert figures['track ids'] == '2'
    assert figures['track ids in 3 images or more'] == '2'
    figures = figures_of(*of(record([scene] * 3)), told(tracked=False))
    assert not any('track ids' in name for name in figures)


def test_with_metres_the_ground_and_its_abundance_are_told(record, scene, view):
    figures = figures_of(*of(record([scene, scene], view)), told())
    share = 320 / (48 * 64)
    assert figures['images with metres'] == '2'
    assert float(figures['visible ground, summed over images'].split()[0]) == pytest.approx(
        2 * (64 / 30) * (48 / 30), abs=0.1
    )
    abundance = float(figures['rock abundance (share of the ground)'].rstrip('%')) / 100
    assert abundance == pytest.approx(share, rel=0.3)  # its rocks are discs


def test_with_metres_sizes_are_plotted_with_the_law(record, scene, view, written):
    page, plots = written(record([scene, scene], view), told())
    assert 'Golombek &amp; Rapp, k = ' in plots
    assert 'diameter D (m)' in plots
    assert 'diameter D (px)' not in plots
    assert page.count('<img') == 4 + 2


def test_without_metres_sizes_are_plotted_in_pixels(record, scene, written):
    _, plots = written(record([scene, scene]), told())
    assert 'diameter D (px)' in plots
    assert 'diameter D (m)' not in plots
    assert 'of the ground' not in plots


def test_special_images_are_shown_once_with_what_is_special(record, scene, empty, written):
    page, _ = written(record([empty, empty, scene]), told())
    captions = re.findall('<figcaption>(.*)</figcaption>', page)
    assert captions == [
        'first. 0.00 s: 0 rocks, 0.0% of the pixels',
        'middle. 0.50 s: 0 rocks, 0.0% of the pixels',
        'most rocks, most rock. 1.00 s: 2 rocks, 10.4% of the pixels',
    ]


def test_what_was_refused_and_set_aside_is_told_with_the_reason(record, scene, written):
    page, _ = written(
        record([scene]), told(refused={'unknown encoding': 2}, set_aside={'depth: late': 1})
    )
    assert '<tr><td>unknown encoding</td><td class="number">2</td></tr>' in page
    assert '<tr><td>depth: late</td><td class="number">1</td></tr>' in page


def test_command_and_what_was_used_are_told_as_text(record, scene, written):
    page, _ = written(record([scene]), told(command="rock_seg bag '<b>'"))
    assert '<code>rock_seg bag &#39;&lt;b&gt;&#39;</code>' in page
    assert '<tr><td>images</td><td>/image</td></tr>' in page


@pytest.mark.parametrize('images', [0, 1])
def test_a_report_without_rocks_or_without_images_is_written(record, empty, view, written, images):
    page, _ = written(record([empty] * images, view), told(refused={'cut short': 1}))
    assert 'cut short' in page


def test_long_bags_are_plotted_with_means_of_neighbours(record, empty, scene, monkeypatch):
    monkeypatch.setattr(bag_report, 'POINTS', 2)
    groups = bag_report.groups_of(record([empty, scene, scene]).moments)
    assert [[moment.rocks for moment in group] for group in groups] == [[0, 2], [2]]


def test_a_record_keeps_no_image(record, scene):
    """A day's bag has a million of them."""
    made = record([scene] * 5)
    sizes = [value for value in vars(made.moments[0].seen).values() if hasattr(value, 'nbytes')]
    assert sum(value.nbytes for value in sizes) < 1000
    assert sum(len(shown.overlay) for shown in made.shown.values()) < 100_000
