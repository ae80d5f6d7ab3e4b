# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import pytest

from rock_seg_ros.tools.view.link import FAST, MAX_PATIENCE, SLOW, START, STEPS, TOO_SLOW, Link


def test_each_step_has_a_larger_size_and_a_higher_quality():
    assert all(a.side < b.side and a.quality < b.quality for a, b in pairwise(STEPS))


def test_a_fast_link_reaches_and_keeps_the_largest_step():
    link = Link()
    for _ in range(30):
        link.acknowledged(0.01)
    assert link.step == STEPS[-1]


def test_a_slow_link_drops_at_once_and_keeps_the_smallest_step():
    link = Link()
    link.acknowledged(SLOW * 1.1)
    assert link.step == STEPS[START - 1]
    for _ in range(10):
        link.acknowledged(10)
    assert link.step == STEPS[0]


def test_a_link_that_keeps_up_with_the_images_keeps_its_step():
    link = Link()
    for _ in range(100):
        link.acknowledged(2 * SLOW, waiting=False)
    assert link.step == STEPS[START]
    link.acknowledged(TOO_SLOW * 1.1, waiting=False)
    assert link.step == STEPS[START - 2]


def test_a_link_between_slow_and_fast_keeps_its_step():
    link = Link()
    for _ in range(100):
        link.acknowledged((FAST + SLOW) / 2)
    assert link.step == STEPS[START]


@pytest.mark.parametrize('fits', range(len(STEPS)))
def test_the_step_rarely_changes_on_a_steady_link(fits):
    link, steps = Link(), []
    for _ in range(1000):
        steps.append(link.step)
        link.acknowledged(0.05 if STEPS.index(link.step) <= fits else 2 * SLOW)
    late = steps[500:]
    assert late.count(STEPS[fits]) >= 0.9 * len(late)
    assert sum(a != b for a, b in pairwise(late)) <= 2 * 500 / MAX_PATIENCE + 2
