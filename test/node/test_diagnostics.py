# SPDX-License-Identifier: Apache-2.0
"""The counters and latencies of a camera, and its diagnostic status."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from rock_seg_ros.node.diagnostics import WINDOW, CameraStatistics


def values_of(statistics):
    return {v.key: v.value for v in statistics.status('node', {}).values}


@pytest.mark.parametrize(
    ('sequences', 'received', 'dropped'),
    [
        ([1, 2, 3], 3, 0),
        ([5, 6, 9], 5, 2),
        ([1, 2, 1, 2], 4, 0),
        ([None, None], 2, 0),
        ([4, None, 8], 3, 0),
    ],
)
def test_gaps_in_the_publication_sequence_are_counted_as_dropped(sequences, received, dropped):
    statistics = CameraStatistics()
    for sequence in sequences:
        statistics.received(sequence)
    values = values_of(statistics)
    assert (values['frames in'], values['frames dropped']) == (str(received), str(dropped))


@pytest.mark.parametrize(
    ('sequences', 'received', 'dropped'),
    [
        ([1000, 1, 1001, 2, 1002, 3], 6, 0),
        ([1, 1000, 2, 1001, 3, 1002], 6, 0),
        ([1, 2, 3, 50, 4, 51, 5, 52], 8, 0),
        ([1, 50, 2, 51, 5, 54], 10, 4),
        ([10, 20, 11, 22, 23, 1, 24, 2], 9, 1),
        ([7, 7, 8, 8, 9, 9], 6, 0),
    ],
)
def test_each_of_two_publishers_has_its_own_sequence(sequences, received, dropped):
    statistics = CameraStatistics()
    for sequence in sequences:
        statistics.received(sequence, publishers=2)
    values = values_of(statistics)
    assert (values['frames in'], values['frames dropped']) == (str(received), str(dropped))


def test_a_publisher_that_joins_late_causes_no_dropped_images():
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


def test_a_lost_image_is_counted_after_a_second_publisher_has_ended():
    statistics = CameraStatistics()
    for sequence in (1000, 1, 1001, 2):
        statistics.received(sequence, publishers=2)
    for sequence in (3, 5):
        statistics.received(sequence)
    assert values_of(statistics)['frames dropped'] == '1'


def test_images_before_a_new_subscription_do_not_count_as_dropped():
    statistics = CameraStatistics()
    statistics.received(1)
    statistics.new_subscription()
    statistics.received(100)
    assert values_of(statistics)['frames dropped'] == '0'


@pytest.mark.parametrize('what', ['rejected', 'failed'])
def test_rejected_and_failed_images_are_counted_by_reason(what):
    statistics = CameraStatistics()
    assert values_of(statistics)[f'frames {what}'] == '0'
    for reason in ('short data', 'too old', 'short data'):
        getattr(statistics, what)(reason)
    values = values_of(statistics)
    assert values[f'frames {what}'] == '3'
    assert (values[f'{what}: short data'], values[f'{what}: too old']) == ('2', '1')


def test_rejected_and_failed_images_since_the_last_status_are_a_warning():
    statistics = CameraStatistics()
    assert statistics.status('node', {}).level == DiagnosticStatus.OK
    statistics.rejected('too old')
    statistics.failed('out of memory')
    status = statistics.status('node', {})
    assert status.level == DiagnosticStatus.WARN
    assert status.message.startswith('2 images')
    assert statistics.status('node', {}).level == DiagnosticStatus.OK


def test_latencies_are_percentiles_of_the_last_images_in_ms():
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


def test_a_node_that_cannot_work_has_an_error_status_with_the_reason():
    status = CameraStatistics().status(
        'node', {'state': 'unconfigured'}, 'cannot be configured: no file'
    )
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == 'cannot be configured: no file'


@pytest.mark.parametrize('age', [404_605_367.0, -1.7e9])
def test_the_age_of_a_stamp_of_another_clock_is_reported_as_not_known(age):
    statistics = CameraStatistics()
    statistics.published({'total': 0.1}, age)
    assert values_of(statistics)['image age s'] == 'not known, the stamps are of another clock'


def test_the_number_of_reasons_in_the_status_is_limited():
    statistics = CameraStatistics()
    for number in range(10_000):
        statistics.ignored(f'camera_info: the focal lengths must be above 0, not {-number}, 0')
        statistics.rejected(f'reason {number}')
    values = values_of(statistics)
    assert len(values) < 150
    assert int(values['ignored: other reasons']) > 9_000
    assert int(values['rejected: other reasons']) > 9_000


def test_the_deprecated_key_has_the_count_of_rejected_images():
    statistics = CameraStatistics()
    statistics.rejected('too old')
    assert values_of(statistics)['frames refused'] == '1'
