# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from rock_seg_ros.tools.view.feed import MAX_POINTS, MAX_SAMPLES, MAX_TRACKS, Feed, Result


def result(time, *rocks):
    listed = [{'id': number, 'area': area, 'diameter_mm': None} for number, area in rocks]
    return Result({'image': '', 'width': 1, 'height': 1, 'rocks': listed}, time, lambda _: None)


def test_the_history_of_a_rock_has_time_area_and_diameter():
    feed = Feed()
    feed.show(result(1.0, (7, 50)))
    feed.show(result(2.0, (8, 10)))
    feed.show(result(3.0, (7, 60)))
    assert feed.track(7) == [[1.0, 50, None], [3.0, 60, None]]
    assert feed.track(9) == []


def test_without_tracking_the_history_has_only_the_current_image():
    feed = Feed()
    feed.show(result(1.0, (1, 50)), tracked=False)
    feed.show(result(2.0, (1, 90)), tracked=False)
    assert feed.track(1) == [[2.0, 90, None]]


def test_the_history_and_the_samples_are_limited_in_number():
    feed = Feed()
    for number in range(MAX_TRACKS + 100):
        feed.show(result(number, (number, 1), (-1, 1)))
        feed.measure(1.0, 0)
    assert feed.track(0) == []
    assert len(feed.track(-1)) == MAX_POINTS
    assert len(feed.samples(0)) == MAX_SAMPLES


def test_a_listener_is_called_after_each_result():
    feed, heard = Feed(), []
    feed.subscribe(lambda: heard.append(feed.result))
    shown = result(1.0)
    feed.show(shown)
    assert heard == [shown]
