# SPDX-License-Identifier: Apache-2.0
"""Tables and annotations of bags."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from rock_seg_ros.tools.bag import command
from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.main import main
from training.datasets import DatasetConfig, find_samples

START = 1_391_040_000


@pytest.fixture
def find_rocks(monkeypatch, segmenter, demo_data, tmp_path):
    """Runs `rock_seg bag` on the demo bag with the network for tests; the new bag is `out`."""
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    bag, out = str(demo_data / 'mars_drive'), str(tmp_path / 'out')
    return lambda *given: main(['bag', bag, '-o', out, *map(str, given)])


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


def test_several_bags_make_one_table_and_a_resumed_run_the_same(
    monkeypatch, segmenter, demo_data, tmp_path
):
    monkeypatch.setattr(command, 'segmenter_of', lambda _: segmenter)
    bags = [demo_data / name for name in ('mars_drive', 'second')]
    shutil.copytree(bags[0], bags[1])

    def find(table):
        given = [*bags, '-o', tmp_path / 'out', '--resume', '--table', table]
        return main(['bag', *map(str, given)])

    assert find(tmp_path / 'one.csv') == 0
    shutil.rmtree(tmp_path / 'out/second')
    assert find(tmp_path / 'two.csv') == 0
    assert (tmp_path / 'one.csv').read_bytes() == (tmp_path / 'two.csv').read_bytes()
    assert set(pd.read_csv(tmp_path / 'one.csv')['image']) == {'mars_drive', 'second'}


def test_a_bag_that_was_made_without_records_is_named(find_rocks, tmp_path, capsys):
    assert find_rocks() == 0
    assert find_rocks('--resume', '--table', tmp_path / 'rocks.csv') == 1
    line = f'{tmp_path}/out: was made without --table, and is not in it; process it anew'
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
