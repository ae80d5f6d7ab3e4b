# SPDX-License-Identifier: Apache-2.0
"""Tests that the messages of the echo node have the sizes of those of the node."""

from __future__ import annotations

import pytest

from rock_seg_ros.node.outputs.clouds import POLYGON_POINT, ROCK_POINT


def test_the_points_of_the_clouds_have_the_size_of_those_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rock_seg_ros.tools.bench.programs import echo_node

    assert POLYGON_POINT.itemsize == echo_node.VERTEX
    assert ROCK_POINT.itemsize == echo_node.ROCK
