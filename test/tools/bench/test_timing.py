# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from rock_seg_ros.tools.bench.timing import (
    Case,
    Run,
    fit_in_time,
    ratio,
    rss_mb,
    run_interleaved,
)


def case(*seconds, kind='network', implementation='exact', size=(640, 480), **more):
    runs = [Run(s, 100.0 + n) for n, s in enumerate(seconds)]
    return Case(kind, implementation, size, 'cpu', 'fp32', runs, **more)


def test_implementations_take_turns_and_the_first_round_is_discarded():
    order = []

    def implementation(name):
        def run():
            order.append(name)
            return Run(float(len(order)), 0.0)

        return run

    taken = run_interleaved({name: implementation(name) for name in 'ab'}, seconds=60, most=2)
    assert order == list('ababab')
    assert {name: [run.seconds for run in runs] for name, runs in taken.items()} == {
        'a': [3.0, 5.0],
        'b': [4.0, 6.0],
    }


def test_one_round_is_completed_after_the_time_limit():
    taken = run_interleaved({'a': lambda: Run(1.0, 0.0)}, seconds=0, most=200)
    assert len(taken['a']) == 1


def test_the_fastest_implementations_are_chosen_if_time_is_short():
    expected = {'slow': 20.0, 'fast': 1.0, 'medium': 4.0}
    assert fit_in_time(expected, 100) == ['slow', 'fast', 'medium']
    assert fit_in_time(expected, 12) == ['fast', 'medium']
    assert fit_in_time(expected, 1) == []


def test_the_json_of_a_case_has_percentiles_fps_and_the_largest_memory():
    values = case(*([0.010] * 98), 0.020, 0.110, limit_ms=5.0, more={'gflop': 7}).to_json()
    assert values['name'] == 'network: exact'
    assert values['size'] == [640, 480]
    assert (values['p50_ms'], values['p95_ms']) == (10.0, 10.0)
    assert values['p99_ms'] == pytest.approx(20.9)
    assert values['fps'] == pytest.approx(100 / (0.98 + 0.13), abs=1e-3)
    assert values['rss_mb'] == 199.0
    assert (values['runs'], values['limit_ms'], values['gflop']) == (100, 5.0, 7)


def test_a_ratio_above_1_means_that_the_second_is_faster():
    assert ratio(case(3.0), case(1.5)) == 2.0
    assert ratio(case(1.5), case(3.0)) == 0.5


def test_a_ratio_without_one_of_the_measurements_is_none():
    assert ratio(case(1.0), None) is None
    assert ratio(None, case(1.0)) is None


def test_the_memory_of_a_process_that_ended_is_nan():
    assert rss_mb() > 10
    assert np.isnan(rss_mb('none'))
