# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rock_seg_ros.tools.bench.implementations import Run
from rock_seg_ros.tools.bench.timing import Case, fit_in_time, ratio, run_interleaved


def case(*seconds, kind='network', who='exact', size=(640, 480), **more):
    runs = [Run(s, 100.0 + n) for n, s in enumerate(seconds)]
    return Case(kind, who, size, 'cpu', 'fp32', runs, **more)


def test_contenders_take_turns_and_the_first_round_does_not_count():
    order = []

    def implementation(who):
        def run():
            order.append(who)
            return Run(float(len(order)), 0.0)

        return run

    taken = run_interleaved({who: implementation(who) for who in 'ab'}, seconds=60, most=2)
    assert order == list('ababab')
    assert {who: [run.seconds for run in runs] for who, runs in taken.items()} == {
        'a': [3.0, 5.0],
        'b': [4.0, 6.0],
    }


def test_one_round_counts_even_where_the_time_is_over():
    taken = run_interleaved({'a': lambda: Run(1.0, 0.0)}, seconds=0, most=200)
    assert len(taken['a']) == 1


def test_the_quickest_are_measured_where_there_is_not_time_for_all():
    expected = {'slow': 20.0, 'quick': 1.0, 'middling': 4.0}
    assert fit_in_time(expected, 100) == ['slow', 'quick', 'middling']
    assert fit_in_time(expected, 12) == ['quick', 'middling']
    assert fit_in_time(expected, 1) == []


def test_a_case_tells_percentiles_frames_a_second_and_the_largest_memory():
    facts = case(*([0.010] * 98), 0.020, 0.110, limit_ms=5.0, more={'gflop': 7}).to_json()
    assert facts['name'] == 'network: exact'
    assert facts['size'] == [640, 480]
    assert (facts['p50_ms'], facts['p95_ms']) == (10.0, 10.0)
    assert facts['p99_ms'] == pytest.approx(20.9)
    assert facts['fps'] == pytest.approx(100 / (0.98 + 0.13), abs=1e-3)
    assert facts['rss_mb'] == 199.0
    assert (facts['runs'], facts['limit_ms'], facts['gflop']) == (100, 5.0, 7)


def test_a_ratio_above_1_means_that_the_second_is_quicker():
    cases = [case(3.0, who='torchvision'), case(1.5), case(0.1, size=(64, 48))]
    size = {'size': (640, 480)}
    assert ratio(cases, {'who': 'torchvision', **size}, {'who': 'exact', **size}) == 2.0
    assert ratio(cases, {'who': 'exact', **size}, {'who': 'torchvision', **size}) == 0.5


def test_a_ratio_with_something_that_was_not_measured_is_none():
    assert ratio([case(1.0)], {'who': 'exact'}, {'who': 'fast'}) is None
