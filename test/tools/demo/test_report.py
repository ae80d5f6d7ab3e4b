# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from rock_seg_ros.tools.demo.drive import Drive, Sample
from rock_seg_ros.tools.demo.recorder import Result
from rock_seg_ros.tools.demo.report import (
    CAPTION_HEIGHT,
    CELL,
    COLUMNS,
    TRUTH,
    contact_sheet,
    outline_truth,
    overlap,
    pooled_iou,
    table,
    write_report,
)


def result(mask, rocks):
    image = Image(height=mask.shape[0], width=mask.shape[1], step=mask.shape[1])
    image.data.frombytes(mask.tobytes())
    overlay = CompressedImage(format='jpeg')
    pixels = np.full((*mask.shape, 3), 90, np.uint8)
    overlay.data.frombytes(cv2.imencode('.jpg', pixels)[1].tobytes())
    messages = {'mask': image, 'overlay/compressed': overlay, 'rocks': PointCloud2(width=rocks)}
    return Result(messages)


@pytest.fixture
def left():
    """A 40×60 mask with rock in the left half."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:, :30] = 255
    return mask


def test_overlap_counts_the_pixels_of_intersection_and_union(left):
    assert overlap(left, left) == (1200, 1200)
    assert overlap(left, np.roll(left, 10, 1)) == (800, 1600)
    assert overlap(left, np.zeros_like(left)) == (0, 1200)


def test_a_label_of_another_size_is_an_error(left):
    with pytest.raises(ValueError, match=r'\(40, 60\), but the label \(20, 60\)'):
        overlap(left, left[:20])


def test_pooled_iou_weights_images_by_their_pixels():
    assert pooled_iou([(1, 2), (90, 98)]) == pytest.approx(0.91)
    assert pooled_iou([(0, 0)]) == 0.0


def test_the_contour_of_the_label_is_drawn_on_a_copy(left):
    overlay = np.zeros((40, 60, 3), np.uint8)
    drawn = outline_truth(overlay, left)
    assert not overlay.any()
    assert tuple(drawn[20, 29]) == TRUTH
    assert not drawn[5:35, 35:].any()


@pytest.mark.parametrize(('count', 'rows'), [(1, 1), (COLUMNS, 1), (COLUMNS + 1, 2)])
def test_the_contact_sheet_has_a_cell_per_image(count, rows):
    image = np.full((100, 400, 3), 200, np.uint8)
    sheet = contact_sheet([('caption', image)] * count)
    assert sheet.shape == (rows * (CELL[1] + CAPTION_HEIGHT), COLUMNS * CELL[0], 3)
    last_row, last_column = divmod(count - 1, COLUMNS)
    top = last_row * (CELL[1] + CAPTION_HEIGHT) + CAPTION_HEIGHT
    assert (
        sheet[top : top + 120, last_column * CELL[0] : (last_column + 1) * CELL[0]] == 200
    ).all()


@pytest.fixture
def drive(left):
    diagnostics = {
        'latency total p50 ms': '120.5', 'latency total p95 ms': '200.0', 'device': 'cpu',
    }  # fmt: skip
    counts = {'frames in': 9, 'frames out': 2, 'frames dropped': 6, 'frames rejected': 1,
              'frames failed': 0}  # fmt: skip
    results = {(10, 0): result(left, 3), (10, 500_000_000): result(left, 0)}
    return Drive(0.5, 10, results, counts, diagnostics)


def test_the_summary_is_written_with_the_documented_keys(tmp_path, drive, left):
    other = left.copy()
    other[:, 15:] = 0
    samples = [Sample('a', left, result(left, 1)), Sample('b', left, result(other, 1))]
    summary = write_report(tmp_path, drive, samples, 0.1)
    assert json.loads((tmp_path / 'summary.json').read_text()) == summary
    assert (summary['frames_in'], summary['frames_out'], summary['frames_dropped']) == (9, 2, 6)
    assert summary['frames_rejected'] == summary['frames_refused'] == 1  # the deprecated key
    assert summary['latency_ms'] == {'p50': 120.5, 'p95': 200.0}
    assert summary['rocks_per_frame'] == 1.5
    assert summary['iou_by_image'] == {'a': 1.0, 'b': 0.5}
    assert summary['iou'] == 0.75
    assert (summary['frames_played'], summary['play_rate']) == (10, 0.5)


def test_an_overlay_per_result_and_a_contact_sheet_are_written(tmp_path, drive, left):
    write_report(tmp_path, drive, [Sample('a', left, result(left, 1))], 0.1)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [
        'contact_sheet.jpg', 'overlay_000.jpg', 'overlay_001.jpg', 'overlay_sample_a.jpg',
        'summary.json',
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / 'overlay_001.jpg')).shape == (40, 60, 3)
    assert cv2.imread(str(tmp_path / 'contact_sheet.jpg')) is not None


def test_the_table_has_a_line_per_value(tmp_path, drive, left):
    text = table(write_report(tmp_path, drive, [Sample('a', left, result(left, 1))], 0.1))
    lines = {' '.join(line.split()) for line in text.splitlines()}
    assert lines >= {
        'play rate 0.50', 'frames in 9', 'frames out 2', 'frames dropped 6', 'latency p50 120 ms',
        'latency p95 200 ms', 'rocks per frame 1.5', 'IoU a 1.000', 'IoU 1.000',
    }  # fmt: skip
