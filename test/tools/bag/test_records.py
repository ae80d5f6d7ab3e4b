# SPDX-License-Identifier: Apache-2.0
"""Tables and annotations of bags."""

from __future__ import annotations

import base64
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import PointCloud2

from rock_seg_ros.tools.bag import command
from rock_seg_ros.tools.bag.files import TYPES, Bag, BagWriter
from rock_seg_ros.tools.main import main
from training.datasets import DatasetConfig, find_samples

START = 1_391_040_000
SVG = re.compile('data:image/svg\\+xml;base64,([^"]+)')


@pytest.fixture
def find_rocks(monkeypatch, segmenter, demo_data, tmp_path):
    """Runs `rock_seg bag` on the demo bag with the network for tests; the new bag is `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    bag, out = str(demo_data / 'mars_drive'), str(tmp_path / 'out')
    return lambda *given: main(['bag', bag, '-o', out, *map(str, given)])


@pytest.fixture
def write_metric(tmp_path, scene, make_compressed):
    """A bag of one image with camera_info, and depth of 2 m everywhere."""
    make = TYPES.types
    message = make_compressed.message(scene, 1)
    folder = tmp_path / 'metric'
    region = make['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    k = np.array([60, 0, 31.5, 0, 60, 23.5, 0, 0, 1], float)
    info = make['sensor_msgs/msg/CameraInfo'](
        message.header, 48, 64, 'plumb_bob', np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0,
        region,
    )  # fmt: skip
    metres = np.full((48, 64), 2, np.float32).view(np.uint8).ravel()
    depth = make['sensor_msgs/msg/Image'](message.header, 48, 64, '32FC1', 0, 256, metres)
    with BagWriter(folder) as writer:
        for topic, kind, sent in (
            ('/image', make_compressed.type, message),
            ('/camera_info', 'sensor_msgs/msg/CameraInfo', info),
            ('/depth', 'sensor_msgs/msg/Image', depth),
        ):
            writer.add_topic(topic, kind)
            writer.write_message(topic, 1, sent)
    return folder


def records(tmp_path):
    lines = (tmp_path / 'out/rocks.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines[1:-1]]


def test_a_table_of_a_bag_has_the_stamps_and_the_rocks_of_every_image(find_rocks, tmp_path):
    assert find_rocks('--table', tmp_path / 'rocks.csv') == 0
    rows = pd.read_csv(tmp_path / 'rocks.csv')
    assert set(rows['image']) == {'mars_drive'}
    assert sorted(set(rows['frame'])) == list(range(12))
    times = rows.groupby('frame')['time_s'].first()
    np.testing.assert_allclose(times, START + 0.05 * np.arange(12), atol=1e-5)
    with Bag(tmp_path / 'out') as bag:
        assert bag.topics, 'the bag opens as before'


def test_a_bag_has_records_only_where_an_export_needs_them(find_rocks, tmp_path):
    assert find_rocks() == 0
    assert not (tmp_path / 'out/rocks.jsonl').exists()


def test_the_images_of_a_bag_train_again(find_rocks, tmp_path):
    labels = tmp_path / 'labels'
    assert find_rocks('--labelme', labels, '--coco', tmp_path / 'rocks.json') == 0
    for path, kind in ((labels, 'labelme'), (tmp_path / 'rocks.json', 'coco')):
        samples = find_samples(DatasetConfig(str(path), kind), 'all', ('background', 'rock'))
        assert samples[3].image.name == 'mars_drive_000003.jpg'
        assert [sample.faults for sample in samples] == [()] * 12
        assert samples[0].read().classes.any()


def test_labels_of_a_finished_bag_are_not_written_without_its_images(find_rocks, tmp_path, capsys):
    assert find_rocks('--table', tmp_path / 'a.csv') == 0
    labels = tmp_path / 'labels'
    assert find_rocks('--table', tmp_path / 'b.csv', '--resume', '--labelme', labels) == 1
    assert f'out: was made without --labelme {labels}, so' in capsys.readouterr().err
    assert not list(labels.glob('*'))


@pytest.fixture
def process_two_bags(monkeypatch, segmenter, demo_data, tmp_path):
    """Processes two equal bags, of which a finished one is skipped."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    bags = [demo_data / name for name in ('mars_drive', 'second')]
    shutil.copytree(*bags)

    def process(*given):
        words = [*bags, '-o', tmp_path / 'out', '--resume', *given]
        assert main(['bag', *map(str, words)]) == 0

    return process


def test_several_bags_make_one_table_and_a_resumed_run_the_same(process_two_bags, tmp_path):
    process_two_bags('--table', tmp_path / 'one.csv')
    shutil.rmtree(tmp_path / 'out/second')
    process_two_bags('--table', tmp_path / 'two.csv')
    assert (tmp_path / 'one.csv').read_bytes() == (tmp_path / 'two.csv').read_bytes()
    assert set(pd.read_csv(tmp_path / 'one.csv')['image']) == {'mars_drive', 'second'}


def test_the_scale_gives_sizes_in_mm_and_is_in_the_records(find_rocks, tmp_path):
    files = [tmp_path / name for name in ('rocks.csv', 'rocks.json', 'report.html')]
    given = ('--table', files[0], '--coco', files[1], '--report', files[2])
    assert find_rocks('--mm-per-px', 2, *given) == 0
    rows = pd.read_csv(files[0])
    np.testing.assert_allclose(rows['diameter_mm'], 2 * rows['diameter_px'], rtol=1e-3)
    assert records(tmp_path)[0]['scale'] == {'mm_per_px': 2.0, 'source': 'given'}
    annotation = json.loads(files[1].read_text())['annotations'][0]
    assert annotation['attributes']['diameter_mm'] == rows['diameter_mm'][0]
    assert 'D50 (mm)' in files[2].read_text()


def test_a_scale_alone_writes_the_records(find_rocks, tmp_path):
    assert find_rocks('--scale-points', 0, 0, 30, 40, 100) == 0
    assert records(tmp_path)[5]['scale']['mm_per_px'] == 2


def test_a_scale_takes_precedence_over_metres_in_records_and_not_in_messages(
    monkeypatch, segmenter, write_metric, tmp_path
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)

    def find(name, *given):
        given = (str(write_metric), '-o', str(tmp_path / name), *given)
        assert main(['bag', *given, '--outputs', 'rocks', '--table', f'{tmp_path}/{name}.csv']) == 0
        with Bag(tmp_path / name) as bag:
            (message,) = bag.messages(bag.topics)
        cloud = deserialize_message(message.data, PointCloud2)
        return pd.read_csv(tmp_path / f'{name}.csv').iloc[0], cloud

    measured, message = find('measured')
    scaled, same = find('scaled', '--mm-per-px', '2')
    assert measured['diameter_mm'] == pytest.approx(1000 * (200 * 4 / np.pi) ** 0.5 / 30, rel=0.03)
    assert scaled['diameter_mm'] == pytest.approx(2 * scaled['diameter_px'], rel=1e-3)
    assert scaled['z_m'] == measured['z_m'] == pytest.approx(2, abs=1e-3)
    assert same == message


def test_images_without_the_tag_of_the_scale_are_reported_in_one_line(find_rocks, tmp_path, capsys):
    table = tmp_path / 'rocks.csv'
    assert find_rocks('--scale-tag', '4x4_50:30', '--table', table) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg bag' in line]
    assert len(lines) == 1
    assert lines[0].endswith(
        'mars_drive: 12 of 12 images have no scale; the first one:'
        ' no tag of the family 4x4_50 found; sizes are in px only'
    )
    assert pd.read_csv(table)['diameter_mm'].isna().all()


def test_bags_of_another_scale_are_not_continued(find_rocks, capsys):
    assert find_rocks('--mm-per-px', 1) == 0
    assert find_rocks('--mm-per-px', 2, '--resume') == 2
    assert 'mm_per_px 1.0, not 2.0' in capsys.readouterr().err


def test_a_scale_that_is_not_valid_is_refused(find_rocks, tmp_path, capsys):
    assert find_rocks('--scale-points', 1, 2, 1, 2, 50) == 2
    assert '--scale-points: the two points are the same: 1, 2' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_report_of_a_bag_has_sizes_cover_overlays_topics_and_plots_over_time(
    find_rocks, tmp_path
):
    assert find_rocks('--report', tmp_path / 'report.html') == 0
    page = (tmp_path / 'report.html').read_text()
    for text in ('D50 (px)', 'rock cover (share of the pixels)', '/camera/image_raw/compressed',
                 'Over time', 'track ids in 3 images or more', '0.55 s: 2 rocks'):  # fmt: skip
        assert text in page
    assert page.count('data:image/svg+xml') == 4
    assert page.count('data:image/jpeg') == 12


def test_a_report_that_exists_is_refused_before_the_bag_is_read(find_rocks, tmp_path, capsys):
    file = tmp_path / 'report.html'
    file.write_text('mine')
    assert find_rocks('--report', file) == 2
    line = f'rock_seg bag: --report {file}: {file} exists; --overwrite replaces it'
    assert line in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert find_rocks('--report', file, '--overwrite') == 0
    assert 'D50' in file.read_text()


def test_without_overlays_in_the_new_bag_a_report_has_no_images(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html', '--outputs', 'rocks') == 0
    assert 'data:image/jpeg' not in (tmp_path / 'report.html').read_text()


def test_raw_overlays_are_in_the_report_too(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html', '--outputs', 'overlay') == 0
    assert (tmp_path / 'report.html').read_text().count('data:image/jpeg') == 12


def test_with_metres_a_report_has_the_rock_abundance(
    monkeypatch, segmenter, write_metric, tmp_path
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    report = tmp_path / 'report.html'
    given = [write_metric, '-o', tmp_path / 'out', '--report', report, '--min-area', 2]
    assert main(['bag', *map(str, given)]) == 0
    page = report.read_text()
    ground = float(re.search(r'summed over images</td><td class="number">([\d.]+) m²', page)[1])
    assert ground == pytest.approx((64 / 30) * (48 / 30), abs=0.1)
    share = float(re.search(r'share of the ground\)</td><td class="number">([\d.]+)%', page)[1])
    assert share == pytest.approx(100 * 320 / (48 * 64), rel=0.3), 'models rocks as discs'
    plots = [base64.b64decode(plot).decode() for plot in SVG.findall(page)]
    assert any('Golombek &amp; Rapp, k = ' in plot for plot in plots)
    assert any('of the ground' in plot for plot in plots)


def test_rejected_images_and_ignored_inputs_are_in_the_report(
    monkeypatch, segmenter, scene, make_compressed, tmp_path
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    with BagWriter(tmp_path / 'in') as writer:
        writer.add_topic('/image', make_compressed.type)
        writer.write_message('/image', 1, make_compressed.message(scene, 1))
        broken = make_compressed.message(scene, 2)
        broken.data = broken.data[:30]
        writer.write_message('/image', 2, broken)
    given = [tmp_path / 'in', '-o', tmp_path / 'out', '--report', tmp_path / 'report.html']
    assert main(['bag', *map(str, given), '--camera-height', '1']) == 1
    page = (tmp_path / 'report.html').read_text()
    for title, count in (('Rejected images', 1), ('Ignored inputs', 1)):
        table = re.search(f'<h2>{title}</h2>(.*?)</table>', page, re.DOTALL)[1]
        cells = re.findall('<td class="value">(.*?)</td>', table)
        assert (cells[0], cells[2], len(cells)) == ('in', str(count), 3)
    assert 'camera_info: missing' in page


def test_several_bags_make_one_report_and_a_resumed_run_the_same(process_two_bags, tmp_path):
    process_two_bags('--report', tmp_path / 'one.html')
    page = (tmp_path / 'one.html').read_text()
    assert '<h1>Rocks in mars_drive, second</h1>' in page
    assert page.count('data:image/jpeg') == 24
    assert page.count('data:image/svg+xml') == 2, 'plots over time are of one bag'
    shutil.rmtree(tmp_path / 'out/second')
    process_two_bags('--report', tmp_path / 'two.html')
    assert (tmp_path / 'two.html').read_text() == page


def test_a_bag_that_was_made_without_records_is_named(find_rocks, tmp_path, capsys):
    assert find_rocks() == 0
    assert find_rocks('--resume', '--table', tmp_path / 'rocks.csv') == 1
    line = f'{tmp_path}/out: was made without --table, so its rocks are left out; process it again'
    assert line in capsys.readouterr().err


def test_a_table_that_exists_is_refused_before_the_bag_is_read(find_rocks, tmp_path):
    (tmp_path / 'rocks.csv').touch()
    assert find_rocks('--table', tmp_path / 'rocks.csv') == 2
    assert not (tmp_path / 'out').exists()


def test_the_records_name_weights_and_settings(find_rocks, tmp_path):
    assert find_rocks('--supervision', tmp_path / 'rocks.json') == 0
    first, second, *_ = (tmp_path / 'out/rocks.jsonl').read_text().splitlines()
    assert json.loads(first)['made_by']['weights'] == 'light.safetensors'
    assert json.loads(second)['rocks'][0]['area'] == 200
