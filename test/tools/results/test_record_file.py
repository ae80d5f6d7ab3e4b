# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import cv2
import pytest

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.tools.image_results import image_record
from rock_seg_ros.tools.results.record_file import RecordFiles, RecordWriter, summary_of


@pytest.fixture
def recorder():
    return SimpleNamespace(made_by={'version': '1'}, record=image_record, has_scale=False)


@pytest.fixture
def analysis(scene, segmenter):
    found = Analysis(scene, segmenter)
    assert found.rocks
    return found


def test_records_are_read_as_they_were_written_with_made_by(tmp_path, recorder, analysis):
    for name in ('a', 'b'):
        with RecordWriter(tmp_path / name, name, recorder, None, {'bag': name}) as writer:
            writer.add(analysis, time=1.5)
            writer.add(analysis, time=2.5)
            writer.finish(damage=[])
    records = RecordFiles([tmp_path / 'a', tmp_path / 'b'])
    found = [(record['image'], record['frame'], record['time']) for record in records]
    assert found == [('a', 0, 1.5), ('a', 1, 2.5), ('b', 0, 1.5), ('b', 1, 2.5)]
    assert [record['made_by'] for record in records] == [recorder.made_by] * 4
    assert not any('made_by' in record for record in records.plain())
    summary = summary_of(tmp_path / 'a')
    assert (summary['bag'], summary['records'], summary['damage']) == ('a', 2, [])


def test_images_of_names_that_differ_in_the_suffix_are_written_to_one_folder(
    tmp_path, recorder, analysis
):
    for name in ('run.1', 'run.2'):
        with RecordWriter(tmp_path / name, name, recorder, tmp_path / 'images') as writer:
            writer.add(analysis)
    for name in ('run.1', 'run.2'):
        assert cv2.imread(str(tmp_path / f'images/{name}_000000.jpg')).shape == (48, 64, 3)


def test_memory_does_not_grow_with_the_number_of_records(tmp_path, recorder, analysis):
    with RecordWriter(tmp_path / 'a', 'a', recorder, None) as writer:
        writer.add(analysis)
        tracemalloc.start()
        for _ in range(300):
            writer.add(analysis)
    for record in RecordFiles([tmp_path / 'a']):
        assert record['rocks']
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / 'a').stat().st_size > 200_000
    assert peak < 100_000
