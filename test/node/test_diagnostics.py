# SPDX-License-Identifier: Apache-2.0
"""Counters, latencies and the diagnostic status."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from rock_seg_ros.node.diagnostics import WINDOW, CameraStatistics


def values_of(statistics):
    return {v.key: v.value for v in statistics.status('node', {}).values}


@pytest.mark.parametrize(
    ('sequences', 'came', 'lost'),
    [
        ([1, 2, 3], 3, 0),
        ([5, 6, 9], 5, 2),
        ([1, 2, 1, 2], 4, 0),
        ([None, None], 2, 0),
        ([4, None, 8], 3, 0),
    ],
)
def test_gaps_in_the_publication_sequence_are_counted_as_dropped(sequences, came, lost):
    statistics = CameraStatistics()
    for sequence in sequences:
        statistics.received(sequence)
    values = values_of(statistics)
    assert (values['frames in'], values['frames dropped']) == (str(came), str(lost))


@pytest.mark.parametrize(
    ('sequences', 'came', 'lost'),
    [
        ([1000, 1, 1001, 2, 1002, 3], 6, 0),
        ([1, 1000, 2, 1001, 3, 1002], 6, 0),
        ([1, 2, 3, 50, 4, 51, 5, 52], 8, 0),
        ([1, 50, 2, 51, 5, 54], 10, 4),
        ([10, 20, 11, 22, 23, 1, 24, 2], 9, 1),
        ([7, 7, 8, 8, 9, 9], 6, 0),
    ],
)
def test_of_two_publishers_each_has_a_sequence_of_its_own(sequences, came, lost):
    statistics = CameraStatistics()
    for sequence in sequences:
        statistics.received(sequence, publishers=2)
    values = values_of(statistics)
    assert (values['frames in'], values['frames dropped']) == (str(came), str(lost))


def test_a_publisher_that_joins_late_brings_no_lost_images_whatever_its_number():
    statistics = CameraStatistics()
    for sequence in range(1, 51):
        statistics.received(sequence)
    for sequence in range(51, 101):
        statistics.received(sequence + 47_000, publishers=2)
        statistics.received(sequence, publishers=2)
    for sequence in range(101, 111):
        statistics.received(sequence)
    values = values_of(statistics)
    assert (values['frames in'], values['frames dropped']) == ('160', '0')


def test_a_lost_image_is_counted_when_a_second_publisher_is_gone():
    statistics = CameraStatistics()
    for sequence in (1000, 1, 1001, 2):
        statistics.received(sequence, publishers=2)
    for sequence in (3, 5):
        statistics.received(sequence)
    assert values_of(statistics)['frames dropped'] == '1'


def test_what_was_missed_while_not_subscribed_is_not_lost():
    statistics = CameraStatistics()
    statistics.received(1)
    statistics.new_subscription()
    statistics.received(100)
    assert values_of(statistics)['frames dropped'] == '0'


@pytest.mark.parametrize('what', ['refused', 'failed'])
def test_refusals_and_failures_are_counted_by_reason(what):
    statistics = CameraStatistics()
    assert values_of(statistics)[f'frames {what}'] == '0'
    for reason in ('short data', 'too old', 'short data'):
        getattr(statistics, what)(reason)
    values = values_of(statistics)
    assert values[f'frames {what}'] == '3'
    assert (values[f'{what}: short data'], values[f'{what}: too old']) == ('2', '1')


def test_trouble_since_the_last_report_is_a_warning_and_none_is_not():
    statistics = CameraStatistics()
    assert statistics.status('node', {}).level == DiagnosticStatus.OK
    statistics.refused('too old')
    statistics.failed('out of memory')
    status = statistics.status('node', {})
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith('2 images')
    assert statistics.status('node', {}).level == DiagnosticStatus.OK


def test_latencies_are_percentiles_in_ms_of_the_last_images():
    statistics = CameraStatistics()
    for _ in range(WINDOW):
        statistics.published({'total': 9.0}, 0.0)
    for number in range(WINDOW):
        statistics.published({'total': number / 1000}, 0.25)
    values = values_of(statistics)
    assert float(values['latency total p50 ms']) == pytest.approx(249.5)
    assert float(values['latency total p95 ms']) == pytest.approx(474.05, abs=0.1)
    assert values['image age s'] == '0.250'
    assert values['frames out'] == str(2 * WINDOW)


def test_a_node_that_cannot_work_is_an_error_with_its_reason():
    status = CameraStatistics().status(
        'node', {'state': 'unconfigured'}, 'cannot be configured: no file'
    )
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == 'cannot be configured: no file'


@pytest.mark.parametrize('age', [404_605_367.0, -1.7e9])
def test_an_age_of_another_clock_is_said_in_words(age):
    statistics = CameraStatistics()
    statistics.published({'total': 0.1}, age)
    assert values_of(statistics)['image age s'] == 'not known, stamps are not of this clock'


def test_reasons_without_end_do_not_fill_the_report():
    statistics = CameraStatistics()
    for number in range(10_000):
        statistics.set_aside(f'camera_info: the focal lengths must be above 0, not {-number}, 0')
        statistics.refused(f'reason {number}')
    values = values_of(statistics)
    assert len(values) < 150
    assert int(values['set aside: other reasons']) > 9_000
    assert int(values['refused: other reasons']) > 9_000
