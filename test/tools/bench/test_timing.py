# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rock_seg_ros.tools.bench.timing import Case, Run, rss_mb, run_interleaved


def test_contenders_take_turns_and_the_first_round_is_discarded():
    order = []

    def contender(name):
        def run():
            order.append(name)
            return len(order)

        return run

    taken = run_interleaved({name: contender(name) for name in 'ab'}, seconds=60, max_rounds=2)
    assert order == list('ababab')
    assert taken == {'a': [3, 5], 'b': [4, 6]}


def test_one_round_is_completed_after_the_time_limit():
    assert run_interleaved({'a': lambda: 1.0}, seconds=0) == {'a': [1.0]}


def test_the_json_of_a_case_has_percentiles_fps_and_the_largest_memory():
    seconds = [*([0.010] * 98), 0.020, 0.110]
    runs = [Run(s, 100.0 + n) for n, s in enumerate(seconds)]
    values = Case('network', 'exact', (640, 480), 'cpu', 'fp32', runs, {'images': 7}).to_json()
    assert values['name'] == 'network: exact'
    assert (values['size'], values['device'], values['precision']) == ([640, 480], 'cpu', 'fp32')
    assert (values['p50_ms'], values['p95_ms']) == (10.0, 10.0)
    assert values['p99_ms'] == pytest.approx(20.9)
    assert values['fps'] == pytest.approx(100 / (0.98 + 0.13), abs=1e-3)
    assert (values['rss_mb'], values['runs'], values['images']) == (199.0, 100, 7)


def test_the_memory_of_this_process_is_measured_in_mb():
    assert 10 < rss_mb() < 100_000
